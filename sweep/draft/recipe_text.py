"""Write a draft of a recipe as TOML: what is known as keys, what is not as ``# ASK`` lines."""

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import tomli_w

from sweep.draft.activation_plan import ActivationPlan
from sweep.draft.data_folders import JoinedPath
from sweep.draft.result_lines import ResultLine
from sweep.draft.variable_roles import Variable
from trainer.config.script import STAGES

WIDTH = 100
_DATASET = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What is known of a script. ``path`` is relative to the recipe's folder."""

    path: str
    files: tuple[str, ...]
    launch: str
    variables: Mapping[str, Variable]
    questions: tuple[str, ...]
    activation: ActivationPlan
    results: Sequence[ResultLine]
    forms: tuple[bool, bool, list[str]]
    folders: Sequence[JoinedPath]
    zero_seconds_is_no_cap: bool
    seeds: tuple[str, ...]
    artifacts: tuple[str, ...]


@dataclass(slots=True)
class RecipeText:
    """The lines of the file, and the questions in it."""

    lines: list[str] = field(default_factory=list)
    asks: list[str] = field(default_factory=list)

    def add(self, *lines: str) -> None:
        self.lines += lines

    def key(self, name: str, value: object, why: str = "", *, on: bool = True) -> None:
        """A key with its value; as a comment where it is not ``on``."""
        text = _toml(name, value) + (f"  # {why}" if why else "")
        self.lines += [line if on else f"# {line}" for line in text.split("\n")]

    def ask(self, text: str) -> None:
        self.asks.append(text)
        wrapped = textwrap.wrap(f"ASK: {text}", WIDTH - 2, break_long_words=False)
        self.lines += [f"# {line}" for line in wrapped]

    def section(self, name: str, *, on: bool = True) -> None:
        self.lines += ["", name if on else f"# {name}"]


def recipe_text(found: Findings) -> RecipeText:
    """The recipe of a script, as far as it is known."""
    text = RecipeText()
    text.add(
        "# A draft by `make draft`. Answer each ASK, take its line out, and let `make plan` show",
        "# the patch. docs/scripts.md explains the keys.",
        "",
        "[data]",
    )
    _data(text, found)
    text.section("[script]")
    text.key("path", found.path)
    if found.files:
        text.key("files", list(found.files), "imported by it")
    text.key("launch", found.launch)
    if len(found.artifacts) == 1:
        text.key("artifact_file", found.artifacts[0])
    _env(text, found)
    _budgets(text, found)
    for path in found.folders:
        text.section("[[script.patch]]")
        text.add(
            f"# line {path.line:,}: the folder of the node, in place of one under its own root"
        )
        for key in ("find", "replace", "count"):
            text.key(key, getattr(path.patch, key))
    _patches(text, found.activation)
    _read(text, found)
    return text


def _toml(name: str, value: object) -> str:
    """One key; a text of several lines as a literal one, so that it reads as in the script."""
    if isinstance(value, str) and "\n" in value and "'''" not in value and "\r" not in value:
        return f"{name} = '''\n{value}'''"
    if isinstance(value, list):
        return f"{name} = [{', '.join(_toml('x', item)[4:] for item in value)}]"
    return tomli_w.dumps({name: value}).rstrip("\n")


def _of_role(found: Findings, role: str) -> list[Variable]:
    return [variable for variable in found.variables.values() if variable.role == role]


def _at(variable: Variable) -> str:
    return f"{variable.name}, line {variable.lines[0]:,}"


def _sounds(variable: Variable) -> str:
    default = "no default" if variable.default is None else f"default {variable.default!r}"
    return f"line {variable.lines[0]:,}: {variable.name} ({default}) sounds like"


