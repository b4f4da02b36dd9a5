"""Read the next batch on a thread while the last one is computed, in pinned memory for a GPU.

Order, positions and errors are the loader's own: a batch that cannot be read raises where it would
have been taken.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from trainer.data.loader import Loader

Batch = list[tuple[Tensor, Tensor]]


def prefetched(loader: Loader, device: torch.device) -> Loader:
    """``loader``, a batch ahead and in pinned memory where ``device`` is a GPU.

    On a CPU it is ``loader``: reading takes 0.5 % of a step, and a thread would compute on the
    cores that the step computes on.
    """
    return Prefetcher(loader, pinned_for=device) if device.type == "cuda" else loader


class Prefetcher:
    """A loader whose next batch is being read; ``position`` is that of the batches taken."""

    def __init__(self, loader: Loader, *, pinned_for: torch.device | None = None) -> None:
        self._loader, self._pins = loader, pinned_for is not None
        self._position = loader.position
        self._ahead: Future[tuple[Batch, int]] | None = None
        # A thread that pins has to be on the rank's own GPU, else it wakes up the first one.
        self._thread = (
            ThreadPoolExecutor(1)
            if pinned_for is None
            else ThreadPoolExecutor(1, initializer=torch.cuda.set_device, initargs=(pinned_for,))
        )

    @property
    def position(self) -> int:
        """How far the batches that were taken have read."""
        return self._position

    def seek(self, position: int) -> None:
        """Continue as the loader did that had this ``position``."""
        self._drop_ahead()
        self._loader.seek(position)
        self._position = position

    def next_batch(self) -> Batch:
        """This rank's micro-steps of the next optimizer step, as int64 (x_BT, y_BT)."""
        ahead = self._ahead or self._thread.submit(self._read)
        self._ahead = None
        batch, self._position = ahead.result()
        self._ahead = self._thread.submit(self._read)
        return batch

    def calibration(self, num_calls: int) -> Iterator[Tensor]:
        """As the loader's."""
        return self._loader.calibration(num_calls)

    def _read(self) -> tuple[Batch, int]:
        batch = self._loader.next_batch()
        if self._pins:
            batch = [(x_BT.pin_memory(), y_BT.pin_memory()) for x_BT, y_BT in batch]
        return batch, self._loader.position

    def _drop_ahead(self) -> None:
        """Wait for the batch that is being read, and forget it or why it could not be read."""
        if self._ahead is not None:
            self._ahead.exception()
            self._ahead = None
