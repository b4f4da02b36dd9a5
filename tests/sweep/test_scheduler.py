"""Whatever happens in whatever order, no cell is lost, none runs twice, and all come to an end."""

from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sweep.history import Ended
from sweep.plan import Task, plan
from sweep.scheduler import Rules, Scheduler
from sweep.spec import Retries
from sweep.suspicion import LAST_NODE_STRIKES
from tests.support.grids import cells_of, sweep_spec

CELLS = cells_of(sweep_spec())  # two blocks of three activations
BLOCKS = sorted({cell.block for cell in CELLS})
REFERENCE = "leaky_relu2-s0.5"
NODES = ("a", "b", "c")
FATES = {
    "success": ("succeeded", None, None),
    "divergence": ("diverged", None, None),
    "taint": ("succeeded", None, None),
    "error": ("failed", "cell", "E"),
    "memory": ("oom", "memory", None),
    "fault": ("failed", "infrastructure", "NCCL"),
    "hang": ("hung", "hang", None),
    "loss": ("lost", "infrastructure", None),
}
BENIGN = Retries(alike=1000, strikes=1000)


def ended(fate, node, attempt=1, **changes):
    state, failure, signature = FATES[fate]
    values = {
        "attempt": attempt,
        "state": state,
        "tainted": fate == "taint",
        "reason": fate,
        "wall_s": 1.0,
        "failure": failure,
        "signature": signature,
        "node": node,
    }
    return Ended(**(values | changes))


def scheduler(pairing="seed", *, cells=CELLS, history=None, retries=BENIGN, held="", **rules):
    planned = plan(cells, history or {}, retries)
    rules = Rules(retries=retries, pairing=pairing, reference=REFERENCE, **rules)
    made = Scheduler(planned.todo, history or {}, rules, planned.settled)
    made.reach(NODES)
    for node in held:
        made.hold(node)
    return made


def end(made, node, fate="success", task=None):
    task = task or made.assign(node)
    return task, made.ended(task, node, ended(fate, node))


def drain(made, nodes, fate="success"):
    """Hand out and end until nobody gets anything; (task, node) in order."""
    done = []
    while batch := [(node, task) for node in nodes if (task := made.assign(node)) is not None]:
        for node, task in batch:
            end(made, node, fate, task)
            done.append((task, node))
    return done


# -- anything, in any order


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
        self.made.hold(node)
        self.leases[self.count] = (node, None)
        self.count += 1

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def assign(self, data):
        lease = data.draw(st.sampled_from(sorted(self.leases)))
        node, task = self.leases[lease]
        if task is None:
            task = self.made.assign(node)
            assert task is None or node not in self.made.shunned
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
        self.made.let_go(node)
        if task is not None:
            self.close(task, node, "loss")

    @rule(node=st.sampled_from(NODES))
    def refuse(self, node):
        if len(set(self.made.shunned) | {node}) < len(NODES):
            self.made.refuse(node, "unfit")

    @precondition(lambda self: self.running())
    @rule(data=st.data())
    def set_aside_and_put_back(self, data):
        lease = data.draw(st.sampled_from(self.running()))
        node, task = self.leases[lease]
        if not task.is_companion:
            self.leases[lease] = (node, None)
            self.made.set_aside(task, node)
            self.made.put_back(task)

    @rule(nodes=st.sets(st.sampled_from(NODES), min_size=1))
    def reach(self, nodes):
        self.made.reach(nodes)

    def running(self):
        return [lease for lease, (_, task) in sorted(self.leases.items()) if task is not None]

    def close(self, task, node, fate):
        self.numbers[task.cell.id] += 1
        said = ended(fate, node, self.numbers[task.cell.id])
        follows = self.made.ended(task, node, said)
        if not task.is_companion:
            assert self.kinds.get(task.cell.id, "again") == "again", "ran after it was done"
            self.kinds[task.cell.id] = follows.kind

    @invariant()
    def no_cell_runs_twice(self):
        running = [self.leases[lease][1] for lease in self.running()]
        own = [task.cell.id for task in running if not task.is_companion]
        assert len(own) == len(set(own))
        assert self.made.num_running == len(running)

    @invariant()
    def what_is_not_done_is_waiting_or_running(self):
        running = [self.leases[lease][1] for lease in self.running()]
        own = {task.cell.id for task in running if not task.is_companion}
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
            if node in self.made.shunned:  # the holding gives them back
                self.made.let_go(node)
        self.made.reach(NODES)
        nodes = [node for node in NODES if node not in self.made.shunned]
        for node in nodes:
            self.made.hold(node)
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


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["seed", "node"]), st.randoms(use_true_random=False))
def test_where_everything_fails_it_ends_within_the_budgets(pairing, random):
    retries = Retries(alike=1000, strikes=3)
    made = scheduler(pairing, held=NODES, retries=retries)
    budget = (2 * retries.cell + 2) + retries.infrastructure + retries.hang + retries.tainted
    number, held = 0, set(NODES)
    while made.is_open:
        for node in held & set(made.shunned):
            made.let_go(node)
        held -= set(made.shunned)
        batch = [(node, task) for node in sorted(held) if (task := made.assign(node)) is not None]
        assert batch
        for node, task in batch:
            end(made, node, random.choice(["error", "hang", "fault", "taint"]), task)
        number += len(batch)
        assert number <= len(CELLS) * budget


