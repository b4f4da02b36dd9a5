"""What was asked of Ray, and what has come of it so far?"""

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from sweep.spec.sweep_file import NodeShape


@dataclass(frozen=True, slots=True)
class Wish:
    """What a lease shall be."""

    shape: NodeShape
    driver_silence_s: float
    avoid: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A wish, and what is made of it as soon as Ray's head has heard of it."""

    wish: Wish
    made: "Future[Made]"

    @property
    def has_failed(self) -> bool:
        return self.made.done() and self.made.exception() is not None

    @property
    def so_far(self) -> "Made | None":
        return self.made.result() if self.made.done() and not self.has_failed else None


@dataclass(frozen=True, slots=True)
class Made:
    """A placement group that was asked for, its agent, and the agent's first answer: its node."""

    group: Any
    agent: Any
    node_id: Any
