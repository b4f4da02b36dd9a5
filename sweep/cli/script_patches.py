"""Show what a sweep over a script changes in it: the patch as a diff, and the variables it sets."""

from collections.abc import Iterator, Sequence

from sweep.spec.grid import Cell
from trainer.contract import ScriptSpec
from trainer.script.patching import diff, patches_for, render


def patch_lines(cells: Sequence[Cell]) -> Iterator[str]:
    """Of the first cell for each set of patches; the others differ in the values alone."""
    shown: set[tuple[int, ...]] = set()
    for cell in cells:
        spec = cell.spec
        if not isinstance(spec, ScriptSpec):
            continue
        numbers = tuple(number for number, _ in patches_for(spec))
        if numbers in shown:
            continue
        rendered = render(spec)
        same = sum(_numbers(other) == numbers for other in cells) - 1
        if not shown:
            packed = " (unpacked)" if spec.recipe.packed is not None else ""
            yield f"script {spec.recipe.main}{packed}, started by {spec.recipe.script.launch} with:"
            yield from (f"  {name}={value}" for name, value in rendered.variables.items())
        shown.add(numbers)
        others = f"; {same} other cells differ in the values alone" if same else ""
        text = diff(spec, rendered)
        if text:
            yield f"patched for {cell.name}{others}:"
            yield from (f"  {line}" for line in text.rstrip("\n").split("\n"))
        else:
            yield f"not patched for {cell.name}{others}."


def _numbers(cell: Cell) -> tuple[int, ...] | None:
    return (
        tuple(n for n, _ in patches_for(cell.spec)) if isinstance(cell.spec, ScriptSpec) else None
    )
