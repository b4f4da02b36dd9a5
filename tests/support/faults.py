"""What can go wrong, and in which order: pure, so that a seed tells a whole round."""

import random
from dataclasses import dataclass
from typing import Literal

Victim = Literal["rank", "agent", "raylet", "node", "driver", "gcs", "head"]
Deed = Literal["kill", "stop", "warn", "oom", "hang", "crash", "slow", "not finite"]
BAD = ("oom", "hang", "crash", "slow", "not finite")  # what every cell meets on a node


@dataclass(frozen=True, slots=True)
class Fault:
    """``deed`` done to ``victim``."""

    victim: Victim
    deed: Deed
    meaning: str


FAULTS = {
    "rank killed": Fault("rank", "kill", "one rank process is gone (SIGKILL)"),
    "rank stopped": Fault("rank", "stop", "a rank says nothing any more (SIGSTOP)"),
    "agent killed": Fault("agent", "kill", "Ray's worker process with the agent is gone"),
    "agent stopped": Fault("agent", "stop", "the agent does not answer, its ranks go on"),
    "raylet killed": Fault("raylet", "kill", "Ray's daemon on a node is gone"),
    "raylet stopped": Fault("raylet", "stop", "a node hangs for Ray, its processes go on"),
    "node killed": Fault("node", "kill", "every process of a node is gone at once"),
    "driver killed": Fault("driver", "kill", "the driver is gone, and is started again at once"),
    "driver stopped": Fault("driver", "stop", "the driver sleeps for longer than agents wait"),
    "GCS killed": Fault("gcs", "kill", "Ray's head is gone; the driver has to notice by itself"),
    "head killed": Fault("head", "kill", "the head's machine is gone, with the driver on it"),
    "node preempted": Fault("node", "warn", "a node is warned of its end (SIGTERM), and goes"),
    "node out of memory": Fault("node", "oom", "every cell runs out of memory on a node"),
    "node hangs": Fault("node", "hang", "every cell hangs on a node"),
    "node crashes": Fault("node", "crash", "every cell dies on a node (SIGSEGV)"),
    "node slow": Fault("node", "slow", "every cell is slower by 30 % on a node"),
    "node not finite": Fault("node", "not finite", "every cell diverges on a node"),
}

# A deck has 18 cards. Where a card names several faults, one of them comes.
DECK = (
    *[("rank killed",)] * 4,
    *[("agent killed",)] * 3,
    *[("node killed",)] * 2,
    ("raylet killed",),
    ("rank stopped",),
    ("agent stopped",),
    ("raylet stopped",),
    ("driver killed", "driver killed", "driver stopped"),
    ("GCS killed", "head killed"),
    ("node preempted",),
    ("node out of memory", "node crashes", "node hangs"),
    ("node not finite", "node not finite", "node slow"),
)
LONGEST_WAIT_S = 2.5  # about the length of a cell: every phase of it can be hit


@dataclass(frozen=True, slots=True)
class Round:
    """One fault: which, how long after all leases are at work, and at which of them."""

    seed: int
    fault: str
    wait_s: float
    pick: int


def round_of(seed: int) -> Round:
    """Rounds go through one shuffled deck after another, so that 18 of them see all cards.

    >>> round_of(3) == round_of(3)
    True
    """
    deck, place = divmod(seed, len(DECK))
    card = random.Random(f"deck {deck}").sample(DECK, len(DECK))[place]
    draw = random.Random(f"round {seed}")
    return Round(seed, draw.choice(card), draw.uniform(0.0, LONGEST_WAIT_S), draw.randrange(2**16))
