"""Write patches for the constants of an activation: a text that fits those places and no others."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trainer.config.config_errors import ConfigError
from trainer.config.script import Patch
from trainer.script.patching import apply
from trainer.script.placeholders import fill
from trainer.script.source.activation_sites import sites
from trainer.script.source.site import Site, disagreeing

MAX_LINES_AROUND = 6
MIN_FIND = 8
CHECKED_SLOPES = (0.3, 0.0)


@dataclass(frozen=True, slots=True)
class DraftPatch:
    """``patch``, and why it is made: the sites that it changes."""

    patch: Patch
    sites: tuple[Site, ...]


def draft_patches(source: str, constants: Sequence[Site]) -> tuple[list[DraftPatch], list[Site]]:
    """A patch for each of ``constants``, and those for which no text is unique enough."""
    edits = sorted({(s.start, s.end, replacement_of(s)): s for s in constants}.items())
    drafted: list[DraftPatch] = []
    left: list[Site] = []
    done: set[int] = set()
    for (start, _, _), site in edits:
        if start in done:
            continue
        found = _patch(source, site, dict(edits), done)
        if found is None:
            left.append(site)
        else:
            drafted.append(found)
            done |= {s.start for s in found.sites}
    return drafted, left


def replacement_of(site: Site) -> str:
    """What stands in place of a constant: s, s², or 2·s² where it is the factor of a derivative."""
    if site.kind == "slope":
        text = "{slope}"
    else:
        text = "{neg_beta}" if site.scale == 1.0 else f"{site.scale:g} * {{neg_beta}}"
    return f"float({text})" if site.language == "c" else text


def does_not_hold(
    source: str, patches: Sequence[Patch], variables: dict[str, str], count: int
) -> str | None:
    """Why the patches and variables together do not set every constant; None where they do."""
    for slope in CHECKED_SLOPES:
        values = {"slope": f"{slope:g}", "neg_beta": f"{slope**2:.12g}"}
        try:
            text = source
            for patch in patches:
                text = apply(patch, text, fill(patch.replace, values, "draft"), "draft", "script")
            found = sites(text, {k: fill(v, values, "draft") for k, v in variables.items()})
        except ConfigError as error:
            return str(error)
        known = [site for site in found if site.kind in ("slope", "beta")]
        for site in known:
            if site.beta is None or abs(site.beta - slope**2) > 1e-9:
                return f"with slope {slope:g} line {site.line:,} has {site.text[:80]}"
        if slope and (len(known) != count or disagreeing(found)):
            return f"with slope {slope:g} {len(known)} constants of {count} are seen to agree"
    return None


def _patch(
    source: str, site: Site, edits: dict[tuple[int, int, str], Site], done: set[int]
) -> DraftPatch | None:
    for begin, end in _windows(source, site):
        text = source[begin:end]
        places = list(_occurrences(source, text))
        inside = [
            [(a - p, b - p, new) for a, b, new in edits if p <= a and b <= p + len(text)]
            for p in places
        ]
        touched = [
            s
            for (a, b, _), s in edits.items()
            if any(p <= a and b <= p + len(text) for p in places)
        ]
        if len(text) < MIN_FIND or any(each != inside[0] for each in inside):
            continue
        if any(s.start in done for s in touched):
            continue
        replaced, last = "", 0
        for a, b, new in inside[0]:
            replaced += _escaped(text[last:a]) + new
            last = b
        replaced += _escaped(text[last:])
        patch = Patch(find=text, replace=replaced, count=len(places))
        return DraftPatch(patch, tuple(touched))
    return None


def _windows(source: str, site: Site) -> Iterator[tuple[int, int]]:
    """The expression, its lines, and ever more lines around them."""
    start, end = site.whole
    if start <= site.start and site.end <= end:
        yield start, end
    first, last = source.rfind("\n", 0, min(start, site.start)) + 1, max(end, site.end)
    last = source.find("\n", last) if "\n" in source[last:] else len(source)
    indent = len(source[first:last]) - len(source[first:last].lstrip())
    yield first + indent, last
    for _ in range(MAX_LINES_AROUND):
        first = source.rfind("\n", 0, max(first - 1, 0)) + 1
        yield first, last
    for _ in range(MAX_LINES_AROUND):
        last = source.find("\n", last + 1) if "\n" in source[last + 1 :] else len(source)
        yield first, last


def _occurrences(source: str, text: str) -> Iterator[int]:
    at = source.find(text)
    while at >= 0:
        yield at
        at = source.find(text, at + len(text))


def _escaped(text: str) -> str:
    """The text so that a recipe means it and no placeholder.

    >>> fill(_escaped("f'{x} {{y}} {{1}} {z:.2f}'"), {}, "here")
    "f'{x} {{y}} {{1}} {z:.2f}'"
    """
    return re.sub(r"\{([A-Za-z_]\w*|\{\d\w*\})\}", r"{{\1}}", text)
