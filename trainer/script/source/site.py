"""One constant of an activation in a script's text, and whether several mean the same slope."""

from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["slope", "beta", "relu2", "unsquared", "unknown"]
TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One constant of the activation, or one place that computes it and is not understood.

    ``kind`` says what its constant is: ``slope`` s, or ``beta`` (``scale`` times s²; 2 in most
    derivatives); ``relu2`` has none; ``unsquared`` is not of the family; ``unknown`` is not
    understood, and ``why`` says so. ``start`` and ``end`` are the constant's characters in the
    text, ``whole`` those of the expression around it. It runs under a ``condition`` alone; ``runs``
    is whether that holds with the script's defaults, None where it is not known.
    """

    line: int
    kind: Kind
    why: str
    text: str
    value: float | None = None
    scale: float = 1.0
    start: int = 0
    end: int = 0
    whole: tuple[int, int] = (0, 0)
    variables: frozenset[str] = frozenset()
    backward: bool = False
    condition: str | None = None
    runs: bool | None = True
    group: str = ""
    language: Literal["python", "c"] = "python"

    @property
    def beta(self) -> float | None:
        """The factor of x² on the negative side that its constant means."""
        if self.value is None:
            return 0.0 if self.kind == "relu2" else None
        return self.value**2 if self.kind == "slope" else self.value / self.scale


def disagreeing(found: list[Site]) -> list[tuple[Site, Site]]:
    """Those of ``found`` that do not fit the first forward of their group, else of the script."""
    known = [site for site in found if site.kind in ("slope", "beta") and site.beta is not None]
    zeros = [site for site in found if site.kind == "relu2"]
    pairs: list[tuple[Site, Site]] = []
    for site in known:
        first = _first_forward(site, known)
        if first is not site and not _same_beta(first, site):
            pairs.append((first, site))
    for site in zeros:
        own = [other for other in known if other.group == site.group and other.beta]
        if own and site.backward != own[0].backward:
            pairs.append((own[0], site))
    return pairs


def _first_forward(site: Site, known: list[Site]) -> Site:
    forwards = [other for other in known if not other.backward] or known
    own = [other for other in forwards if other.group == site.group]
    return forwards[0] if own[:1] == [site] or not own else own[0]


def _same_beta(a: Site, b: Site) -> bool:
    return a.beta is not None and b.beta is not None and abs(a.beta - b.beta) <= TOLERANCE


def moved(site: Site, characters: int, lines: int) -> Site:
    """The site of a text that stands so much further on in another."""
    return replace(
        site,
        line=site.line + lines,
        start=site.start + characters,
        end=site.end + characters,
        whole=(site.whole[0] + characters, site.whole[1] + characters),
    )
