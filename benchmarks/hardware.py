"""What could the hardware do at best? Peaks of known GPUs, and which GPU this is."""

import sys
from dataclasses import dataclass
from typing import Any

import torch

from trainer.system.machine import installed_version


@dataclass(frozen=True, slots=True)
class Peaks:
    """Of dense bfloat16 matrix products, and of device memory, as the vendor states them."""

    flops_per_s: float
    bytes_per_s: float


# By a part of the name that the driver gives; the first that fits. NVIDIA's data sheets.
KNOWN = {
    "H200": Peaks(989e12, 4.8e12),
    "H100 PCIe": Peaks(756e12, 2.0e12),
    "H100 NVL": Peaks(835e12, 3.9e12),
    "H100": Peaks(989e12, 3.35e12),
    "A100-SXM4-80GB": Peaks(312e12, 2.04e12),
    "A100": Peaks(312e12, 1.56e12),
}


def peaks_of(device_name: str) -> Peaks | None:
    """None where the GPU is not in the table: then no utilisation is stated."""
    return next((peaks for part, peaks in KNOWN.items() if part in device_name), None)


def need_gpu(benchmark: str, device: str = "cuda") -> None:
    """End with status 2 and a sentence where ``device`` is CUDA and there is none."""
    if device == "cuda" and not torch.cuda.is_available():
        print(f"{benchmark} needs a CUDA GPU and torch sees none here: nothing was measured.")
        sys.exit(2)


def versions() -> dict[str, Any]:
    """The GPU, and what compiles for it."""
    return {
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "triton": installed_version("triton"),
    }
