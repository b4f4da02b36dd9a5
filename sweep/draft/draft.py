"""Look at a training script without running it, draft its recipe, and say what was found."""

import ast
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sweep.draft.activation_plan import plan_activation
from sweep.draft.data_folders import joined_paths
from sweep.draft.recipe_text import Findings, RecipeText, recipe_text
from sweep.draft.result_lines import printed_forms, result_lines
from sweep.draft.variable_roles import Variable, role_of, variables_of
from trainer.config import RECIPES
from trainer.config.config_errors import ConfigError
from trainer.script.load import from_home, load_any_recipe, read_source
from trainer.script.source.activation_sites import sites
from trainer.script.source.constant_values import Values
from trainer.script.source.packing import unpack
from trainer.script.source.syntax import parse_script
from trainer.script.source.variables import VariableRead, variables_read, variables_written

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_ARTIFACT = re.compile(r"[\w.-]+\.ptz")
USUAL_MODULES = {
    *(
        "torch",
        "triton",
        "numpy",
        "sentencepiece",
        "tiktoken",
        "flash_attn",
        "flash_attn_interface",
    ),
    *("zstandard", "brotli", "wandb", "tqdm", "psutil", "huggingface_hub", "torchao", "pynvml"),
}
OVERWRITTEN = "is set by the script itself: what the recipe sets would be written over"
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True, slots=True)
class Draft:
    """A recipe that was written, and what is said of it."""

    path: Path
    text: str
    report: str


def write_draft(
    script: str, name: str | None = None, *, force: bool = False, folder: Path = RECIPES
) -> Draft:
    """Write ``folder``/``name``.toml for a script; a ConfigError where that cannot be done."""
    path = from_home(script, "draft")
    name = name or path.stem
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"draft: a recipe cannot be called {name!r}: letters, digits, '_', '-' and '.' make "
            f"its name. NAME= gives another."
        )
    target = folder / f"{name}.toml"
    source = read_source(path, "draft")
    source, packing = unpack(source, str(path))
    tree = parse_script(source, str(path))
    if target.exists() and not force:
        raise ConfigError(
            f"draft: {target} exists. NAME= chooses another name, FORCE=1 writes over it."
        )
    try:
        found = _findings(source, tree, path, folder)
    except RecursionError:
        raise ConfigError(f"{path}: an expression is nested too deeply to be read.") from None
    recipe = recipe_text(found)
    folder.mkdir(parents=True, exist_ok=True)
    target.write_text("\n".join(recipe.lines) + "\n", encoding="utf-8")
    lines = [f"{path}: {source.count(chr(10)) + 1:,} lines{', unpacked' if packing else ''}"]
    lines += [*_of_variables(found), *_of_activation(found), *_of_results(found)]
    lines += ["", _count(found), *_ending(target, recipe)]
    return Draft(target, target.read_text(encoding="utf-8"), "\n".join(lines))


def _findings(source: str, tree: ast.Module, path: Path, folder: Path) -> Findings:
    reads = variables_read(tree)
    variables = variables_of(reads)
    values = Values(tree)
    files = tuple(_imported_files(tree, path))
    plan = plan_activation(source, variables)
    written = {n: line for n, line in variables_written(tree).items() if role_of(n) is not None}
    plan.open += [
        f"line {written.pop(name):,}: {name} {OVERWRITTEN}"
        for name in plan.variables
        if name in written
    ]
    for file in files:
        text = read_source(path.parent / file, "draft")
        for site in sites(text):
            plan.open.append(f"line {site.line:,} of {file}: {site.text[:100]}: patch it there too")
    return Findings(
        path=os.path.relpath(path, folder),
        files=tuple(os.path.relpath(path.parent / file, folder) for file in files),
        launch="torchrun" if {"RANK", "LOCAL_RANK", "WORLD_SIZE"} & set(variables) else "python",
        variables=variables,
        questions=(
            *_computed(reads),
            *_options(tree),
            *_imported_elsewhere(tree, path),
            *(f"line {line:,}: {name} {OVERWRITTEN}" for name, line in written.items()),
        ),
        activation=plan,
        results=result_lines(tree, values),
        forms=printed_forms(tree),
        folders=joined_paths(source, tree, values),
        zero_seconds_is_no_cap=_compares_cap_with_zero(tree),
        seeds=tuple(_seeds(tree)),
        artifacts=tuple(_artifacts(tree)),
    )


def _computed(reads: list[VariableRead]) -> Iterator[str]:
    for read in reads:
        if read.name is None:
            yield f"line {read.line:,}: {read.text} reads a variable whose name is computed: which?"


def _options(tree: ast.Module) -> Iterator[str]:
    """The options of its command line, which may be what takes seed, budget and slope."""
    found = {
        node.args[0].value: node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith("add_argument")
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and str(node.args[0].value).startswith("--")
    }
    if found:
        yield (
            f"line {min(found.values()):,}: it has options: {', '.join(map(str, found))}. Which "
            f"take {{seed}}, the budget and {{slope}}? Name them in [script]: arguments = [...]"
        )