def _data(text: RecipeText, found: Findings) -> None:
    paths = [v for v in _of_role(found, "data") if v.default]
    name = (paths[0].default or "").rstrip("/").rpartition("/")[2] if len(paths) == 1 else ""
    joined = [path for path in found.folders if path.folder == "datasets" and path.name]
    if _DATASET.fullmatch(name):
        text.key("dataset", name, _at(paths[0]))
    elif not paths and joined:
        text.key("dataset", joined[0].name, f"line {joined[0].line:,}")
    else:
        text.ask('which data set does it train on? Its folder\'s name: dataset = "…"')
    sizes = [v for v in _of_role(found, "vocabulary") if v.default and v.default.isdigit()]
    if len(sizes) == 1:
        text.key("vocab_size", int(sizes[0].default or 0), _at(sizes[0]))
    else:
        text.ask("how many tokens has its vocabulary? vocab_size = …")


def _env(text: RecipeText, found: Findings) -> None:
    text.section("[script.env]")
    _seed(text, found)
    for role, value in (("data", "{data_dir}"), ("tokenizer", "{tokenizer}")):
        for variable in _of_role(found, role):
            text.key(variable.name, value, f"line {variable.lines[0]:,}")
    for role, pattern in (("train files", "train"), ("validation files", "val")):
        for variable in _of_role(found, role):
            glob = (variable.default or f"fineweb_{pattern}_*.bin").rpartition("/")[2]
            text.key(variable.name, f"{{data_dir}}/{glob}", f"line {variable.lines[0]:,}")
    for path in found.folders:
        text.key(path.variable, path.value, f"a patch below reads it in line {path.line:,}")
    for variable in [] if found.folders else _of_role(found, "data?"):
        text.ask(
            f"{_sounds(variable)} a folder of data: how does it lead to "
            f"{{data_dir}}, the data set's folder?"
        )
    known = any(_of_role(found, role) for role in ("data", "data?", "train files"))
    if not known and not found.folders:
        text.ask("no variable for the data was found: how does it find {data_dir}?")
    plan = found.activation
    for name, value in plan.variables.items():
        text.key(name, value, f"line {found.variables[name].lines[0]:,}", on=not plan.open)
    for question in found.questions:
        text.ask(question)


def _seed(text: RecipeText, found: Findings) -> None:
    seeds = _of_role(found, "seed")
    for variable in seeds:
        text.key(variable.name, "{seed}", f"line {variable.lines[0]:,}")
    for variable in _of_role(found, "seed?"):
        text.ask(f"{_sounds(variable)} a seed: should it be {{seed}} too, or keep its default?")
    if not seeds:
        text.ask("no variable SEED was found: what takes {seed}?")
    for place in found.seeds:
        text.ask(f"{place} has a seed of its own: should it follow {{seed}}?")


def _budgets(text: RecipeText, found: Findings) -> None:
    steps, seconds = _of_role(found, "steps"), _of_role(found, "seconds")
    for role in ("steps?", "seconds?"):
        for variable in _of_role(found, role):
            text.ask(f"{_sounds(variable)} a budget: is it one, and which?")
    text.section("[script.steps_env]")
    for variable in steps:
        text.key(variable.name, "{steps}", f"line {variable.lines[0]:,}")
    for variable in seconds if steps else ():
        if found.zero_seconds_is_no_cap:
            text.key(variable.name, "0", "0 is no cap")
        else:
            text.key(variable.name, "100000000", "as good as no cap")
            text.ask(
                f"line {variable.lines[0]:,}: {variable.name}: which value is no cap? A rate that "
                f"falls with the time would not fall under a cap that is far away."
            )
    if not steps:
        text.ask("no variable ITERATIONS was found: budgets in steps need one, or leave them out.")
    text.section("[script.seconds_env]")
    for variable in seconds:
        text.key(variable.name, "{seconds}", f"line {variable.lines[0]:,}")
    for variable in steps if seconds else ():
        if variable.default is None:
            text.ask(f"{variable.name} has no default: which number of steps is never reached?")
        else:
            text.key(variable.name, variable.default, "its default")
            text.asks.append(
                f"{variable.name} = {variable.default} stays under a budget in seconds: is that "
                f"more than they allow, so that the time ends it?"
            )
    if not seconds:
        text.ask("no variable MAX_WALLCLOCK_SECONDS was found: budgets in seconds need one.")


