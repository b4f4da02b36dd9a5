"""A sweep that stops when it knows runs what it needs, in the order of its seeds, and no more."""

import json
from dataclasses import replace

import pytest

from sweep.schedule.plan import plan_unsettled
from sweep.schedule.stopping import progress, sentences, standing_told, told
from sweep.store.history import EndedAttempt
from tests.support.grids import cells_of, sweep_spec
from trainer.config.config_errors import ConfigError

SEEDS = [5, 3, 1, 2, 6, 4]
ACTIVATIONS = [{"name": "relu2"}, {"name": "leaky_relu2", "slope": [0.0, 0.3, 0.5]}]
SCORES = {"relu2": 2.1, "leaky_relu2-s0": 2.1, "leaky_relu2-s0.3": 2.0, "leaky_relu2-s0.5": 2.05}
# So much that two seeds tell 2.0 from 2.1 and not from 2.05.
NOISE = dict(zip(SEEDS, [0.012, -0.012, 0.012, -0.012, 0.012, -0.012], strict=True))


def stopping(**changes):
    """Three functions under four names, six seeds."""
    values = {"activations": ACTIVATIONS, "seeds": SEEDS, "until": {"zone": 0.04}}
    return sweep_spec(**values | changes)


def ended(score=None, state="succeeded", **changes):
    values = {"attempt": 1, "tainted": False, "reason": None, "wall_s": 360.0, "ended_at_s": 1.0}
    return EndedAttempt(**values | changes, state=state, score=score)


def after(sweep, seeds, scores=SCORES, **others):
    """The history once ``seeds`` have run; ``others``: attempts at single cells by name."""
    named = {name.replace("__", "-s0.", 1): attempt for name, attempt in others.items()}
    history = {}
    for cell in cells_of(sweep):
        label, seed = cell.spec.activation.label, cell.spec.seed
        noise = NOISE[seed] * (label == "leaky_relu2-s0.5")
        if seed in seeds and label in scores:
            history[cell.id] = [ended(scores[label] + seed + noise)]
        if f"{label}_{seed}" in named:
            history[cell.id] = [named[f"{label}_{seed}"]]
    return history


def planned(sweep, history):
    cells = cells_of(sweep)
    return progress(plan_unsettled(cells, history, sweep.retries), cells, history, sweep)


def names(cells):
    return {(cell.spec.activation.label, cell.spec.seed) for cell in cells}


def todo(found):
    return names(task.cell for task in found.plan.todo)


def test_the_first_two_seeds_run_at_once_and_the_others_may_come_later():
    found = planned(stopping(), {})
    assert todo(found) == {(label, seed) for label in SCORES for seed in (5, 3)}
    assert {task.cell.spec.seed for task in found.plan.later} == {1, 2, 6, 4}
    assert (found.plan.unneeded, found.standing.end) == ((), None)


def test_what_was_dropped_is_not_needed_and_the_next_seed_is_that_of_the_file():
    found = planned(stopping(), after(stopping(), (5, 3)))
    in_play = {"leaky_relu2-s0.3", "leaky_relu2-s0.5"}
    assert todo(found) == {(label, 1) for label in in_play}
    assert names(found.plan.unneeded) == {
        (label, seed) for label in ("relu2", "leaky_relu2-s0") for seed in (1, 2, 6, 4)
    }
    assert "relu2: dropped after 2 seeds, 0.1000 behind leaky_relu2-s0.3 over 2 of them." in list(
        sentences(found.standing)
    )


def test_a_decided_sweep_runs_nothing_more_and_says_who_is_selected():
    scores = SCORES | {"leaky_relu2-s0.5": 2.2}
    found = planned(stopping(), after(stopping(), (5, 3), scores))
    assert (found.standing.end, found.plan.todo, found.plan.later) == ("decided", (), ())
    first = next(sentences(found.standing))
    assert first == "After 2 seeds: leaky_relu2-s0.3 is selected. No other is better by 0.04 BPB."


def test_two_names_of_one_function_are_one_and_the_first_that_has_a_score_gives_it():
    sweep = stopping(retries={"memory": 0})
    found = planned(sweep, after(sweep, (5, 3)))
    assert found.standing.layout.functions == ("relu2", "leaky_relu2-s0.3", "leaky_relu2-s0.5")
    without = {name: score for name, score in SCORES.items() if name != "relu2"}
    failed = {f"relu2_{seed}": ended(state="oom") for seed in (5, 3)}
    again = planned(sweep, after(sweep, (5, 3), without, **failed))
    assert again.standing.selection == found.standing.selection


