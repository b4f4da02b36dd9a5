"""Types of the preflight: a check (one line of the table) and what it finds on a node."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sweep.messages import Requirements, Status
from sweep.preflight.facts import Facts

DEADLINE_S = 10.0


@dataclass(frozen=True, slots=True)
class Finding:
    """``unknown``: it could not be read; ``n/a``: the sweep does not ask for it."""

    status: Status
    detail: str


def worst_finding(findings: Iterable[Finding], good: str) -> Finding:
    """All that is worst of ``findings`` in one; ``good`` where nothing was found."""
    found = list(findings)
    statuses: tuple[Status, ...] = ("refuse", "warn", "unknown")
    for status in statuses:
        details = list(dict.fromkeys(each.detail for each in found if each.status == status))
        if details:
            return Finding(status, "; ".join(details))
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
    look: Callable[[Facts, Requirements], Finding]
    deadline_s: float = DEADLINE_S
