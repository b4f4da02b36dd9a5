"""How often somebody asks for the end decides how it comes. Not claimed: what Ray does then."""

from types import SimpleNamespace

from sweep.__main__ import main
from sweep.cli.invocation import Invocation
from sweep.cli.session import _Session
from sweep.driver.interrupts import Interruption
from sweep.schedule.plan import plan_unsettled
from sweep.store.store import Store
from tests.support.drivers import row_of
from tests.support.grids import cells_of, sweep_spec


def test_ctrl_c_while_the_cluster_is_left_is_one_word(monkeypatch, capsys):
    def interrupted(invocation):
        raise KeyboardInterrupt

    monkeypatch.setattr(Invocation, "close", interrupted)
    assert main(["which", "--sweep", "local"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


class Racing(Store):
    """A store where another driver ends its attempt just after the first look at attempts."""

    end_other = staticmethod(lambda: None)

    def running(self):
        found = super().running()
        self.end_other()
        return found

    def read(self):
        found = super().read()
        self.end_other()
        return found


class Silent(SimpleNamespace):
    """What a session needs of an invocation that finds nothing to run."""

    sweep = SimpleNamespace(name="test")
    planned = None

    def estimate(self, todo, history):
        return None

    def plan_sentence(self, todo, cost):
        self.planned = todo
        return "nothing"

    def say(self, text):
        pass


def test_a_cell_that_another_driver_ends_meanwhile_is_not_run_again(tmp_path):
    cell = cells_of(sweep_spec())[0]
    other = Store(tmp_path)
    with other.as_driver(join=True) as driver_id:
        attempt = other.announce(cell.id, 1, {"driver": driver_id})
        store = Racing(tmp_path)
        store.end_other = lambda: other.commit(attempt, row)
        row = row_of(attempt)  # committing it twice alike is committing it once
        invocation = Silent(store=store)
        assert not _Session(invocation, [cell], None, "us").run(plan_unsettled, Interruption())
    assert invocation.planned.todo == ()
