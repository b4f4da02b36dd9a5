"""What does a check say? A status, what was seen, and what to do about it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sweep.messages import Requirements, Status
from sweep.preflight.facts import Surroundings

DEADLINE_S = 10.0


@dataclass(frozen=True, slots=True)
class Finding:
    """``unknown``: it could not be read; ``n/a``: the sweep does not ask for it."""

    status: Status
    detail: str


def worst(findings: Iterable[Finding], good: str) -> Finding:
    """All that is worst of ``findings`` in one; ``good`` where nothing was found."""
    found = list(findings)
    statuses: tuple[Status, ...] = ("refuse", "warn", "unknown")
    for status in statuses:
        said = list(dict.fromkeys(each.detail for each in found if each.status == status))
        if said:
            return Finding(status, "; ".join(said))
    return Finding("pass", good)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the table. ``warns`` and ``refuses`` are None where it never does."""

    name: str
    why: str
    passes: str
    warns: str | None = None
    refuses: str | None = None
    remedy: str
    look: Callable[[Surroundings, Requirements], Finding]
    deadline_s: float = DEADLINE_S