def test_a_diverged_seed_puts_an_activation_out_of_the_question():
    sweep = stopping()
    history = after(sweep, (5, 3), leaky_relu2__3_3=ended(state="diverged"))
    found = planned(sweep, history)
    assert found.standing.diverged == ("leaky_relu2-s0.3",)
    assert not any(label == "leaky_relu2-s0.3" for label, _ in todo(found))
    assert any("a seed of it diverged" in line for line in sentences(found.standing))


@pytest.mark.parametrize("attempt", [ended(state="oom"), ended(9.0, tainted=True)])
def test_neither_a_cell_that_failed_for_good_nor_a_tainted_one_holds_up_or_decides(attempt):
    sweep = stopping(retries={"tainted": 0, "memory": 0})
    without = planned(sweep, after(sweep, (5, 3, 1), leaky_relu2__5_1=attempt))
    assert without.standing.selection.num_seeds == 3
    assert {gone.num_shared for gone in without.standing.selection.dropped} == {2}
    assert without.standing.selection.in_play == (1, 2)


def test_who_has_no_score_is_named_and_nothing_is_said_of_it():
    sweep = stopping(retries={"memory": 0})
    scores = {"relu2": 2.1, "leaky_relu2-s0": 2.1, "leaky_relu2-s0.3": 2.0}
    failed = {f"leaky_relu2__5_{seed}": ended(state="oom") for seed in (5, 3)}
    found = planned(sweep, after(sweep, (5, 3), scores, **failed))
    first, *_, last = sentences(found.standing)
    assert first.endswith("No other that has a score is better by 0.04 BPB.")
    assert last == "leaky_relu2-s0.5: without a score under 2 seeds."


def test_a_cell_that_will_be_tried_again_holds_up_its_seed():
    sweep = stopping()
    found = planned(sweep, after(sweep, (5, 3), leaky_relu2__3_3=ended(state="lost")))
    assert todo(found) == {("leaky_relu2-s0.3", 3)}
    assert found.standing.selection.num_seeds == 1


def test_an_activation_that_is_added_runs_under_the_seeds_of_the_others_first():
    sweep = stopping(activations=[*ACTIVATIONS, {"name": "asqu"}])
    assert todo(planned(sweep, after(sweep, (5, 3, 1)))) == {("asqu", 5), ("asqu", 3)}


def test_a_sweep_out_of_seeds_says_so_and_goes_on_with_more():
    history = after(stopping(), (5, 3))
    short = stopping(until={"zone": 0.04, "seeds": 2})
    found = planned(short, history)
    assert (found.standing.end, found.plan.todo) == ("seeds", ())
    assert {label for label, _ in names(found.plan.unneeded)} == set(SCORES)
    assert "list more of them in `seeds`" in list(sentences(found.standing))[-1]
    assert planned(stopping(), history).standing.end is None


def test_no_seed_is_begun_that_would_exceed_the_node_hours():
    history = after(stopping(), (5, 3))  # eight cells of 0.1 hours, and two more are next
    until = {"zone": 0.04, "node_hours": 0.95}
    assert planned(stopping(until=until), history).standing.end == "node_hours"
    assert planned(stopping(until=until | {"node_hours": 1.05}), history).standing.end is None


@pytest.mark.parametrize(("node_hours", "end"), [(None, None), (1.05, "node_hours"), (1.15, None)])
def test_what_the_results_keep_tells_the_same(node_hours, end):
    sweep = stopping(until={"zone": 0.04, "node_hours": node_hours})
    cells = cells_of(sweep)
    history = after(sweep, (5, 3), leaky_relu2__3_3=ended(state="diverged"))
    kept = json.loads(json.dumps(told(cells, sweep)))
    assert standing_told(kept, history) == planned(sweep, history).standing
    assert standing_told(kept, history).end == end


def test_the_order_of_the_seeds_in_the_file_is_theirs():
    turned = stopping(seeds=SEEDS[::-1])
    assert {seed for _, seed in todo(planned(turned, {}))} == {4, 6}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"budgets": ["4steps", "8steps"]}, "2 budgets"),
        ({"replicates": 2}, "2 replicates"),
        ({"grid": {"set": {"optim.matrix_lr": [0.01, 0.02]}}}, r"2 points of \[grid.set\]"),
        ({"seeds": [1]}, "4 activations and 1 seeds"),
        ({"until": {"zone": 0.1, "seeds": 2, "min_seeds": 3}}, "after 3 seeds at the earliest"),
        ({"until": {"zone": 0}}, "greater than 0"),
        ({"until": {"zone": 0.1, "sone": 1}}, "sone"),
    ],
)
def test_what_is_not_one_question_is_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        stopping(**changes)


def test_an_ended_attempt_that_was_refreshed_counts_with_its_new_score():
    sweep = stopping()
    history = after(sweep, (5, 3))
    for attempts in history.values():
        attempts.append(replace(attempts[0], attempt=2, generation=1, score=1.0))
    assert planned(sweep, history).standing.selection.dropped == ()
