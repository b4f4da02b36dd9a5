"""The measures of each layer, weight tensor and tensor class of a trained model: names and units.

The open question of parameter-golf PR #1062 is whether the negative slope changes quantization
through denser weights. ``layers.parquet`` holds these measures as one long table. Imports no torch.
"""

from dataclasses import dataclass
from typing import Final, Literal

DENSE_HIDDEN: Final = 0.01
"""An output is dense above this fraction of the root mean square of its layer's outputs.

Every slope above zero makes every output non-zero, so counting those only tells ReLU² from the
rest. A negative side of β·x² leaves the threshold behind at an x that depends on the slope.
"""
DENSE_WEIGHT: Final = 0.1
"""The same for weights: about one step of six bits, for the clip of a Gaussian row is near 3 σ and
3 / 31 is 0.1. What lies below becomes a code of 0 or ±1.
"""
BETA_QUANTILES: Final = {
    "beta_min": 0.0,
    "beta_q05": 0.05,
    "beta_q25": 0.25,
    "beta_q50": 0.5,
    "beta_q75": 0.75,
    "beta_q95": 0.95,
    "beta_max": 1.0,
}

MeasuredKind = Literal["activation", "tensor", "class"]


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure: of what kind of thing it is, its unit ("" for none) and what it means."""

    kind: MeasuredKind
    unit: str
    meaning: str


def _of(kind: MeasuredKind, measures: dict[str, tuple[str, str]]) -> dict[str, Measure]:
    return {name: Measure(kind, unit, meaning) for name, (unit, meaning) in measures.items()}


LAYER_MEASURES: Final[dict[str, Measure]] = {
    **_of(
        "activation",
        {
            "negative_fraction": ("fraction", "pre-activations x ≤ 0"),
            "nonzero_fraction": ("fraction", "outputs f(x) ≠ 0"),
            "density": (
                "fraction",
                f"outputs of a magnitude above {DENSE_HIDDEN:g} · hidden_rms of the layer",
            ),
            "dead_channels": ("fraction", "channels with f(x) = 0 at every token of the sample"),
            "never_positive_channels": (
                "fraction",
                "channels with x ≤ 0 at every token of the sample",
            ),
            "hidden_rms": ("", "root mean square of f(x) over tokens and channels"),
            "hidden_kurtosis": ("", "excess kurtosis of f(x) over tokens and channels"),
            **{
                name: ("", f"{q:g} quantile over channels of β; no row where it is not learned")
                for name, q in BETA_QUANTILES.items()
            },
        },
    ),
    **_of(
        "tensor",
        {
            "rms": ("", "root mean square of the averaged weights w"),
            "kurtosis": ("", "excess kurtosis of w; 0 for Gaussian weights"),
            "weight_density": ("fraction", f"weights of a magnitude above {DENSE_WEIGHT:g} · rms"),
            "quant_mse": ("", "mean of (w − w')², w' read back from the artifact"),
            "quant_mse_relative": ("", "quant_mse over the mean of w²"),
            "floored_rows": ("fraction", "rows whose scale is the recipe's floor"),
            "code_entropy_bits": (
                "bits/weight",
                "Shannon entropy of the integer codes, all rows together",
            ),
            "zero_codes": ("fraction", "codes that are 0"),
        },
    ),
    **_of(
        "class",
        {
            "num_weights": ("", "numbers in the class"),
            "compressed_bytes": (
                "bytes",
                "the class's codes, scales and kept numbers, alone in the artifact's container and "
                "compressed as it is",
            ),
            "bits_per_weight": ("bits/weight", "8 · compressed_bytes / num_weights"),
        },
    ),
}  # fmt: skip
