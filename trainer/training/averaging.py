"""Average the weights that are scored: none, or an exponential moving average."""

from collections.abc import Mapping

import torch
from torch import Tensor

from trainer.config import Averaging


class Average:
    """Float32 shadow of ``weights``: avg ← decay·avg + (1 − decay)·w after every step.

    With kind "none" there is no shadow and ``current`` is the weights themselves.
    """

    def __init__(self, config: Averaging, weights: Mapping[str, Tensor]) -> None:
        self._decay = config.decay
        self._weights = dict(weights)
        self._shadow = (
            None
            if config.decay is None
            else {name: w.detach().float().clone() for name, w in weights.items()}
        )

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after one more step."""
        if self._shadow is not None and self._decay is not None:
            latest = [w.detach().float() for w in self._weights.values()]
            torch._foreach_lerp_(list(self._shadow.values()), latest, 1 - self._decay)

    def state(self) -> dict[str, Tensor]:
        """What the next update depends on besides the weights."""
        return dict(self._shadow or {})

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on as the average did that had this ``state``."""
        for name, shadow in (self._shadow or {}).items():
            shadow.copy_(state[name])

    def current(self) -> dict[str, Tensor]:
        """The averaged weights by name, in the dtype of the weights; copies."""
        source = self._weights if self._shadow is None else self._shadow
        return {
            name: source[name].detach().to(w.dtype, copy=True) for name, w in self._weights.items()
        }