# -- one queue


def test_with_pairing_by_seed_every_lease_takes_the_next_cell():
    made = scheduler(held=NODES)
    assert [made.assign(node).cell for node in "abcabc"] == CELLS
    assert made.assign("a") is None


def test_cells_of_long_budgets_come_first_and_the_others_keep_their_order():
    cells = cells_of(sweep_spec(budgets=["4steps", "60s", "16steps", "600s"]))
    handed = [task.cell for task, _ in drain(scheduler(cells=cells, held="a"), "a")]
    rank = ["16steps", "4steps", "600s", "60s"]
    assert handed == sorted(cells, key=lambda cell: rank.index(cell.spec.budget))


def test_a_cell_that_failed_comes_before_those_that_are_new():
    made = scheduler(held="ab")
    failed, follows = end(made, "a", "error")
    assert follows.kind == "again"
    assert made.assign("a").cell != failed.cell  # not where it failed
    assert made.assign("b").cell == failed.cell


def test_where_there_is_one_node_alone_a_cell_is_tried_again_there():
    made = scheduler(held="a", cells=CELLS[:1])
    made.reach(["a"])
    failed, _ = end(made, "a", "hang")
    assert made.assign("a").cell == failed.cell


def test_nodes_that_are_left_alone_are_no_other_nodes():
    made = scheduler(held="ab", cells=CELLS[:1])
    made.reach("ab")
    end(made, "a", "hang")
    assert made.assign("a") is None
    made.refuse("b", "its disk is full")
    assert made.assign("b") is None
    assert made.assign("a") is not None


def test_a_lease_whose_node_is_to_be_avoided_is_of_use_elsewhere():
    made = scheduler(held="a", cells=CELLS[:1])
    end(made, "a", "hang")
    assert made.elsewhere("a") == {"a"}
    assert made.elsewhere("b") is None
    assert made.useful_leases() == 1


def test_after_a_stop_nothing_is_handed_out_and_no_lease_is_useful_but_those_at_work():
    made = scheduler(held="ab")
    made.assign("a")
    made.stop()
    assert made.assign("b") is None
    assert (made.is_open, made.useful_leases()) == (False, 1)


# -- suspicion


def test_a_node_that_fails_twice_in_a_row_gets_no_more_cells():
    made = scheduler(held="ab", retries=Retries())
    end(made, "b")
    end(made, "a", "fault")
    assert not made.shunned
    end(made, "a", "fault")
    assert set(made.shunned) == {"a"}
    assert "NCCL" not in made.shunned["a"]
    assert "2 failures of class infrastructure in a row" in made.shunned["a"]
    assert made.assign("a") is None
    assert made.assign("b") is not None


def test_a_success_clears_what_a_node_is_suspected_of():
    made = scheduler(held="a", retries=Retries())
    for fate in ("fault", "success", "fault", "success"):
        end(made, "a", fate)
    assert not made.shunned


def test_a_node_that_goes_with_all_its_leases_has_one_strike():
    made = scheduler(held="aaaa", retries=Retries())
    tasks = [made.assign("a") for _ in range(4)]
    for task in tasks:
        made.let_go("a")
        made.ended(task, "a", ended("loss", "a"))
    assert not made.shunned
    made.hold("a")
    task = made.assign("a")
    made.let_go("a")
    made.ended(task, "a", ended("loss", "a"))
    assert set(made.shunned) == {"a"}


def test_the_last_node_is_given_more_chances_and_then_the_sweep_pauses():
    made = scheduler(held="a", retries=Retries(strikes=2, infrastructure=100, alike=100))
    made.reach(["a"])
    for _ in range(2 * LAST_NODE_STRIKES - 1):
        end(made, "a", "fault")
    assert (made.paused, made.shunned) == (None, {})
    end(made, "a", "fault")
    assert "node a is the last one" in made.paused
    assert made.assign("a") is None


