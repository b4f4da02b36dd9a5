"""What can go wrong, and in which order: pure, so that a seed tells a whole round."""

import random
from dataclasses import dataclass
from typing import Literal

Victim = Literal["rank", "agent", "raylet", "node", "driver", "gcs", "head"]


@dataclass(frozen=True, slots=True)
class Fault:
    """``deed`` done to ``victim``; it comes ``cards`` times in a deck."""

    victim: Victim
    deed: Literal["kill", "stop"]
    cards: int
    meaning: str


FAULTS = {
    "rank killed": Fault("rank", "kill", 3, "one rank process is gone (SIGKILL)"),
    "rank stopped": Fault("rank", "stop", 1, "a rank says nothing any more (SIGSTOP)"),
    "agent killed": Fault("agent", "kill", 2, "Ray's worker process with the agent is gone"),
    "agent stopped": Fault("agent", "stop", 1, "the agent does not answer, its rank goes on"),
    "raylet killed": Fault("raylet", "kill", 1, "Ray's daemon on a node is gone"),
    "raylet stopped": Fault("raylet", "stop", 1, "a node hangs for Ray, its processes go on"),
    "node killed": Fault("node", "kill", 2, "every process of a node is gone at once"),
    "driver killed": Fault("driver", "kill", 1, "the driver is gone and started again"),
    "driver stopped": Fault("driver", "stop", 1, "the driver sleeps longer than agents wait"),
    "GCS killed": Fault("gcs", "kill", 1, "Ray's head is gone, the driver notices by itself"),
    "head killed": Fault("head", "kill", 1, "the head's machine is gone, with the driver on it"),
}
DECK = tuple(name for name, fault in FAULTS.items() for _ in range(fault.cards))
LONGEST_WAIT_S = 3.0  # about the length of a cell: every phase of it can be hit


@dataclass(frozen=True, slots=True)
class Round:
    """One fault: which, how long after all leases are at work, and at whom."""

    seed: int
    fault: str
    wait_s: float
    pick: int


def round_of(seed: int) -> Round:
    """Rounds go through one shuffled deck after another, so that 15 of them see every fault.

    >>> sorted(round_of(seed).fault for seed in range(15)) == sorted(DECK)
    True
    """
    deck, place = divmod(seed, len(DECK))
    order = random.Random(f"deck {deck}").sample(DECK, len(DECK))
    draw = random.Random(f"round {seed}")
    return Round(seed, order[place], draw.uniform(0.0, LONGEST_WAIT_S), draw.randrange(2**16))
