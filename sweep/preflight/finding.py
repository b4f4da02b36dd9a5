"""What a check of the preflight finds on a node."""

from collections.abc import Iterable
from dataclasses import dataclass

from sweep.messages import Status


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
