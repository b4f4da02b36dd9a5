"""Drivers that share a simulated cluster: who holds how much, and what is given back for whom.

Leases, schedulers, claims and board are the real ones; time and cells are simulated. Not claimed:
what Ray does (tests/sweep/cluster/test_shared_cluster.py).
"""

import itertools
from collections import Counter
from concurrent.futures import Future
from functools import cache
from queue import SimpleQueue
from types import SimpleNamespace as Namespace

import pytest

from sweep.cluster.board import EVERY_S, EXPIRES_S, YOUNG_S
from sweep.cluster.interface import Node
from sweep.driver import share
from sweep.driver.leases import Leases
from sweep.driver.share import ON_ITS_WAY_S, WAITS_AFTER_S, Share
from sweep.messages import PrepareResult
from sweep.schedule.plan import Task
from sweep.schedule.scheduler import Scheduler
from tests.support.grids import cells_of, sweep_spec
from tests.support.nodes import requirements
from tests.support.pool import FakeLease, FakePool
from tests.support.scheduling import ended
from tests.sweep.cluster.test_sharing import claim as claim_of
from trainer.config.config_errors import ConfigError

STARTS_S, CELL_S = 8.0, 100.0  # an agent of Ray takes seconds to start
STEP_S = 2.0
SETTLED_S = CELL_S + STARTS_S + WAITS_AFTER_S + 10 * EVERY_S
NODES = "abcd"


class ReadyLease(FakeLease):
    def prepare(self, requirements):
        ready = Future()
        ready.set_result(PrepareResult())
        return ready


class SlowPool(FakePool):
    """A lease takes its node at once, and is there some seconds later."""

    def __init__(self, clock, **options):
        super().__init__(None, lease=ReadyLease, per_node=1, **options)
        self.clock, self._starting = clock, []

    def ready(self):
        self._starting += [(self.clock.now_s + STARTS_S, lease) for lease in super().ready()]
        due = [lease for at_s, lease in self._starting if at_s <= self.clock.now_s]
        self._starting = [each for each in self._starting if each[0] > self.clock.now_s]
        return due


@cache
def grid(blocks, pairing):
    return cells_of(sweep_spec(seeds=list(range(blocks)), pairing=pairing))


class Drivers:
    """Several on one cluster, each as its driver would be driven, every two seconds."""

    def __init__(self, clock, names=NODES):
        self.clock, self.names, self.all, self._order = clock, names, [], []

    def start(self, *, blocks=20, pairing="seed", cell_s=CELL_S, **node):
        sweep = sweep_spec(
            name=f"sweep {len(self.all)}",
            seeds=list(range(blocks)),
            pairing=pairing,
            node=node,
            limits={"lease_wait_s": 60.0},
        )
        beside = self.all[0].pool if self.all else None
        made = Driver(sweep, SlowPool(self.clock, names=self.names, beside=beside), cell_s)
        self.all.append(made)
        self._order.append(made)
        return made

    def run(self, seconds):
        for _ in range(int(seconds / STEP_S)):
            self.clock.now_s += STEP_S
            self._order.reverse()  # whoever comes first takes what is free
            for driver in self._order:
                driver.step(self.clock.now_s)

    @property
    def held(self):
        return [driver.num_held for driver in self.all]


