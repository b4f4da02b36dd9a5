"""What happens to a scheduler in tests: nodes, cells, and ends of attempts."""

import itertools

from sweep.schedule.plan import plan_unsettled
from sweep.schedule.scheduler import Scheduler
from sweep.spec.sweep_file import Retries
from sweep.store.history import EndedAttempt
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
    "preemption": ("lost", "preemption", None),
    "interruption": ("interrupted", "user", None),
}
BENIGN = Retries(alike=1000, strikes=1000)


_SECONDS = itertools.count(1000, 10)


def ended(fate, node, attempt=1, **changes):
    """How an attempt on ``node`` ended, after all that ended before."""
    state, failure, signature = FATES[fate]
    values = {
        "attempt": attempt,
        "state": state,
        "tainted": fate == "taint",
        "reason": fate,
        "wall_s": 1.0,
        "ended_at_s": float(next(_SECONDS)),
        "failure": failure,
        "signature": signature,
        "node": node,
    }
    return EndedAttempt(**(values | changes))


def scheduler(pairing="seed", *, cells=CELLS, history=None, retries=BENIGN, held="", **rules):
    planned = plan_unsettled(cells, history or {}, retries)
    made = Scheduler(
        planned.todo,
        history or {},
        retries=retries,
        pairing=pairing,
        reference=REFERENCE,
        settled=planned.settled,
        **rules,
    )
    made.set_reachable(NODES)
    for node in held:
        made.add_lease(node)
    return made


def end(made, node, fate="success", task=None, **changes):
    """Hand the next task to ``node``, unless one is given, and end it; (task, verdict)."""
    task = task or made.assign(node)
    if fate == "divergence":
        changes = {"to_confirm": made.is_to_confirm(task, node)} | changes
    return task, made.record_end(task, node, ended(fate, node, **changes))


def drain(made, nodes, fate="success"):
    """Hand out and end until nobody gets anything; (task, node) in order."""
    done = []
    while batch := [(node, task) for node in nodes if (task := made.assign(node)) is not None]:
        for node, task in batch:
            end(made, node, fate, task)
            done.append((task, node))
    return done