def _patches(text: RecipeText, plan: ActivationPlan) -> None:
    if plan.open:
        text.add("")
        for question in plan.open:
            text.ask(question)
        if plan.patches or plan.variables:
            text.add("# Until that is answered, what sets the activation stays a comment.")
    for question in plan.notes:
        text.ask(question)
    for drafted in plan.patches:
        text.section("[[script.patch]]", on=not plan.open)
        for site in drafted.sites:
            value = "" if site.value is None else f"{site.value:g}, "
            text.add(f"# line {site.line:,}: {value}{site.why}")
        text.key("find", drafted.patch.find, on=not plan.open)
        text.key("replace", drafted.patch.replace, on=not plan.open)
        text.key("count", drafted.patch.count, on=not plan.open)


def _read(text: RecipeText, found: Findings) -> None:
    text.section("[script.read]")
    usual, steps, others = found.forms
    if usual:
        text.key("forms", ["parameter-golf"])
    if others:
        text.key("lines", others, "its lines of a step")
    if not steps and not others:
        text.ask("it prints no usual line of a step: which of its lines say steps and times?")
    for line in found.results:
        if line.label is None:
            text.ask(f"line {line.line:,} prints a score in a form of its own: {line.text!r}")
        elif line.stage is None:
            text.ask(f"line {line.line:,} prints {line.label!r}: which stage is that, if any?")
    sliding = {line.value for line in found.results if line.stage == "sliding"}
    for stage in STAGES:
        lines = [line for line in found.results if line.stage == stage]
        if stage == "post_quant":
            for line in [line for line in lines if line.value in sliding]:
                text.ask(
                    f"line {line.line:,}: {line.label!r} prints the sliding score; it is left out"
                )
            lines = [line for line in lines if line.value not in sliding]
        _stage(text, stage, lines, found)
    if not any(line.stage for line in found.results):
        text.ask("no result line was recognized: name the label of at least one stage.")


def _stage(text: RecipeText, stage: str, lines: Sequence[ResultLine], found: Findings) -> None:
    on = [line for line in lines if line.off_by is None]
    for line in lines:
        if line.off_by is not None:
            text.ask(
                f"line {line.line:,}: {line.label!r} ({stage}) is not printed by default "
                f"({line.off_by}); name it if you switch it on"
            )
    labels = {(line.label or "").removesuffix("_exact"): line for line in on}
    if not labels:
        return
    certain = len(labels) == 1 and stage != "slot"
    if len(labels) > 1:
        text.ask(f"{stage}: which of {', '.join(map(repr, labels))}?")
    if stage == "slot":
        text.ask("slot: are its shifts fitted on targets that are scored already? slot_legal = …")
    for base, line in labels.items():
        plain = {one.value for one in on if one.label == base}
        exact = {one.value for one in on if one.label == f"{base}_exact"}
        label = base if not exact or plain == exact else f"{base}_exact"
        if certain:
            text.asks.append(
                f"line {line.line:,}: {label!r} is read as {stage}: is it the score of the model "
                f"alone, and are window and stride right?"
            )
        text.section(f"[script.read.{stage}]", on=certain)
        text.key("label", label, f"line {line.line:,}", on=certain)
        _footing(text, stage, found, on=certain)


def _footing(text: RecipeText, stage: str, found: Findings, *, on: bool) -> None:
    """Window and stride, where the script's defaults leave no doubt."""
    length, scored, stride = (
        next(
            (int(v.default) for v in _of_role(found, role) if v.default and v.default.isdigit()),
            None,
        )
        for role in ("sequence", "scored sequence", "stride")
    )
    window = scored or length
    has_sliding = any(line.stage == "sliding" for line in found.results)
    sure = window is not None and (stage == "sliding" or scored in (None, 0, length))
    if stage in ("pre_quant", "post_quant") and sure and (has_sliding or stride is None):
        text.key("window", window, "TRAIN_SEQ_LEN: contiguous windows", on=on)
        text.key("stride", window, on=on)
    elif stage == "sliding" and sure and stride and stride < (window or 0):
        text.key("window", window, "EVAL_SEQ_LEN, else TRAIN_SEQ_LEN", on=on)
        text.key("stride", stride, "EVAL_STRIDE", on=on)
    else:
        text.ask(f"{stage}: in which windows is it scored? window = …, stride = …")
