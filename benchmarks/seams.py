"""Watch what passes between the parts of the model: types and shapes, forward and backward.

And count the bytes that a forward pass keeps for the backward. Both work on tensors that have
shapes alone (torch's FakeTensorMode), so that the full size can be watched without a GPU.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from trainer.model import GPT, gpt

METHODS = (
    "_embed",
    "_values",
    "_layer_norm",
    "_project",
    "_attend",
    "_attention",
    "_mlp",
    "_block",
    "body",
    "nll_of",
)
FUNCTIONS = ("exclude_self", "normed_and_rotated", "rms_norm", "smear")
"""What the model's methods call, by its name in trainer/model/gpt.py."""
IN_FLOAT32 = frozenset({"nll_of"})
"""What is float32 whatever the compute type is: losses."""


@dataclass(frozen=True, slots=True)
class Seam:
    """One tensor that ``part`` gave to the rest, or one gradient that it got back for it."""

    part: str
    direction: str
    dtype: torch.dtype
    shape: tuple[int, ...]


@contextmanager
def watched(model: GPT) -> Iterator[list[Seam]]:
    """The seams of every pass of ``model`` inside, in the order in which they are passed."""
    seams: list[Seam] = []
    parts = [(model, name) for name in METHODS] + [(gpt, name) for name in FUNCTIONS]
    with ExitStack() as watching:
        for owner, name in parts:
            part = _watched(name, getattr(owner, name), seams)
            watching.enter_context(patch.object(owner, name, part))
        yield seams


def astray(seams: Iterable[Seam], compute_dtype: torch.dtype) -> list[Seam]:
    """Those that do not have the type that they should have."""
    return [
        seam
        for seam in seams
        if seam.dtype is not (torch.float32 if seam.part in IN_FLOAT32 else compute_dtype)
    ]


class Kept:
    """Bytes of all storages that are kept for a backward pass, ``but`` what is there anyway."""

    def __init__(self, but: Iterable[Tensor]) -> None:
        self._but = {t.untyped_storage()._cdata for t in but}
        self._tensors: list[Tensor] = []  # alive, so that no storage takes another's number

    def watching(self) -> AbstractContextManager[Any]:
        def keep(tensor: Tensor) -> Tensor:
            self._tensors.append(tensor)
            return tensor

        return torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)

    @property
    def num_bytes(self) -> int:
        storages = {s._cdata: s.nbytes() for s in (t.untyped_storage() for t in self._tensors)}
        return sum(size for number, size in storages.items() if number not in self._but)


def _watched(part: str, compute: Callable[..., Any], seams: list[Seam]) -> Callable[..., Any]:
    def with_seams(*arguments: Any, **named: Any) -> Any:
        result = compute(*arguments, **named)
        for tensor in _tensors(result):
            seams.append(Seam(part, "forward", tensor.dtype, tuple(tensor.shape)))
            if tensor.requires_grad:
                tensor.register_hook(
                    lambda g: seams.append(Seam(part, "backward", g.dtype, tuple(g.shape)))
                )
        return result

    return with_seams


def _tensors(result: Any) -> list[Tensor]:
    if isinstance(result, dict):
        return list(result.values())
    return list(result) if isinstance(result, tuple) else [result]
