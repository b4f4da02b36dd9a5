"""``[quantization]`` and ``[artifact]``: what is submitted, and what it may weigh."""

from typing import Annotated, Literal

from pydantic import Field

from trainer.config.config_errors import Strict
from trainer.config.values import Above0, Count, Positive, Rate

Quantile = Annotated[float, Field(gt=0.0, le=1.0)]


class Gptq(Strict):
    """Codes that make up for each other's error on calibration text (``matrices = "gptq"``).

    ``calibration``: ``batches`` micro-batches of the training data (of the first virtual rank), or
    ``sequences`` sequences that the model writes itself at ``temperature``. ``damping`` is added to
    the diagonal of the Hessian twice, relative to its mean, as published. ``reserve_s`` is taken
    off a budget of seconds: calibration and quantization belong to it.
    """

    calibration: Literal["train", "generated"] = "train"
    batches: Positive = 64
    sequences: Positive = 64
    sequence_batch: Positive = 8
    temperature: Above0 = 0.8
    damping: Rate = 0.01
    block: Positive = 128
    reserve_s: Rate = 10.0


class Quantization(Strict):
    """``scale_floor`` is the smallest scale of int6 and GPTQ rows, ``int8_scale_floor`` of int8.

    ``int8_codes_by``: the scale that int8 codes are computed with, the float16 one that is stored
    or the float32 one before it is rounded. ``control`` is the type of gains, scales, mixes, gates
    and β in the artifact; ``large_control`` of those above ``passthrough_numel``, to which PR #1035
    gives eight bits. ``prune_to_bytes`` sets codes of ±1 to zero, those of small scales first,
    until the artifact with its code weighs no more than this.
    """

    matrices: Literal["int6_row", "int8_row", "gptq"]
    embeddings: Literal["int6_row", "int8_row"]
    passthrough_numel: Count
    control: Literal["float16", "float32"] = "float16"
    large_control: Literal["float32", "int8"] = "float32"
    container: Literal["safetensors", "torch"] = "safetensors"
    compressor: Literal["lzma", "zlib"]
    preset: Annotated[int, Field(ge=0, le=9)]
    scale_floor: Above0 | None = None
    percentiles: Annotated[tuple[Quantile, ...], Field(strict=False, min_length=1)] = (
        0.999,
        0.9995,
        0.9999,
        0.99999,
        1.0,
    )
    int8_scale_floor: Above0 | None = None
    int8_clip: Quantile = 0.9999984
    int8_codes_by: Literal["stored_scale", "exact_scale"] = "stored_scale"
    gptq: Gptq = Gptq()
    prune_to_bytes: Positive | None = None


class Artifact(Strict):
    code_bytes: Count
    cap_bytes: Positive = 16_000_000
