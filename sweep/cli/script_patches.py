"""Show what a sweep over a script changes in it: the patch as a diff, and the variables it sets."""

import shlex
from collections import defaultdict
from collections.abc import Iterator, Sequence

from sweep.spec.grid import Cell
from trainer.contract import ScriptSpec
from trainer.script.patching import diff, patches_for, render


def patch_lines(cells: Sequence[Cell]) -> Iterator[str]:
    """Of one cell for each set of patches, that whose text changes most: others differ in values.

    A patch that puts in what stands there already does not show.
    """
    groups: dict[tuple[int, ...], list[tuple[str, ScriptSpec]]] = defaultdict(list)
    for cell in cells:
        if isinstance(cell.spec, ScriptSpec):
            numbers = tuple(number for number, _ in patches_for(cell.spec))
            groups[numbers].append((cell.name, cell.spec))
    for index, group in enumerate(groups.values()):
        diffs = [(diff(spec, render(spec)), name, spec) for name, spec in group]
        text, name, spec = max(diffs, key=lambda each: each[0].count("\n"))
        if index == 0:
            packed = " (unpacked)" if spec.recipe.packed is not None else ""
            yield f"script {spec.recipe.main}{packed}, started by {spec.recipe.script.launch}:"
            rendered = render(spec)
            yield from (f"  {key}={value}" for key, value in rendered.variables.items())
            if rendered.arguments:
                yield f"  arguments: {shlex.join(rendered.arguments)}"
        others = f"; {len(group) - 1} other cells differ in the values alone" * (len(group) > 1)
        if text:
            yield f"patched for {name}{others}:"
            yield from (f"  {line}" for line in text.rstrip("\n").split("\n"))
        else:
            yield f"not patched for {name}{others}."
