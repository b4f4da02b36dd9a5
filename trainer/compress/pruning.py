"""Pruning: set small codes to zero until the artifact fits its size.

Codes of ±1 alone, those of the smallest scale first: a code of ±1 costs the square of its row's
scale. No more of them than needed, found by bisection. Source: parameter-golf PR #1019.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from trainer.compress.containers import CODES, SCALE

Write = Callable[[Mapping[str, Tensor]], bytes]


def prune(
    tensors: Mapping[str, Tensor], six_bit: Sequence[str], write: Write, max_bytes: int
) -> tuple[bytes, int]:
    """What ``write`` makes of ``tensors`` in at most ``max_bytes``, and how many codes that cost.

    One code less would be too much, unless none is set to zero. All of them are where even that
    does not suffice. ``six_bit`` names the parameters whose codes may go; of equal scales the
    earlier code goes first. Writes about log₂(codes of ±1) times, if the whole does not fit.
    """
    data = write(tensors)
    if len(data) <= max_bytes:
        return data, 0
    candidates = _Candidates(tensors, six_bit)
    too_few, enough = 0, len(candidates.order)
    best = write(candidates.without(enough))
    if len(best) > max_bytes:
        return best, enough
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        trial = write(candidates.without(middle))
        if len(trial) <= max_bytes:
            enough, best = middle, trial
        else:
            too_few = middle
    return best, enough


class _Candidates:
    """``order``: where the codes of ±1 lie in all codes laid end to end, cheapest first."""

    def __init__(self, tensors: Mapping[str, Tensor], six_bit: Sequence[str]) -> None:
        self._tensors, self._names = tensors, [name + CODES for name in six_bit]
        nothing = torch.zeros(0, dtype=torch.int8)
        self._codes = torch.cat([nothing, *(tensors[name].flatten() for name in self._names)])
        costs = [
            tensors[name + SCALE].float().unsqueeze(-1).expand(tensors[name + CODES].shape)
            for name in six_bit
        ]
        where = (self._codes.abs() == 1).nonzero().flatten()
        cost = torch.cat([nothing.float(), *(each.flatten() for each in costs)])[where]
        self.order = where[torch.argsort(cost.square(), stable=True)]

    def without(self, num: int) -> dict[str, Tensor]:
        """The tensors, the first ``num`` candidates set to zero."""
        codes = self._codes.clone()
        codes[self.order[:num]] = 0
        sizes = [self._tensors[name].numel() for name in self._names]
        pruned = {
            name: part.view(self._tensors[name].shape)
            for name, part in zip(self._names, torch.split(codes, sizes), strict=True)
        }
        return {name: pruned.get(name, tensor) for name, tensor in self._tensors.items()}
