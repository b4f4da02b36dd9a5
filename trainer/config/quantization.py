"""``[quantization]`` and ``[artifact]``: what is submitted, and what it may weigh."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from trainer.config.config_errors import StrictModel

Quantile = Annotated[float, Field(gt=0.0, le=1.0)]


class Gptq(StrictModel):
    """Codes that make up for each other's error on calibration text (``matrices = "gptq"``).

    ``calibration``: ``batches`` micro-batches of the training data (of the first virtual rank), or
    ``sequences`` sequences that the model writes itself at ``temperature``. ``damping`` is added to
    the diagonal of the Hessian twice, relative to its mean, as published. ``reserve_s`` is taken
    off a budget of seconds: calibration and quantization belong to it.
    """

    calibration: Literal["train", "generated"] = "train"
    batches: PositiveInt = 64
    sequences: PositiveInt = 64
    sequence_batch: PositiveInt = 8
    temperature: PositiveFloat = 0.8
    damping: NonNegativeFloat = 0.01
    block: PositiveInt = 128
    reserve_s: NonNegativeFloat = 10.0


class Quantization(StrictModel):
    """``scale_floor`` is the smallest scale of int6 and GPTQ rows, ``int8_scale_floor`` of int8.

    ``int8_codes_by``: the scale that int8 codes are computed with, the float16 one that is stored
    or the float32 one before it is rounded. ``quantile_rank`` is the type in which the place of a
    clip among a row's sorted values is computed; torch.quantile, which the published scripts call,
    takes float32. ``container`` is the file's format, with the names and the order of its tensors
    (``trainer.compress.containers``). ``control`` is the type of gains, scales, mixes, gates
    and β in the artifact; ``large_control`` of those above ``passthrough_numel``, to which PR #1035
    gives eight bits. ``prune_to_bytes`` sets codes of ±1 to zero, those of small scales first,
    until the artifact with its code weighs no more than this.
    """

    matrices: Literal["int6_row", "int8_row", "gptq"]
    embeddings: Literal["int6_row", "int8_row"]
    passthrough_numel: NonNegativeInt
    control: Literal["float16", "float32"] = "float16"
    large_control: Literal["float32", "int8"] = "float32"
    container: Literal["safetensors", "int8_clean_per_row_v1", "w_m"] = "safetensors"
    compressor: Literal["lzma", "zlib"]
    preset: Annotated[int, Field(ge=0, le=9)]
    scale_floor: PositiveFloat | None = None
    percentiles: Annotated[tuple[Quantile, ...], Field(strict=False, min_length=1)] = (
        0.999,
        0.9995,
        0.9999,
        0.99999,
        1.0,
    )
    int8_scale_floor: PositiveFloat | None = None
    int8_clip: Quantile = 0.9999984
    quantile_rank: Literal["float32", "float64"] = "float64"
    int8_codes_by: Literal["stored_scale", "exact_scale"] = "stored_scale"
    gptq: Gptq = Gptq()
    prune_to_bytes: PositiveInt | None = None


class Artifact(StrictModel):
    """The limits of the field: what an artifact may weigh, and how long it may take on 8 GPUs.

    ``train_cap_s`` holds training and the calibration of GPTQ, ``eval_cap_s`` what follows from
    reading the artifact to the last ranked score. They change nothing of a run but the columns that
    say whether it kept them.
    """

    code_bytes: NonNegativeInt
    cap_bytes: PositiveInt = 16_000_000
    train_cap_s: PositiveFloat = 600.0
    eval_cap_s: PositiveFloat = 600.0
