"""A sweep of a few fake cells that stops when it knows, driven here or in another process."""

import io
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from sweep.cli import verbs
from sweep.cli.invocation import Invocation
from sweep.environment import Environment
from sweep.messages import Delivery, Order
from sweep.spec.grid import Cell
from tests.support.commands import poll
from tests.support.grids import cells_of
from tests.support.pool import FakePool, Work
from tests.support.reports import delivered
from trainer.contract import RunSpec

FILE = """
recipe = "tiny"
seeds = {seeds}
budgets = ["4steps"]
reference = "leaky_relu2-s0.5"
estimate_cell_s = 1.0
activations = [{{ name = "relu2" }}, {{ name = "leaky_relu2", slope = [0.3, 0.5, 0.9] }}]
"""
SEEDS = [7, 5, 3, 2, 6, 4]


class Prepared(Invocation):
    """An invocation whose data is there."""

    def cells(self, *, needs_data: bool = True) -> list[Cell]:
        return cells_of(self.sweep)


def invocation(
    folder: Path,
    work: Work | None = None,
    *,
    seeds: list[int] = SEEDS[:3],
    leases: int = 2,
    **options: Any,
) -> Prepared:
    """Four activations whose attempts are ``work``; what is said is in ``console.file``."""
    file = folder / "trial.toml"
    file.write_text(FILE.format(seeds=seeds), encoding="utf-8")
    return Prepared(
        environment=Environment(ray_address=None, yes=True),
        sweep_name=str(file),
        results=str(folder / "results"),
        data=Path("nowhere"),
        console=Console(file=io.StringIO(), width=200),
        connect=lambda address: FakePool(work, per_node=leases),
        **options,
    )


def said(run: Invocation) -> str:
    assert isinstance(run.console.file, io.StringIO)
    return run.console.file.getvalue()


def late(order: Order, stop: threading.Event) -> Delivery:
    """Scores of which two seeds tell 0.3 and 0.5 from the others, and five tell 0.3 from 0.5."""
    spec = RunSpec.model_validate_json(order.spec_json)
    bpb = {0.0: 2.02, 0.3: 2.0, 0.5: 2.0004, 0.9: 2.03}[spec.activation.params.get("slope", 0.0)]
    noise = 0.0005 * (-1) ** SEEDS.index(spec.seed) * (spec.activation.params.get("slope") == 0.5)
    return delivered(order, post_quant_sliding_bpb=bpb + noise)


def stuck_under(seed: int, begun: Path) -> Work:
    """``late``, but the last cell under ``seed`` says that it has begun, and never ends."""

    def work(order: Order, stop: threading.Event) -> Delivery:
        spec = RunSpec.model_validate_json(order.spec_json)
        if (spec.seed, spec.activation.params.get("slope")) == (seed, 0.5):
            begun.touch()
            stop.wait()
        return late(order, stop)

    return work


def in_step(begun: Path, num_drivers: int) -> Work:
    """``late``, but no cell ends before so many drivers have begun one under its seed."""

    def work(order: Order, stop: threading.Event) -> Delivery:
        seed = RunSpec.model_validate_json(order.spec_json).seed
        (begun / f"{seed}-{os.getpid()}").touch()
        if poll(lambda: len(list(begun.glob(f"{seed}-*"))) >= num_drivers, 60) is None:
            os._exit(1)  # the others have left
        return late(order, stop)

    return work


def drive(folder: Path, make_work: Callable[..., Work], *arguments: Any, **options: Any) -> None:
    """What a process of its own does: drive the sweep, and end with the driver's status."""
    os._exit(verbs.run(invocation(folder, make_work(*arguments), **options)))