def test_different_cells_that_fail_alike_before_any_success_pause_the_sweep():
    made = scheduler(held=NODES, retries=Retries(alike=3))
    for node in "aba":
        assert made.paused is None
        end(made, node, "error", next_new(made, node))
    assert "3 different cells have failed alike and none has succeeded: E" in made.paused


def next_new(made, node):
    """A task that nothing was tried on; retries that come before it are set aside."""
    while (task := made.assign(node)).why != "new":
        made.set_aside(task, node)
    return task


@pytest.mark.parametrize("fate", ["success", "divergence", "taint"])
def test_after_a_success_nothing_pauses_for_likeness(fate):
    made = scheduler(held=NODES, retries=Retries(alike=2))
    end(made, "a", fate)
    for node in "bcb":
        end(made, node, "error")
    assert made.paused is None


def test_a_success_of_an_earlier_run_counts_unless_it_was_of_other_code():
    for trainer, pauses in (("old", True), ("new", False), (None, False)):
        history = {CELLS[0].id: [ended("success", "a", trainer_hash=trainer)]}
        made = scheduler(held=NODES, history=history, retries=Retries(alike=2), trainer_hash="new")
        for node in "bc":
            end(made, node, "error", next_new(made, node))
        assert (made.paused is not None) is pauses


def test_nodes_that_go_before_any_success_do_not_pause_the_sweep():
    made = scheduler(held=NODES, retries=Retries(alike=2, strikes=10))
    for node in "abcabc":
        end(made, node, "loss")
    assert made.paused is None


def test_cells_that_fail_alike_on_one_node_of_several_do_not_pause_the_sweep():
    made = scheduler(held=NODES, retries=Retries(alike=2))
    for _ in range(4):
        end(made, "a", "error")
    assert made.paused is None


def test_a_few_that_fail_alike_of_many_that_run_do_not_pause_the_sweep():
    cells = cells_of(sweep_spec(seeds=list(range(20))))
    made = scheduler(cells=cells, retries=Retries(alike=2))
    for node in "ab" * 25:
        made.hold(node)
    tasks = [(node, made.assign(node)) for node in "ab" * 25]
    for node, task in tasks[:4]:
        end(made, node, "hang", task)
    assert made.paused is None
    for node, task in tasks[4:10]:
        end(made, node, "hang", task)
    assert made.paused is not None


# -- blocks


def test_without_failures_a_block_stays_on_one_node():
    made = scheduler("node", held="aab")
    places = defaultdict(set)
    for task, node in drain(made, "aab"):
        places[task.cell.block].add(node)
        assert not task.is_companion
    assert sorted(map(len, places.values())) == [1, 1]
    assert set.union(*places.values()) == {"a", "b"}


def test_a_cell_that_failed_waits_for_the_home_of_its_block():
    made = scheduler("node", held="ab")
    made.assign("b")
    failed, _ = end(made, "a", "fault")
    drain(made, "b")
    assert made.assign("b") is None
    assert made.elsewhere("b") is None
    assert made.assign("a").cell == failed.cell


def test_a_cell_that_hung_at_home_runs_elsewhere_and_its_reference_is_taken_along():
    made = scheduler("node", held="ab", cells=[c for c in CELLS if c.block == BLOCKS[0]])
    hung = next(iter(end(made, "a", "hang")))
    rest = drain(made, "a")
    assert [node for _, node in rest] == ["a", "a"]
    ran = drain(made, "b")
    is_reference = hung.cell.spec.activation.label == REFERENCE
    assert ran[0][0].cell == hung.cell
    along = [task for task, _ in [*ran[1:], *drain(made, "a")] if task.is_companion]
    if not is_reference:
        assert [task.cell.spec.activation.label for task in along] == [REFERENCE]


def test_a_block_whose_home_is_gone_moves_once_and_whole():
    made = scheduler("node", held="a", cells=[c for c in CELLS if c.block == BLOCKS[0]])
    end(made, "a")
    made.let_go("a")
    for node in "bc":
        made.hold(node)
    first = made.assign("b")
    assert made.assign("c") is None
    end(made, "b", task=first)
    made.hold("a")
    assert made.assign("a") is None or made.num_waiting == 0  # it has a new home


