"""Measure the activations of a trained model's layers, and its weights in the artifact.

Everything is of the averaged weights before quantization, activations on the first tokens of the
validation text. A value that is not finite, or not defined, is None. There is no collective and no
random number: the rank that measures decides nothing for the others. The measures are those of
:data:`trainer.layer_measures.LAYER_MEASURES`. Shapes: N sequences, T tokens, D width, F hidden
channels, L layers.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.compress import containers
from trainer.compress.artifact import Packed, decoded
from trainer.compress.containers import CODES, SCALE
from trainer.config import Quantization
from trainer.evaluate.bpb import Stream
from trainer.layer_measures import BETA_QUANTILES, DENSE_HIDDEN, DENSE_WEIGHT, MeasuredKind
from trainer.mechanism.distribution import (
    entropy_bits,
    excess_kurtosis,
    fraction_above,
    kurtosis_of,
    mean_squared_error,
    root_mean_square,
)
from trainer.model import GPT
from trainer.optim.parameter_kinds import kind_of

SAMPLE_TOKENS: Final = 8192
BATCH_TOKENS: Final = 2048  # at 1536 hidden channels 25 MB in float64
CLASSES_AT_ONCE: Final = 6
WEIGHTS: Final = ("matrices", "projections", "embeddings")
ROLES: Final = {"qo_bank": ("q", "o"), "kv_bank": ("k", "v")}
"""Banks in which every layer has two matrices, first the one of all layers and then the other."""


class LayerRow(NamedTuple):
    """One row of ``layers.parquet``; ``layer`` is None of what is of no one layer."""

    kind: MeasuredKind
    name: str
    layer: int | None
    measure: str
    value: float | None


Beat = Callable[[], None]
Values = Mapping[str, float | None]


def weight_rows(
    weights: Mapping[str, Tensor],
    packed: Packed,
    config: Quantization,
    at_once: int = 1,
    beat: Beat = lambda: None,
) -> tuple[LayerRow, ...]:
    """Every measure of ``weights`` (float32, on the CPU), which ``config`` packed as ``packed``.

    ``beat`` is called for each matrix and each class. The classes take as long as compressing the
    artifact, unless ``at_once`` are compressed at once: then the mlp's, two thirds of the bytes,
    decides.
    """
    tensors, recipe_hash = containers.content(packed.plain, config)

    def compressed_bytes(part: Mapping[str, Tensor]) -> int:
        return len(containers.write(part, recipe_hash, config))

    def sizes(parts: Sequence[Mapping[str, Tensor]]) -> Iterator[int]:
        with ThreadPoolExecutor(at_once) as pool:  # the compressors leave Python to others
            for size in pool.map(compressed_bytes, parts):
                beat()
                yield size

    return (
        *_tensor_rows(weights, tensors, packed.floored_parts, beat),
        *_class_rows(weights, tensors, sizes),
    )


def validation_sample(stream: Stream, length: int) -> Tensor:
    """The first whole sequences of ``length`` tokens, (N, T), of SAMPLE_TOKENS in all at most.

    At least one sequence, and no more than the stream has targets for.
    """
    num = max(1, min(SAMPLE_TOKENS, stream.num_targets) // length)
    return stream.tokens[: num * length].view(num, length)


@torch.inference_mode()
def activation_rows(model: GPT, sample_NT: Tensor, beat: Beat = lambda: None) -> Iterator[LayerRow]:
    """What the activation of every layer is given and gives on ``sample_NT``, in two passes.

    The first pass counts and sums; the second takes moments about the mean of the first, and counts
    what exceeds its root mean square. Nothing is kept of a batch, after each of which ``beat`` is
    called.
    """
    layers, hidden = model.up_bank.shape[:2]
    device = model.up_bank.device
    sums_L4 = torch.zeros(layers, 4, dtype=torch.float64, device=device)
    gave_LF, was_positive_LF = torch.zeros(2, layers, hidden, dtype=torch.bool, device=device)

    def sum_up(layer: int, x_PF: Tensor, f_PF: Tensor) -> None:
        gave_LF[layer] |= (f_PF != 0).any(dim=0)
        was_positive_LF[layer] |= (x_PF > 0).any(dim=0)
        wide = f_PF.double()
        sums_L4[layer] += torch.stack(
            [(x_PF <= 0).sum(), (f_PF != 0).sum(), wide.sum(), wide.square().sum()]
        )

    _observe(model, sample_NT, sum_up, beat)
    means_L4 = sums_L4 / (sample_NT.numel() * hidden)
    rms_L = means_L4[:, 3].sqrt()
    about_L3 = torch.zeros(layers, 3, dtype=torch.float64, device=device)

    def compare(layer: int, x_PF: Tensor, f_PF: Tensor) -> None:
        wide = f_PF.double()
        squares = (wide - means_L4[layer, 2]).square()
        dense = wide.abs() > DENSE_HIDDEN * rms_L[layer]
        about_L3[layer] += torch.stack([dense.sum(), squares.sum(), squares.square().sum()])

    _observe(model, sample_NT, compare, beat)
    about_L3 /= sample_NT.numel() * hidden
    for layer in range(layers):
        negative, nonzero, _, _ = means_L4[layer].tolist()
        dense, second, fourth = about_L3[layer].tolist()
        values = {
            "negative_fraction": negative,
            "nonzero_fraction": nonzero,
            "density": dense,
            "dead_channels": 1.0 - float(gave_LF[layer].double().mean()),
            "never_positive_channels": 1.0 - float(was_positive_LF[layer].double().mean()),
            "hidden_rms": float(rms_L[layer]),
            "hidden_kurtosis": kurtosis_of(second, fourth),
        }
        yield from _rows("activation", "mlp", layer, values | _beta(model, layer))


def class_of(name: str) -> str:
    """The tensor class of a parameter: its kind, matrices told apart into attention and mlp.

    >>> class_of("up_bank"), class_of("kv_bank"), class_of("embed")
    ('mlp', 'attention', 'embeddings')
    """
    kind = kind_of(name)
    if kind != "matrices":
        return kind
    return "mlp" if name in ("up_bank", "down_bank") else "attention"


def _observe(
    model: GPT, sample_NT: Tensor, show: Callable[[int, Tensor, Tensor], None], beat: Beat
) -> None:
    """Show (layer, pre-activations, outputs), each (tokens, F), of every batch and layer.

    The outputs are the forward path's own. Its pre-activations stay within the MLP, so their one
    product is repeated, in the same precision: the tap is called where the model computes.
    """
    before: dict[int, Tensor] = {}

    def tap(site: str, layer: int, x: Tensor) -> None:
        if site == "mlp_in":
            before[layer] = F.linear(x, model.up_bank[layer]).flatten(0, -2)
        elif site == "mlp_hidden":
            show(layer, before.pop(layer), x.flatten(0, -2))

    model.eval()
    for tokens_NT in torch.split(sample_NT, max(1, BATCH_TOKENS // sample_NT.size(1))):
        model.body(tokens_NT, tap=tap)
        beat()


def _beta(model: GPT, layer: int) -> dict[str, float]:
    """Quantiles of what the layer has learned; nothing where β is fixed."""
    module = model.activations[layer]
    beta = getattr(module, "beta", None)
    if not isinstance(beta, Tensor) or not list(module.parameters()):
        return {}
    q = torch.tensor(list(BETA_QUANTILES.values()), dtype=torch.float64, device=beta.device)
    found = torch.quantile(beta.double().flatten(), q).tolist()
    return dict(zip(BETA_QUANTILES, found, strict=True))


def _tensor_rows(
    weights: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    floored: Mapping[str, Sequence[float]],
    beat: Beat,
) -> Iterator[LayerRow]:
    read_back = decoded(tensors)
    for name, w in weights.items():
        if kind_of(name) not in WEIGHTS:
            continue
        codes = tensors.get(name + CODES)
        matrices, others = _matrices(w), _matrices(read_back[name])
        for index, (matrix, other) in enumerate(zip(matrices, others, strict=True)):
            beat()
            values = _weight_values(matrix, other)
            if codes is not None:
                values |= _code_values(_matrices(codes)[index], floored[name][index])
            label, layer = _place(name, index, len(matrices)) if w.ndim == 3 else (name, None)
            yield from _rows("tensor", label, layer, values)


def _matrices(w: Tensor) -> Tensor:
    """The matrices of a parameter behind one another, those of a bank or a single one."""
    return w.reshape(-1, *w.shape[-2:])


def _place(name: str, index: int, num_matrices: int) -> tuple[str, int]:
    """What matrix ``index`` of a bank is called, and its layer."""
    roles = ROLES.get(name)
    if roles is None:
        return name, index
    role, layer = divmod(index, num_matrices // len(roles))
    return f"{name}.{roles[role]}", layer


def _weight_values(w: Tensor, read_back: Tensor) -> dict[str, float | None]:
    rms, error = root_mean_square(w), mean_squared_error(w, read_back)
    return {
        "rms": rms,
        "kurtosis": excess_kurtosis(w),
        "weight_density": fraction_above(w, DENSE_WEIGHT * rms),
        "quant_mse": error,
        "quant_mse_relative": error / rms**2 if rms > 0 else None,
        "floored_rows": None,
        "code_entropy_bits": None,
        "zero_codes": None,
    }


def _code_values(codes: Tensor, floored_rows: float) -> dict[str, float | None]:
    return {
        "floored_rows": floored_rows,
        "code_entropy_bits": entropy_bits(codes),
        "zero_codes": float((codes == 0).double().mean()),
    }


def _class_rows(
    weights: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    sizes: Callable[[Sequence[Mapping[str, Tensor]]], Iterable[int]],
) -> Iterator[LayerRow]:
    classes: dict[str, list[str]] = {}
    for name in sorted(weights, key=class_of):
        classes.setdefault(class_of(name), []).append(name)
    parts = [
        {key: tensors[key] for key in _keys(names) if key in tensors} for names in classes.values()
    ]
    for (label, names), size in zip(classes.items(), sizes(parts), strict=True):
        num = sum(weights[name].numel() for name in names)
        values = {
            "num_weights": float(num),
            "compressed_bytes": float(size),
            "bits_per_weight": 8 * size / num,
        }
        yield from _rows("class", label, None, values)


def _keys(names: Sequence[str]) -> Iterator[str]:
    """What the tensors of these parameters may be called in a container."""
    return (name + suffix for name in names for suffix in ("", CODES, SCALE))


def _rows(kind: MeasuredKind, name: str, layer: int | None, values: Values) -> Iterator[LayerRow]:
    for measure, value in values.items():
        known = value if value is not None and math.isfinite(value) else None
        yield LayerRow(kind, name, layer, measure, known)