class Driver:
    _numbers = itertools.count()

    def __init__(self, sweep, pool, cell_s):
        self.pool, self.limit, self.is_over = pool, len(pool.names), False
        self.fates = itertools.repeat("success")
        self._lengths = itertools.cycle([cell_s, 0.7 * cell_s, 0.9 * cell_s])
        self.cells = grid(len(sweep.seeds), sweep.pairing)
        self.scheduler = Scheduler(
            [Task(cell, "new") for cell in self.cells],
            {},
            retries=sweep.retries,
            pairing=sweep.pairing,
            reference=sweep.reference,
        )
        now_s, self._events = pool.clock.now_s, SimpleQueue()
        self.share = Share(sweep, pool, f"driver {next(self._numbers)}")
        self.leases = Leases(
            sweep,
            pool,
            self.scheduler,
            self._events,
            requirements(shape=sweep.node),
            lambda _: None,
            self.share,
            _busy_s=now_s,
        )
        self.running, self.done, self.sentences = {}, [], set()

    @property
    def num_held(self):
        return len(self.leases.held)

    def step(self, now_s):
        if self.is_over:
            return
        for lease, task, until_s in list(self.running.values()):
            if until_s <= now_s:
                del self.running[id(lease)]
                self.done.append((task.cell, lease.node))
                self.scheduler.record_end(task, lease.node, ended(next(self.fates), lease.node))
                self.leases.idle.append(lease)
        self.leases.idle[:] = [lease for lease in self.leases.idle if not self._hand(lease, now_s)]
        self.leases.update(self.limit)
        self.leases.require_nodes(at_work=bool(self.running))
        while not self._events.empty():
            self._events.get()()
        self.sentences.add(self.share.division.sentence)
        if not self.scheduler.is_open and not self.running:
            self.end()

    def end(self):
        self.is_over = True
        self.leases.close()

    def die(self):
        """Ray takes its leases down; nobody takes its claim away."""
        self.is_over = True
        for lease in self.leases.held.values():
            self.pool.release(lease)
        self.leases.held.clear()

    def _hand(self, lease, now_s):
        own_only = self.share.gives_back(lease.node)
        task = self.scheduler.assign(lease.node, own_only=own_only)
        if task is not None:
            self.running[id(lease)] = (lease, task, now_s + next(self._lengths))
        return task is not None


@pytest.fixture
def drivers(monkeypatch):
    clock = Namespace(now_s=1000.0)
    simulated = Namespace(monotonic=lambda: clock.now_s, time=lambda: clock.now_s)
    for module in ("sweep.driver.share", "sweep.driver.leases", "sweep.cluster.board"):
        monkeypatch.setattr(f"{module}.time", simulated)
    return Drivers(clock)


def test_the_second_sweep_gets_its_half_once_as_cells_end_and_the_first_all_after_it(drivers):
    first = drivers.start()
    drivers.run(CELL_S)
    assert drivers.held == [4]
    second = drivers.start(blocks=2)
    drivers.run(SETTLED_S)
    assert drivers.held == [2, 2]
    assert any("gives back 2 of 4 leases" in (each or "") for each in first.sentences)
    assert any("waits for its share, 0 of 2" in (each or "") for each in second.sentences)
    while not second.is_over:
        assert drivers.held == [2, 2] or second.scheduler.num_waiting == 0
        drivers.run(STEP_S)
    assert first.pool.released == 2  # never a third one
    assert len(first.pool.board.put("nobody", None)["claims"]) == 1  # the first one's
    drivers.run(STARTS_S + EVERY_S)
    assert drivers.held == [4, 0]
    assert {cell.id for cell, _ in second.done} == {cell.id for cell in second.cells}
    assert len(second.done) == len(second.cells)


@pytest.mark.parametrize(
    ("shares", "held"),
    [
        ((1.0, 1.0, 1.0), [2, 1, 1]),
        ((1.0, 3.0), [1, 3]),
        ((2.0, 1.0, 1.0), [2, 1, 1]),
        ((1.0, 1000.0), [0, 4]),
        ((1.0, 1.0, 1.0, 1.0, 1.0), [1, 1, 1, 1, 0]),
    ],
)
def test_everybody_has_what_the_shares_say_and_then_nothing_moves(drivers, shares, held):
    for weight in shares:
        drivers.start(share=weight)
        drivers.run(SETTLED_S)
    assert drivers.held == held
    moved = [driver.pool.released for driver in drivers.all]
    drivers.run(SETTLED_S)
    assert drivers.held == held
    assert [driver.pool.released for driver in drivers.all] == moved


def test_a_sweep_that_wants_less_than_its_share_leaves_the_rest_to_others(drivers):
    drivers.start()
    drivers.run(CELL_S)
    modest = drivers.start()
    modest.limit = 1
    drivers.run(SETTLED_S)
    assert drivers.held == [3, 1]


def test_a_node_that_the_waiting_sweep_cannot_use_is_kept(drivers):
    first = drivers.start()
    drivers.run(CELL_S)
    second = drivers.start()
    for node in "abc":
        second.scheduler.quarantine(node, "its disk is full")
    drivers.run(SETTLED_S)
    assert drivers.held == [3, 1]
    assert [lease.node for lease in second.leases.held.values()] == ["d"]
    assert first.pool.released == 1


