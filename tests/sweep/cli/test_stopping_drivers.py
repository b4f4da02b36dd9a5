"""A sweep that stops when it knows: killed and gone on with, and driven by two at once.

Not claimed: what Ray does then, or real trainers.
"""

import pytest

from sweep.cli import verbs
from sweep.cli.session import write_description
from sweep.store.store import Store
from tests.support.commands import wait_until
from tests.support.drivers import PATIENCE_S, PROCESSES
from tests.support.grids import cells_of
from tests.support.trial import SEEDS, drive, in_step, invocation, late, said, stuck_under
from trainer.config.config_errors import ConfigError

pytestmark = pytest.mark.usefixtures("looks_often")
WHOLE = {"seeds": SEEDS, "until": 0.001}
NUM_CELLS = 2 * 4 + 3 * 2  # all four under two seeds, two in play under three more


def attempts(run):
    return {(row["cell"], row["attempt"]): row["state"] for row in run.store.read().rows}


@pytest.mark.slow
def test_a_driver_that_is_killed_under_a_later_seed_decides_as_one_that_is_not(tmp_path):
    (tmp_path / "whole").mkdir()
    whole = invocation(tmp_path / "whole", late, **WHOLE)
    assert verbs.run(whole) == 0
    assert len(attempts(whole)) == NUM_CELLS

    begun = tmp_path / "begun"
    driver = PROCESSES.Process(
        target=drive, args=(tmp_path, stuck_under, SEEDS[3], begun), kwargs=WHOLE, daemon=True
    )
    driver.start()
    wait_until(lambda: begun.exists() and len(Store(tmp_path / "results/trial").read().rows) == 11)
    driver.kill()
    driver.join(PATIENCE_S)

    resumed = invocation(tmp_path, late, **WHOLE)
    assert verbs.run(resumed) == 0
    assert said(resumed).splitlines()[-4:] == said(whole).splitlines()[-4:]
    torn = f"leaky_relu2-s0.5__seed{SEEDS[3]}__4steps"
    assert attempts(resumed) == attempts(whole) | {(torn, 1): "lost", (torn, 2): "succeeded"}


@pytest.mark.slow
def test_two_drivers_share_every_seed_and_decide_as_one(tmp_path):
    begun = tmp_path / "begun"
    begun.mkdir()
    drivers = [
        PROCESSES.Process(
            target=drive,
            args=(tmp_path, in_step, begun, 2),
            kwargs={"join": True, "leases": 1, **WHOLE},
            daemon=True,
        )
        for _ in range(2)
    ]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join(PATIENCE_S)
    assert {driver.exitcode for driver in drivers} == {0}
    run = invocation(tmp_path, **WHOLE)
    assert len(attempts(run)) == NUM_CELLS  # each cell once, and none that nobody needs
    assert verbs.status(run) == 0
    assert "leaky_relu2-s0.3 is selected" in said(run)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"until": 0.002}, "zone = 0.002"), ({"until": None}, r"no \[until\] for this one")],
)
def test_a_second_driver_that_would_stop_otherwise_is_refused(tmp_path, changes, said):
    first = invocation(tmp_path, **WHOLE)
    write_description(first.sweep, first.store, cells_of(first.sweep))
    with Store(first.store.place).as_driver(), pytest.raises(ConfigError, match=said):
        verbs.run(invocation(tmp_path, **WHOLE | changes, join=True))


def test_the_leases_are_as_many_as_the_activations_that_are_left(tmp_path):
    run = invocation(tmp_path, late, leases=4, **WHOLE)
    assert verbs.run(run) == 0
    assert run.pool.granted == 4 + 3 * 2
    assert run.pool.leases == []
