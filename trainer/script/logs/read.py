"""Read what a script printed by the rules of its recipe: scores, sizes, times, curves.

Nothing is guessed: a score is a stage only where the recipe names its line. A value that two lines
give differently is a ConfigError that shows both.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from trainer.config.config_errors import ConfigError
from trainer.config.script import Read, StageRule
from trainer.script.logs.log_grammar import KINDS, NAMES_ACTIVATION, RULER

_NUMBER = r"[+-]?(?:\d+\.?\d*(?:e[+-]?\d+)?|nan|inf)"
_LABELLED = (
    rf"\s+val_loss:(?P<loss>{_NUMBER})\s+val_bpb:(?P<bpb>{_NUMBER})"
    rf"(?:\s.*?\beval_time:(?P<eval_ms>{_NUMBER})ms)?"
)
# What the shared forms say, by kind of line and group of the grammar.
_SHARED = {
    ("seed", "seed"): "seed",
    ("dataset", "dataset"): "dataset",
    ("params", "params"): "num_params",
    ("world", "ranks"): "world_size",
    ("val_loader", "tokens"): "val_tokens",
    ("config", "batch_tokens"): "batch_tokens",
    ("config", "iterations"): "iterations",
    ("config", "cap_s"): "cap_s",
    ("memory", "mib"): "peak_memory_mib",
    ("model", "bytes"): "model_bytes",
    ("code", "bytes"): "code_bytes",
    ("total", "bytes"): "artifact_bytes",
    ("stop", "step"): "steps",
    ("train", "step"): "step",
    ("train", "iterations"): "iterations",
    ("train", "loss"): "train_loss",
    ("train", "train_ms"): "train_ms",
    ("val", "step"): "step",
    ("val", "iterations"): "iterations",
    ("val", "loss"): "val_loss",
    ("val", "bpb"): "val_bpb",
    ("val", "train_ms"): "train_ms",
}
_TEXTS = ("dataset",)
_OF_A_STEP = (
    *("step", "iterations", "train_loss", "val_loss", "val_bpb"),
    *("train_ms", "train_s", "step_ms"),
)


@dataclass(frozen=True, slots=True)
class Said:
    """A value, and the line that says it: its number from 1 and its text."""

    value: float | str
    number: int
    text: str

    def __str__(self) -> str:
        return f"line {self.number}: {self.text.strip()[:160]!r}"


@dataclass(frozen=True, slots=True)
class Score:
    """A stage as printed: loss in nats per token, bits per byte, time of scoring in ms."""

    bpb: float
    loss: float | None
    eval_ms: float | None
    said: Said


@dataclass(slots=True)
class Reading:
    """What a script said of its run. ``curve`` has the values of each step that it named."""

    values: dict[str, Said] = field(default_factory=dict)
    stages: dict[str, Score] = field(default_factory=dict)
    curve: dict[int, dict[str, float]] = field(default_factory=dict)
    activations: list[Said] = field(default_factory=list)

    def number(self, name: str) -> float | None:
        """A value that was said, as a number."""
        return float(self.values[name].value) if name in self.values else None

    def last(self, name: str) -> float | None:
        """Of a step's values the one that was said last."""
        found = [values[name] for _, values in sorted(self.curve.items()) if name in values]
        return found[-1] if found else None


def read_output(lines: Sequence[str], rules: Read, where: str) -> Reading:
    """What ``lines`` say by ``rules``; ``where`` names the output in messages.

    Stages that have no line are not in the answer; ``missing_stages`` names them.
    """
    reading = Reading()
    patterns = [re.compile(pattern) for pattern in rules.lines]
    stages = {name: _of_stage(rule, rules) for name, rule in rules.stages.items()}
    begin = max((i + 1 for i, line in enumerate(lines) if line.rstrip() == RULER), default=0)
    for number, line in enumerate(lines[begin:], start=begin + 1):
        text = line.rstrip()
        for found in _values(text, patterns, shared="parameter-golf" in rules.forms):
            _take(reading, found, number, text, where)
        for name, pattern in stages.items():
            if match := pattern.search(text):
                _take_stage(reading, name, match, number, where)
        if NAMES_ACTIVATION.search(text):
            reading.activations.append(Said(text, number, text))
    return reading


def missing_stages(reading: Reading, rules: Read) -> list[str]:
    """What of the recipe's stages was not printed, each with what its line would look like."""
    return [
        f"{name} ({'a line that begins ' + repr(rule.label) if rule.label else repr(rule.pattern)})"
        for name, rule in rules.stages.items()
        if name not in reading.stages
    ]


def first_not_finite(reading: Reading) -> str | None:
    """What is nan or infinite of a run that has diverged, in words."""
    for name, score in reading.stages.items():
        if not math.isfinite(score.bpb):
            return f"the {name} score is {score.bpb} ({score.said})"
    for step, values in sorted(reading.curve.items()):
        for name in ("train_loss", "val_loss", "val_bpb"):
            if name in values and not math.isfinite(values[name]):
                return f"{name} is {values[name]} at step {step}"
    return None


