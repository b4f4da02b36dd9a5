"""Whatever happens in whatever order, no cell is lost, none runs twice, and all come to an end."""

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sweep.spec.sweep_file import Retries
from tests.support.scheduling import CELLS, FATES, NODES, ended, scheduler


class Machine(RuleBasedStateMachine):
    """A driver whose leases do as they like."""

    @initialize(pairing=st.sampled_from(["seed", "node"]), alike=st.sampled_from([2, 1000]))
    def begin(self, pairing, alike):
        self.retries = Retries(alike=alike)
        self.made = scheduler(pairing, retries=self.retries)
        self.leases, self.count = {}, 0
        self.numbers, self.attempts = Counter(), []
        self.kinds = {}

    @rule(node=st.sampled_from(NODES))
    def grant(self, node):
        self.made.add_lease(node)
        self.leases[self.count] = (node, None)
        self.count += 1

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def assign(self, data):
        lease = data.draw(st.sampled_from(sorted(self.leases)))
        node, task = self.leases[lease]
        if task is None:
            task = self.made.assign(node)
            assert task is None or node not in self.made.quarantined
            self.leases[lease] = (node, task)

    @precondition(lambda self: self.running())
    @rule(data=st.data(), fate=st.sampled_from(sorted(set(FATES) - {"loss"})))
    def end(self, data, fate):
        lease = data.draw(st.sampled_from(self.running()))
        node, task = self.leases[lease]
        self.leases[lease] = (node, None)
        self.close(task, node, fate)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def lose(self, data):
        node, task = self.leases.pop(data.draw(st.sampled_from(sorted(self.leases))))
        self.made.remove_lease(node)
        if task is not None:
            self.close(task, node, "loss")

    @rule(node=st.sampled_from(NODES))
    def quarantine(self, node):
        if len(set(self.made.quarantined) | {node}) < len(NODES):
            self.made.quarantine(node, "unfit")

    @precondition(lambda self: self.running())
    @rule(data=st.data())
    def skip(self, data):
        """Another driver runs it: from here on it is none of ours."""
        lease = data.draw(st.sampled_from(self.running()))
        node, task = self.leases[lease]
        if not task.is_reference_rerun:
            self.leases[lease] = (node, None)
            self.made.skip(task, node)
            self.kinds[task.cell.id] = "set aside"

    @rule(nodes=st.sets(st.sampled_from(NODES), min_size=1))
    def reach(self, nodes):
        self.made.set_reachable(nodes)

    @rule()
    def retry_anywhere(self):
        self.made.retry_anywhere()

    def running(self):
        return [lease for lease, (_, task) in sorted(self.leases.items()) if task is not None]

    def close(self, task, node, fate):
        self.numbers[task.cell.id] += 1
        said = ended(fate, node, self.numbers[task.cell.id])
        follows = self.made.record_end(task, node, said)
        if not task.is_reference_rerun:
            assert self.kinds.get(task.cell.id, "again") == "again", "ran after it was done"
            self.kinds[task.cell.id] = follows.kind

    @invariant()
    def no_cell_runs_twice(self):
        running = [self.leases[lease][1] for lease in self.running()]
        own = [task.cell.id for task in running if not task.is_reference_rerun]
        assert len(own) == len(set(own))
        assert self.made.num_running == len(running)

    @invariant()
    def what_is_not_done_is_waiting_or_running(self):
        running = [self.leases[lease][1] for lease in self.running()]
        own = {task.cell.id for task in running if not task.is_reference_rerun}
        done = {cell for cell, kind in self.kinds.items() if kind != "again"}
        assert not own & done
        assert self.made.num_waiting >= len(CELLS) - len(own) - len(done)

    @invariant()
    def leases_that_are_useful_are_no_more_than_there_are_tasks(self):
        useful = self.made.useful_leases()
        assert self.made.num_running <= useful <= self.made.num_running + self.made.num_waiting

    def teardown(self):
        """When the cluster behaves again everything ends."""
        if not hasattr(self, "made"):
            return
        for lease in self.running():
            node, task = self.leases[lease]
            self.close(task, node, "success")
        for node, _ in self.leases.values():
            if node in self.made.quarantined:  # the driver gives them back
                self.made.remove_lease(node)
        self.made.set_reachable(NODES)
        nodes = [node for node in NODES if node not in self.made.quarantined]
        for node in nodes:
            self.made.add_lease(node)
        for task, node in drain_of(self, nodes):
            self.close(task, node, "success")
        if self.made.paused is None:
            assert set(self.kinds) == {cell.id for cell in CELLS}
            assert "again" not in self.kinds.values()
            assert self.made.num_waiting == 0


def drain_of(machine, nodes):
    while batch := [(t, node) for node in nodes if (t := machine.made.assign(node)) is not None]:
        yield from batch


TestAnything = Machine.TestCase
TestAnything.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
