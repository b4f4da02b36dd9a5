"""Names and order in which the published scripts write the tensors of a model.

Compression sees neighbours, so names and order decide a file's size, by up to 2 %. The order is
that of ``state_dict``: a module's own parameters, then its children as they were made. Where
matrices lie in banks, as from PR #549 on, those are parameters of the model itself, so they come
before the embedding; in PR #1035 every block owns its matrices. Source: the scripts of
parameter-golf PR #1035, #549 and #1176; docs/recipes.md.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Part:
    """A published tensor: ``name`` there, and the parameter here that it is, or is one layer of."""

    name: str
    parameter: str
    index: int | None = None

    def of(self, tensor: Tensor) -> Tensor:
        """This part of ``tensor``, which belongs to ``parameter``, in memory of its own."""
        part = tensor if self.index is None else tensor[self.index]
        if self.parameter == _LAYER_SCALES:  # of which each is a vector of one, as published
            part = part.view(1)
        return part.clone()  # torch.save writes the whole storage that a tensor is a view of


def split(parameters: Mapping[str, Tensor], *, banked: bool) -> list[Part]:
    """Every published tensor of a model with these ``parameters``, in the order of writing.

    A parameter is told by its name and, where it is a stack over layers, by its length; what has no
    published name is an error.
    """
    num_layers = max((_num_layers(*item) for item in parameters.items()), default=0)
    found = [
        part
        for part in _parts(num_layers, banked)
        if part.parameter in parameters
        and (part.index is None or part.index < len(parameters[part.parameter]))
    ]
    if unknown := sorted(parameters.keys() - {part.parameter for part in found}):
        raise ValueError(f"{', '.join(unknown)}: these have no published name. Give them one.")
    return found


def join(tensors: Mapping[str, Tensor], *, banked: bool) -> dict[str, Tensor]:
    """The parameters whose published tensors are ``tensors``: layers are stacked again."""
    layered = (name for name in tensors if name.startswith(("blocks.", "ve_layer_scales.")))
    num_layers = max((int(name.split(".")[1]) + 1 for name in layered), default=0)
    stacks: dict[str, dict[int, Tensor]] = {}
    parameters: dict[str, Tensor] = {}
    for part in _parts(num_layers, banked):
        if part.name in tensors and part.index is None:
            parameters[part.parameter] = tensors[part.name]
        elif part.name in tensors and part.index is not None:
            stacks.setdefault(part.parameter, {})[part.index] = tensors[part.name]
    for parameter, stack in stacks.items():
        whole = torch.stack([stack[index] for index in range(len(stack))])
        parameters[parameter] = whole.flatten() if parameter == _LAYER_SCALES else whole
    return parameters


def _num_layers(parameter: str, tensor: Tensor) -> int:
    if parameter.startswith("activations."):
        return int(parameter.split(".")[1]) + 1
    if parameter in _OWN.values():
        return len(tensor)
    halves = {bank: 1 + second for bank, second in _MATRICES.values()}
    return len(tensor) // halves[parameter] if parameter in halves else 0


def _parts(num_layers: int, banked: bool) -> Iterator[Part]:
    layers = range(num_layers)
    yield Part("skip_weights", "skip_weights")
    if banked:
        for group in _BANKS:
            yield from (_matrix(i, name, num_layers) for i in layers for name in group)
    yield Part("tok_emb.weight", "embed")
    yield from _embedding("bigram", "bigram")
    yield Part("smear.gate", "smear_gate")
    for i in layers:
        yield from (Part(f"blocks.{i}.{name}", stack, i) for name, stack in _OWN.items())
        if not banked:
            yield from (_matrix(i, name, num_layers) for name in _MATRICES)
        yield Part(f"blocks.{i}.mlp.asqu.beta", f"activations.{i}.beta")
        for name in ("prelu.slope", "xielu.a_p", "xielu.a_n"):  # never published
            yield Part(f"blocks.{i}.mlp.{name}", f"activations.{i}.{name.partition('.')[2]}")
    yield from _embedding("ve_shared", "value_embedding")
    yield from (Part(f"ve_layer_scales.{i}", _LAYER_SCALES, i) for i in layers)


def _embedding(name: str, parameter: str) -> Iterator[Part]:
    yield Part(f"{name}.scale", f"{parameter}.scale")
    yield Part(f"{name}.embed.weight", f"{parameter}.embed")
    yield Part(f"{name}.proj.weight", f"{parameter}.proj")


def _matrix(layer: int, name: str, num_layers: int) -> Part:
    bank, second_half = _MATRICES[name]
    return Part(f"blocks.{layer}.{name}.weight", bank, layer + second_half * num_layers)


_LAYER_SCALES = "value_embedding.layer_scales"
_OWN = {
    "attn_scale": "attn_scale_LD",
    "mlp_scale": "mlp_scale_LD",
    "resid_mix": "resid_mix_L2D",
    "attn.q_gain": "q_gain_LH",
}
_MATRICES = {  # the bank, and in which half of it
    "attn.c_q": ("qo_bank", 0),
    "attn.c_k": ("kv_bank", 0),
    "attn.c_v": ("kv_bank", 1),
    "attn.proj": ("qo_bank", 1),
    "mlp.fc": ("up_bank", 0),
    "mlp.proj": ("down_bank", 0),
}
_BANKS = (("attn.c_q", "attn.proj"), ("attn.c_k", "attn.c_v"), ("mlp.fc",), ("mlp.proj",))
