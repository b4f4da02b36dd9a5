"""Read the lines of a published training log by their kind; refuse the log where one is wrong.

Three kinds of file are known: the script's own log (#1035: its source, versions and nvidia-smi
stand before the run, parted by two rulers), captured output of torchrun (#549, #1176: a banner
before the run), and either without what stands before. Only the run is read: in the source the same
words are format strings. Of lines that are not of the grammar

- one that begins like a line of it, or speaks of a score, refuses the log;
- one that is a question refuses it too, until a person has looked and accepts it;
- any other is passed over and counted.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainer.config.config_errors import ConfigError
from trainer.script.logs.log_grammar import (
    ASKS,
    ASKS_BESIDE_ACTIVATION,
    BEGINS,
    HEADER,
    KINDS,
    NAMES_ACTIVATION,
    NOT_PLAIN,
    OF_A_SCORE,
    REPEATED,
    RULER,
    WORD_GROUPS,
)

TWO_RUNS = "are there two runs in this file? Give each run a file of its own"


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of the grammar: its number from 1, its text, its numbers and its words by name."""

    kind: str
    number: int
    text: str
    values: Mapping[str, float]
    words: Mapping[str, str]  # such as format: int6+lzma


@dataclass(frozen=True, slots=True)
class Preamble:
    """What stands before the run: versions, GPUs, and the lines of the source; None if not said."""

    python: str | None = None
    torch: str | None = None
    gpus: tuple[str, ...] = ()
    source: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LogLines:
    """The lines of one run: ``once`` by kind, ``repeated`` of kinds that may come again, in order.

    ``unknown_lines`` are the numbers of lines that are not of the grammar; ``accepted`` are the
    texts for which a question of theirs was passed over; ``last`` is where the file ends.
    """

    where: str
    preamble: Preamble
    once: Mapping[str, LogLine]
    repeated: tuple[LogLine, ...]
    unknown_lines: tuple[int, ...]
    accepted: tuple[str, ...]
    last: tuple[int, str]


def read_lines(text: str, where: str, accept: Sequence[str] = ()) -> LogLines:
    """Every line of the run in ``text``; a ConfigError names the line that is wrong.

    A person has looked at unknown lines that have a text of ``accept`` in them.
    """
    texts = [line.rstrip() for line in text.split("\n")]
    begin = _begin(texts, where)
    once: dict[str, LogLine] = {}
    preamble = _preamble(texts[:begin])
    numbered = list(enumerate(texts, start=1))
    repeated = _naming_activations(numbered[len(preamble.source) : begin])
    unknown_lines: list[int] = []
    accepted: list[str] = []
    for number, line_text in numbered[begin:]:
        line = read_line(line_text, number, where)
        if line is None:
            named = _naming_activations([(number, line_text)])
            repeated += named
            unknown_lines += [number] * (not named)
            accepted += _answered(line_text, number, where, accept)
        elif line.kind in REPEATED:
            repeated.append(line)
        elif line.kind in once:
            raise _said_twice(where, line, once[line.kind])
        else:
            once[line.kind] = line
    last = (len(texts), texts[-1] if texts else "")
    answers = tuple(dict.fromkeys(accepted))
    return LogLines(where, preamble, once, tuple(repeated), tuple(unknown_lines), answers, last)


def read_line(text: str, number: int, where: str) -> LogLine | None:
    """One printed line as its kind; None where it is of none and says no score; a ConfigError where
    it is damaged, or says a score that is not known or not what its name says.
    """
    for kind, pattern in KINDS.items():
        match = pattern.fullmatch(text)
        if match is None:
            continue
        groups = {name: found for name, found in match.groupdict().items() if found is not None}
        words = {name: groups.pop(name) for name in WORD_GROUPS if name in groups}
        values = {
            name: int(found) if found.isdigit() else float(found) for name, found in groups.items()
        }
        line = LogLine(kind, number, text, values, words)
        if not all(map(math.isfinite, values.values())):
            raise line_error(
                where, line, "not a finite number, so this run has no score to compare"
            )
        return line
    for known, what in NOT_PLAIN.values():
        if known.search(text):
            raise ConfigError(f"{where}, line {number}: {text[:200]!r}: {what}.")
    if text.lstrip().startswith(BEGINS) or OF_A_SCORE.search(text):
        raise ConfigError(
            f"{where}, line {number}: {text[:200]!r}: this line is damaged, or of a script whose"
            " logs are not known. Known are those of PR #1035, #549, #1176 and #1135"
            " (docs/published.md)."
        )
    return None


def line_error(where: str, line: LogLine, why: str) -> ConfigError:
    """The refusal of a log for one of its lines."""
    return ConfigError(f"{where}, line {line.number}: {line.text!r}: {why}.")


def _begin(lines: list[str], where: str) -> int:
    """How many lines stand before the run."""
    rulers = [i for i, line in enumerate(lines) if line == RULER]
    if len(rulers) == 2:
        return rulers[1] + 1
    if rulers:
        odd = rulers[0] if len(rulers) == 1 else rulers[2]
        runs = sum(bool(KINDS["start"].fullmatch(line)) for line in lines)
        what = (
            "is it cut, or of another script?" if len(rulers) == 1 else "it is of another script."
        )
        raise ConfigError(
            f"{where}, line {odd + 1}: {len(rulers)} rulers of 100 '='; a log that begins with its"
            " source has two, after the source and after nvidia-smi:"
            f" {f'{TWO_RUNS}.' if runs > 1 else what}"
        )
    return 0


def _naming_activations(numbered: Sequence[tuple[int, str]]) -> list[LogLine]:
    """The lines that name an activation or a slope, to be held against the claim."""
    return [
        LogLine("activation", number, text, {}, {})
        for number, text in numbered
        if NAMES_ACTIVATION.search(text)
    ]


def _answered(text: str, number: int, where: str, accept: Sequence[str]) -> list[str]:
    """The text that answers the question of an unknown line; none, if it asks none."""
    named = NAMES_ACTIVATION.search(text)  # and is held against the claim
    asks = (ASKS_BESIDE_ACTIVATION if named else ASKS).search(text)
    if asks is None:
        return []
    answers = [known for known in accept if known in text]
    if not answers:
        raise ConfigError(
            f"{where}, line {number}: {text[:200]!r}: this line is not known and speaks of"
            f" {asks[1]!r}, so a score may not be what its name says. If you have looked and it is,"
            " say so by --accept with a part of the line."
        )
    return answers[:1]


def _said_twice(where: str, line: LogLine, before: LogLine) -> ConfigError:
    why = "a run says it once, and which of the two counts is not said"
    if line.kind in HEADER:
        why = TWO_RUNS
    elif line.words != before.words:
        why = f"it speaks of {before.words['format']}, and which artifact was scored is not said"
    return line_error(where, line, f"line {before.number} says this already: {why}")


def _preamble(lines: list[str]) -> Preamble:
    """Versions and GPUs, read between the rulers only, and the source before them."""
    rulers = [i for i, line in enumerate(lines) if line == RULER]
    source = tuple(lines[: rulers[0]]) if rulers else ()
    block = "\n".join(lines[len(source) :])
    python = re.search(r"^Running Python (\S+)", block, re.MULTILINE)
    torch = re.search(r"^Running PyTorch (\S+)", block, re.MULTILINE)
    gpus = re.findall(r"^\| +\d+  (\S.*?) +(?:On|Off|N/A) +\| +[0-9A-F]{8}:", block, re.MULTILINE)
    return Preamble(python and python[1], torch and torch[1], tuple(gpus), source)