def _imports(tree: ast.Module) -> dict[str, int]:
    """The modules that a script imports, each with its line."""
    lines: dict[str, int] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            lines |= {alias.name.partition(".")[0]: node.lineno for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            lines[node.module.partition(".")[0]] = node.lineno
    return lines


def _imported_files(tree: ast.Module, path: Path) -> Iterator[str]:
    """Python files beside the script that it imports."""
    for name in sorted(_imports(tree)):
        if (path.parent / f"{name}.py").is_file() and name != path.stem:
            yield f"{name}.py"


def _imported_elsewhere(tree: ast.Module, path: Path) -> Iterator[str]:
    """Modules that are neither Python's, nor usual, nor beside the script."""
    for name, line in sorted(_imports(tree).items()):
        known = name in sys.stdlib_module_names | USUAL_MODULES
        if not known and not (path.parent / f"{name}.py").is_file():
            yield (
                f"line {line:,}: {name} is not beside the script: is it on every node, and nothing "
                f"of the activation in it?"
            )


def _compares_cap_with_zero(tree: ast.Module) -> bool:
    """Whether a cap of no more than 0 seconds is treated as none."""
    return any(
        re.search(r"wallclock\w* > 0\b", ast.unparse(node))
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
    )


def _seeds(tree: ast.Module) -> Iterator[str]:
    """Calls that seed something with a constant."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=func, args=[ast.Constant(), *_]):
                if re.search(r"seed(_all)?$", ast.unparse(func)):
                    yield f"line {node.lineno:,}: {ast.unparse(node)[:80]}"


def _artifacts(tree: ast.Module) -> set[str]:
    """Names of compressed models in the script's texts."""
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and _ARTIFACT.fullmatch(node.value)
    }


def _of_variables(found: Findings) -> Iterator[str]:
    yield f"\nEnvironment variables ({len(found.variables)}):"
    others, sets = [], found.activation.variables
    for variable in found.variables.values():
        role = variable.role or ("activation" if variable.name in sets else None)
        if role is None:
            others.append(_with_default(variable))
        else:
            lines = ", ".join(f"{line:,}" for line in variable.lines)
            yield f"  {role:17} {_with_default(variable)}, line {lines}"
    if others:
        yield f"  {'left alone':17} {', '.join(others)}"
    yield from (f"  {question}" for question in found.questions)


def _with_default(variable: Variable) -> str:
    return variable.name if variable.default is None else f"{variable.name}={variable.default}"


def _of_activation(found: Findings) -> Iterator[str]:
    plan = found.activation
    yield "\nActivation:"
    patched = {site for drafted in plan.patches for site in drafted.sites}
    for site in plan.sites:
        value = "" if site.value is None else f" {site.value:g}"
        by = ", ".join(sorted(site.variables & set(plan.variables)))
        fate = "patched" if site in patched else f"set by {by}" if by else "asked"
        fate += ", as a comment" if plan.open and fate != "asked" else ""
        yield f"  line {site.line:,}:{value} {site.why}: {site.text[:90]} [{fate}]"
    yield from (f"  open: {question}" for question in plan.open)


def _of_results(found: Findings) -> Iterator[str]:
    yield "\nResult lines:"
    for line in found.results:
        label = "another form" if line.label is None else repr(line.label)
        off = "" if line.off_by is None else f", off by default ({line.off_by})"
        yield f"  line {line.line:,}: {label}: {line.stage or 'stage not known'}{off}"


def _count(found: Findings) -> str:
    """The sites in one sentence: how many there are, are set, and where those are that are not."""
    plan = found.activation
    number, num_set = len(plan.sites), _number(plan.num_set) if plan.num_set else "none"
    start = f"{_number(number)} site{'s' * (number != 1)} found, {num_set} set by this draft"
    rest = [
        f"line {site.line:,} is {_rest(site.why)}" for site in plan.sites if site.kind == "unknown"
    ]
    off = "; all of it is a comment until the questions are answered" if plan.open else ""
    return f"{', '.join([start.capitalize(), *rest])}{off}."


def _rest(why: str) -> str:
    return why if why.startswith("in ") else f"not understood ({why})"


def _number(number: int) -> str:
    return NUMBERS[number] if number < len(NUMBERS) else f"{number:,}"


def _ending(target: Path, recipe: RecipeText) -> Iterator[str]:
    yield f"Wrote {target}."
    try:
        load_any_recipe(str(target))
    except ConfigError as error:
        yield f"It is not complete, and is refused until the questions are answered: {error}"
    yield "\nWhat a person must check:"
    asks = [
        *recipe.asks,
        "`make plan` shows the patch as a diff: is it what you would have edited?",
    ]
    yield from (f"  {number}. {text}" for number, text in enumerate(asks, start=1))
