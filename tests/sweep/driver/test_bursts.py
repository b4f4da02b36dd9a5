"""Cells that answer at once keep the driver neither from its looks nor from Ctrl-C."""

from benchmarks.driver_scale import CODE, NUM_LEASES, Silent, stub_pool, sweep_of
from sweep.driver.attempt_row import Versions
from sweep.driver.attempts import Attempts
from sweep.driver.driver import Driver
from sweep.driver.interrupts import Interruption
from sweep.provenance import Revision
from sweep.schedule.plan import plan_unsettled
from sweep.store.store import Store
from tests.support.grids import cells_of


class Impatient(Silent):
    """Asks to stop as soon as one cell has ended."""

    def __init__(self, interruption):
        self.interruption, self.num_ended = interruption, 0

    def ended(self, ending):
        self.num_ended += 1
        if self.num_ended == 1:
            self.interruption.request()


def test_an_interruption_is_heard_while_news_comes_without_a_break(tmp_path):
    sweep, store, interruption = sweep_of(400), Store(tmp_path / "sweep"), Interruption()
    display, cells = Impatient(interruption), cells_of(sweep)
    with store.as_driver() as driver_id:
        attempts = Attempts(
            sweep=sweep,
            store=store,
            versions=Versions(driver_id, Revision("abc", False), "none", CODE.trainer_hash),
            say=display.say,
        )
        driver = Driver(
            sweep=sweep,
            pool=stub_pool(),
            attempts=attempts,
            display=display,
            interruption=interruption,
            lease_limit=lambda quarantined: NUM_LEASES,
            code=CODE,
        )
        driver.run(plan_unsettled(cells, {}), {})
    assert 1 <= display.num_ended < len(cells)