def test_a_block_returns_to_its_home_in_the_next_run():
    block = [cell for cell in CELLS if cell.block == BLOCKS[1]]
    history = {cell.id: [ended("success", "c")] for cell in block[:2]}
    made = scheduler("node", history=history, held="abc")
    handed = {node: made.assign(node).cell for node in "ca"}
    assert handed["c"] == block[2]
    assert handed["a"].block == BLOCKS[0]


def test_blocks_that_are_settled_already_ask_for_no_leases():
    history = {cell.id: [ended("success", "c")] for cell in CELLS if cell.block == BLOCKS[0]}
    assert scheduler("node", history=history).useful_leases() == 1


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_node_with_an_answer_has_the_reference_too_unless_its_lease_is_lost(data):
    retries = Retries(infrastructure=100, strikes=100, alike=1000)
    made = scheduler("node", held=NODES, retries=retries)
    held, answers = set(NODES), set()
    for _ in range(data.draw(st.integers(0, 25))):
        node = data.draw(st.sampled_from(NODES))
        if node not in held:
            held.add(node)
            made.hold(node)
        elif (task := made.assign(node)) is not None:
            fate = data.draw(st.sampled_from(["success", "success", "fault", "loss", "hang"]))
            if fate == "loss":
                held.discard(node)
                made.let_go(node)
            if fate == "success":
                answers.add((task.cell.block, node, task.cell.spec.activation.label))
            end(made, node, fate, task)
    for node in set(NODES) - held:
        made.hold(node)
    for task, node in drain(made, NODES):
        answers.add((task.cell.block, node, task.cell.spec.activation.label))
    assert made.num_waiting == 0
    # A reference that hung twice is given up: at home its block has none, elsewhere that node.
    known = {block for block, _, label in answers if label == REFERENCE}
    given_up = {(b, n) for b, n, _ in answers if b in known} - {
        (b, n) for b, n, label in answers if label == REFERENCE
    }
    assert all(made._companions._attempts[pair] for pair in given_up)


def test_a_reference_that_was_taken_along_and_failed_is_tried_again_there():
    block = [cell for cell in CELLS if cell.block == BLOCKS[0]]
    reference = next(c for c in block if c.spec.activation.label == REFERENCE)
    history = {reference.id: [ended("success", "a", generation=2)]}
    made = scheduler("node", cells=block, history=history, held="b")
    first, _ = end(made, "b")
    along = made.assign("b")
    assert (along.is_companion, along.cell, along.generation) == (True, reference, 2)
    end(made, "b", "fault", along)
    again = made.assign("b")
    assert (again.is_companion, again.cell) == (True, reference)
    end(made, "b", task=again)
    assert [task.is_companion for task, _ in drain(made, "b")] == [False]
    assert first.cell != reference


# -- a run that goes on where another stopped


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_scheduler_made_from_the_history_of_another_decides_as_it_would(data):
    old, history = scheduler(held=NODES), defaultdict(list)
    fates = sorted(FATES)
    for _ in range(data.draw(st.integers(0, 20))):
        node = data.draw(st.sampled_from(NODES))
        task = old.assign(node)
        if task is not None:
            said = ended(data.draw(st.sampled_from(fates)), node, len(history[task.cell.id]) + 1)
            history[task.cell.id].append(said)
            old.ended(task, node, said)
    history = {cell: list(attempts) for cell, attempts in history.items() if attempts}
    new = scheduler(held=NODES, history=history)
    order = data.draw(st.permutations(NODES))
    for node in order:  # what each may run, the others standing by
        assert everything(old, node) == everything(new, node)
    assert old.num_waiting == new.num_waiting == 0


def everything(made, node):
    """All that ``node`` may run now, and where it may not run."""
    handed = []
    while (task := made.assign(node)) is not None:
        handed.append((task.cell.id, task.avoid))
        made.set_aside(task, node)
    return sorted(handed, key=repr)


def test_a_cell_that_is_asked_for_anew_has_all_its_budgets():
    history = {CELLS[0].id: [ended("memory", "a")]}
    task = Task(CELLS[0], "asked for by name", afresh=True)
    made = Scheduler([task], history, Rules(retries=BENIGN, pairing="seed", reference=REFERENCE))
    made.hold("a")
    assert end(made, "a", "fault")[1].kind == "again"


def test_attempts_of_another_generation_are_not_counted():
    history = {CELLS[0].id: [ended("hang", "a"), ended("hang", "b", 2)]}
    task = Task(CELLS[0], "stale", generation=1)
    made = Scheduler([task], history, Rules(retries=BENIGN, pairing="seed", reference=REFERENCE))
    made.reach(NODES)
    made.hold("a")
    assert end(made, "a", "hang")[1].kind == "again"