def _of_stage(rule: StageRule, rules: Read) -> re.Pattern[str]:
    if rule.label is None:
        return re.compile(str(rule.pattern))
    exact = "(?:_exact)?" if rules.forms and not rule.label.endswith("_exact") else ""
    return re.compile(rf"^\s*{re.escape(rule.label)}{exact}{_LABELLED}")


def _values(
    text: str, patterns: Iterable[re.Pattern[str]], *, shared: bool
) -> Iterable[Mapping[str, str]]:
    """The groups of each pattern that the line satisfies, by the names of the recipe."""
    for pattern in patterns:
        if match := pattern.search(text):
            yield {name: found for name, found in match.groupdict().items() if found is not None}
    for kind in {kind for kind, _ in _SHARED} if shared else ():
        if match := KINDS[kind].fullmatch(text):
            yield {
                _SHARED[kind, group]: found
                for group, found in match.groupdict().items()
                if found is not None and (kind, group) in _SHARED
            }


def _take(reading: Reading, found: Mapping[str, str], number: int, text: str, where: str) -> None:
    values = {name: _value(name, given, number, text, where) for name, given in found.items()}
    if "step" in values:
        step = int(float(values["step"]))
        known = reading.curve.setdefault(step, {})
        for name, value in values.items():
            if name not in _OF_A_STEP or name == "step":
                continue
            if name.endswith(("loss", "bpb")) and not _agree(known.get(name), float(value)):
                raise ConfigError(
                    f"{where}, line {number}: {text[:160]!r}: {name} of step {step} was "
                    f"{known[name]} before. Are there two runs in one output, or does the pattern "
                    f"match two kinds of line?"
                )
            known[name] = float(value)
        values = {name: value for name, value in values.items() if name not in _OF_A_STEP}
    for name, value in values.items():
        said, before = Said(value, number, text), reading.values.get(name)
        if before is not None and before.value != value:
            raise ConfigError(
                f"{where}: two lines give {name} differently: {before}, {said}. Make the rule of "
                f"the recipe match one of them."
            )
        reading.values[name] = said


def _take_stage(reading: Reading, name: str, match: re.Match[str], number: int, where: str) -> None:
    """Of a rounded and an exact line the exact one counts, if they agree."""
    groups, text = match.groupdict(), match.string
    said = Said(groups["bpb"], number, text)
    bpb, before = _number(groups["bpb"], number, text, where), reading.stages.get(name)
    loss = _number(groups["loss"], number, text, where) if groups.get("loss") else None
    eval_ms = _number(groups["eval_ms"], number, text, where) if groups.get("eval_ms") else None
    if before is not None and not _same_printed(str(before.said.value), groups["bpb"]):
        raise ConfigError(
            f"{where}: two lines give the stage {name} differently: {before.said}, {said}. Name a "
            f"label or a pattern that only one of them has."
        )
    score = Score(bpb, loss, eval_ms, said)
    finest = score
    if before is not None and len(groups["bpb"]) <= len(str(before.said.value)):
        finest = before
    times_ms = [s.eval_ms for s in (before, score) if s is not None and s.eval_ms is not None]
    reading.stages[name] = replace(finest, eval_ms=times_ms[0] if times_ms else None)


def _value(name: str, given: str, number: int, text: str, where: str) -> float | str:
    if name in _TEXTS:
        return given
    value = int(given) if given.isdecimal() else _number(given, number, text, where)
    if (name not in _OF_A_STEP or name == "step") and not math.isfinite(value):
        raise ConfigError(f"{where}, line {number}: {text[:160]!r}: {name} is {given}.")
    return value


def _number(given: str, number: int, text: str, where: str) -> float:
    try:
        return float(given.replace(",", ""))
    except ValueError:
        raise ConfigError(
            f"{where}, line {number}: {text[:160]!r}: {given!r} is no number; correct the pattern."
        ) from None


def _agree(before: float | None, now: float) -> bool:
    return before is None or before == now or (math.isnan(before) and math.isnan(now))


def _same_printed(a: str, b: str) -> bool:
    """Whether two numbers are the same as far as the shorter one is printed.

    >>> _same_printed("1.2346", "1.23456789"), _same_printed("1.2345", "1.23456789")
    (True, False)
    """
    short, long = sorted((a, b), key=len)
    if not (math.isfinite(float(a)) and math.isfinite(float(b))):
        return math.isfinite(float(a)) == math.isfinite(float(b))
    decimals = len(short.partition(".")[2])
    return abs(float(short) - float(long)) <= 0.5 * 10.0**-decimals * (1 + 1e-9)