def test_a_block_is_ended_on_its_node_before_that_is_given_back(drivers):
    first = drivers.start(pairing="node", blocks=8)
    drivers.run(CELL_S)
    drivers.start()
    drivers.run(4 * CELL_S)
    assert drivers.held == [2, 2]
    drivers.run(12 * CELL_S)
    assert first.is_over
    homes = {}
    for cell, node in first.done:
        homes.setdefault(cell.block, set()).add(node)
    assert {len(nodes) for nodes in homes.values()} == {1}


def test_the_leases_of_a_driver_that_was_killed_are_taken_by_the_others(drivers):
    first = drivers.start()
    drivers.run(CELL_S)
    second = drivers.start()
    drivers.run(SETTLED_S)
    second.die()
    drivers.run(EXPIRES_S + STARTS_S + 4 * EVERY_S)
    assert drivers.held == [4, 0]
    drivers.run(ON_ITS_WAY_S)
    assert first.share.division.limit is None


def test_a_new_board_in_place_of_one_that_has_gone_changes_nothing(drivers):
    first = drivers.start()
    drivers.run(CELL_S)
    drivers.start(share=3.0, cell_s=1e6)
    drivers.run(WAITS_AFTER_S + 4 * EVERY_S)
    assert first.share.division.limit == 1
    empty = type(first.pool.board)()
    for driver in drivers.all:
        driver.pool.board = empty
    for _ in range(int(YOUNG_S)):
        drivers.run(STEP_S)
        assert first.share.division.limit == 1


def test_leases_given_back_one_by_one_count_until_the_whole_node_is_free_and_then_for_a_while(
    drivers,
):
    told = []

    def exchange(driver, claim):
        told.append(claim)
        return [claim_of("other", size=8, unit="CPU", waits=True, usable={"a", "b"})]

    mine = Share(sweep_spec(), Namespace(exchange=exchange), "mine")
    nodes, held = [Node("a", 8, 0), Node("b", 8, 0)], Counter(a=8, b=8)

    def update(seconds):
        drivers.clock.now_s += seconds
        mine.update(held.elements(), wants=16, nodes=nodes, usable=frozenset(), asks=False)

    update(1)
    for _ in range(8):
        for _ in range(3):  # a cell takes longer than a lease is on its way
            update(ON_ITS_WAY_S / 2)
            assert (mine.gives_back("a"), mine.gives_back("b")) == (True, False)
        held["a"] -= 1
        mine.gave_back("a")
    update(ON_ITS_WAY_S / 2)
    assert (told[-1].given, mine.division.surplus) == ({"a": 8}, 0)
    update(ON_ITS_WAY_S)
    assert told[-1].given == {}


def test_who_is_kept_waiting_by_others_does_not_give_up_and_has_its_turn(drivers):
    drivers.names = "a"
    first = drivers.start(cell_s=200.0, blocks=1)
    drivers.run(CELL_S)
    second = drivers.start(blocks=1)
    drivers.run(CELL_S)
    assert drivers.held == [1, 0]
    assert second.share.division.sentence == "waits for its turn behind sweep 0 (holds 1)"
    drivers.run(1000)
    assert first.is_over
    assert second.is_over
    assert len(second.done) == len(second.cells)


def test_what_should_run_on_a_node_that_others_keep_runs_in_the_end_on_the_one_that_is_free(
    drivers,
):
    drivers.names = "ab"
    first = drivers.start(cell_s=1e6)
    first.limit = 1
    drivers.run(CELL_S)
    second = drivers.start(blocks=1)
    second.fates = itertools.chain(["hang"], itertools.repeat("success"))
    drivers.run(6 * CELL_S)
    assert second.is_over
    assert [node for _, node in second.done] == ["b"] * 4


def test_who_waits_for_strangers_gives_up_as_ever(drivers):
    alone = drivers.start()
    alone.pool.per_node = 0
    with pytest.raises(ConfigError, match="no lease was granted for 60 s"):
        drivers.run(100)


def test_a_cluster_that_grows_is_given_the_time_to(drivers):
    first = drivers.start()
    drivers.run(CELL_S)
    drivers.start(autoscale=True, max_leases=4)
    drivers.run(share.GROWS_WITHIN_S)
    assert first.share.division.limit is None
    drivers.run(SETTLED_S)
    assert drivers.held == [2, 2]
