"""Write the curves of a sweep as TensorBoard event files, one run per attempt.

A copy: nothing is ever read back from these files, and where they cannot be
written the sweep goes on without them. Written with tensorboardX's synchronous writer, because its
``SummaryWriter`` blocks its caller for good once the thread behind it has met a full disk.
"""

import socket
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from sweep.driver.display import EndedView, SweepView
from sweep.driver.listeners.attempt_metrics import CURVE, SCORES, read_curve, tagged
from trainer.config.config_errors import ConfigError

FLUSH_EVERY_S = 10.0  # a flush waits for the disk
LIVE = {"train_loss": "live/train_loss", "step_ms": "live/step_ms"}


class Curves:
    """The event files of one sweep, under ``folder``; ``warn`` is told once if they cannot be."""

    def __init__(self, folder: Path, warn: Callable[[str], None]) -> None:
        self._folder, self._warn = folder, warn
        self._runs: dict[tuple[str, int], _Run] = {}
        self._failed = False
        try:  # here and not above: it brings torch along, which no other part of the sweep needs
            import tensorboardX  # noqa: F401
        except ImportError:
            raise ConfigError(
                "tensorboard = true needs the package tensorboardX, which is not installed: "
                "`.venv/bin/pip install --editable '.[tensorboard]'`, or take that line out of the "
                "sweep file."
            ) from None

    def show(self, view: SweepView) -> None:
        for lease in view.leases:
            self.progress(lease.cell, lease.attempt, lease.progress)

    def ended(self, ending: EndedView) -> None:
        self.add(ending.cell, ending.row["attempt"], ending.row, ending.curve)

    def progress(self, cell: str, attempt: int, progress: Mapping[str, Any] | None) -> None:
        """Add what the trainer says of itself now, if it has taken a step since."""
        step = (progress or {}).get("step")
        if progress is None or step is None or self._failed:
            return
        try:
            self._run(cell, attempt).add_live(step, tagged(progress, LIVE))
        except OSError as error:
            self._give_up(error)

    def add(self, cell: str, attempt: int, row: Mapping[str, Any], curve: bytes | None) -> None:
        """Add the whole curve and the scores of an attempt that has ended."""
        if self._failed:
            return
        try:
            run = self._run(cell, attempt)
            started_at_s = row["started_at"].timestamp()
            for point in read_curve(curve):
                at_s = started_at_s + point["train_s"]
                run.add(point["step"], tagged(point, CURVE), at_s=at_s)
            ended_at: datetime = row["ended_at"]
            run.add(row.get("steps") or 0, tagged(row, SCORES), at_s=ended_at.timestamp())
            self._runs.pop((cell, attempt)).close()
        except (OSError, pa.ArrowInvalid) as error:
            self._give_up(error)

    def close(self) -> None:
        """Close what is open still: attempts that nothing has ended."""
        while self._runs:
            try:
                self._runs.popitem()[1].close()
            except OSError as error:
                self._give_up(error)

    def _run(self, cell: str, attempt: int) -> "_Run":
        if (cell, attempt) not in self._runs:
            self._runs[cell, attempt] = _Run(self._folder / cell / f"attempt{attempt}")
        return self._runs[cell, attempt]

    def _give_up(self, error: Exception) -> None:
        if not self._failed:
            self._warn(
                f"warning: {self._folder}: TensorBoard's files cannot be written ({error}); the "
                f"sweep goes on without them."
            )
        self._failed = True
        self.close()


class _Run:
    """The event file of one attempt."""

    def __init__(self, folder: Path) -> None:
        from tensorboardX import RecordWriter
        from tensorboardX.proto.event_pb2 import Event

        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}"
        self._file = RecordWriter(str(folder / name))
        self._last_step: int | None = None
        self._flushed_s = time.monotonic()
        head = Event(wall_time=time.time(), file_version="brain.Event:2")
        try:
            self._file.write(head.SerializeToString())
        except OSError:
            self._file.close()
            raise

    def add_live(self, step: int, values: Mapping[str, float]) -> None:
        if not values or (self._last_step is not None and step <= self._last_step):
            return
        self._last_step = step
        self.add(step, values, at_s=time.time())
        if time.monotonic() - self._flushed_s > FLUSH_EVERY_S:
            self._flushed_s = time.monotonic()
            self._file.flush()

    def add(self, step: int, values: Mapping[str, float], *, at_s: float) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        if values:
            pairs = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
            event = Event(step=step, wall_time=at_s, summary=Summary(value=pairs))
            self._file.write(event.SerializeToString())

    def close(self) -> None:
        self._file.close()
