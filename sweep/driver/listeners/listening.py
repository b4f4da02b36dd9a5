"""Open whoever a sweep file wants to be told what the driver does, and close them in the end."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sweep.driver.display import Listener
from sweep.driver.listeners.event_command import EventCommand
from sweep.driver.listeners.tensorboard import Curves
from sweep.driver.listeners.tracker import Tracker
from sweep.spec.sweep_file import SweepSpec


@contextlib.contextmanager
def listening(
    sweep: SweepSpec, results: str, driver_id: str, say: Callable[[str], None]
) -> Iterator[Sequence[Listener]]:
    """What they have to say goes to ``say``; a ConfigError where one needs what is not there."""
    with contextlib.ExitStack() as opened:
        listeners: list[Listener] = []
        if sweep.tensorboard:
            curves = Curves(listener_folder("tensorboard", results, sweep.name), say)
            listeners.append(opened.enter_context(contextlib.closing(curves)))
        for kind in [kind for kind in ("wandb", "mlflow") if getattr(sweep, kind)]:
            tracker = Tracker(kind, sweep, listener_folder(kind, results, sweep.name), say)
            listeners.append(opened.enter_context(contextlib.closing(tracker)))
        if sweep.events is not None:
            command = EventCommand(sweep.events, sweep.name, driver_id, say)
            listeners.append(opened.enter_context(contextlib.closing(command)))
        yield listeners


def listener_folder(kind: str, results: str, sweep: str) -> Path:
    """In the results of ``sweep``; in the working directory where those are at a URI.

    >>> str(listener_folder("wandb", "results", "tiny"))
    'results/tiny/wandb'
    >>> str(listener_folder("wandb", "s3://b/r", "tiny"))
    'wandb/tiny'
    """
    if "://" in results:
        return Path(kind) / sweep
    return Path(results) / sweep / kind
