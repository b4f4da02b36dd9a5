"""The grammar of published training logs: every kind of line as a pattern, and its numbers.

A kind of line is one entry of ``_ONCE`` (a run says it once), of ``_REPEATED``, or of
``_NOT_PLAIN`` (a score is not what its name says).

Three kinds of file are known: the script's own log (#1035: its source, versions and nvidia-smi
stand before the run, parted by two rulers), captured output of torchrun (#549, #1176: a banner
before the run), and either without what stands before. Only the run is read: in the source the same
words are format strings. Of other lines

- one that begins like the grammar, or speaks of a score, refuses the log;
- one with a word of ``_ASKS`` refuses it too, until a person has looked and accepts it;
- any other is passed over and counted.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainer.config.config_errors import ConfigError

RULER = "=" * 100
TWO_RUNS = "are there two runs in this file? Give each run a file of its own"

_INT, _REAL = r"\d{1,15}", r"[+-]?(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|nan|inf)"
_PACKER = "(?:zlib|zstd|lzma|brotli)"
_FORMAT = r"(?P<format>\w+\+\w+)"  # such as int8+zlib, int6+lzma, int6+brotli
_WORDS = ("format", "dataset", "tokenizer", "pattern")  # groups that are words, not numbers


def _number(name: str, kind: str = _REAL) -> str:
    return f"(?P<{name}>{kind})"


def _score(decimals: int, mark: str = ":") -> str:
    """With all its decimals, so that a number that was cut off is no number."""
    real = rf"[+-]?(?:\d+\.\d{{{decimals}}}|nan|inf)"
    return f"val_loss{mark}{_number('loss', real)} val_bpb{mark}{_number('bpb', real)}"


_SCORE, _EXACT = _score(4), _score(8)
_STEP = rf"step:{_number('step', _INT)}/{_number('iterations', _INT)}"
_TIMES = rf"train_time:{_number('train_ms', _INT)}ms step_avg:{_number('step_avg_ms')}ms"
_EVAL = rf"(?: eval_time:{_number('eval_ms', _INT)}ms)"

# What a run says once.
_ONCE = {
    "start": r"val_bpb:enabled tokenizer_kind=sentencepiece tokenizer_path=(?P<tokenizer>\S+)",
    "dataset": rf"train_loader:dataset:(?P<dataset>\S+) train_shards:{_number('shards', _INT)}",
    "val_loader": rf"val_loader:shards pattern=(?P<pattern>\S+) tokens:{_number('tokens', _INT)}",
    "params": rf"model_params:{_number('params', _INT)}",
    "world": rf"world_size:{_number('ranks', _INT)} grad_accum_steps:\d+",
    "heads": rf"attention_mode:gqa num_heads:{_number('heads', _INT)}"
    rf" num_kv_heads:{_number('kv_heads', _INT)}",
    "rates": rf"tie_embeddings:True embed_lr:{_number('embed_lr')} head_lr:{_number('head_lr')}"
    rf" matrix_lr:{_number('matrix_lr')} scalar_lr:{_number('scalar_lr')}",
    "config": rf"train_batch_tokens:{_number('batch_tokens', _INT)}"
    rf" train_seq_len:{_number('seq_len', _INT)} iterations:{_number('iterations', _INT)}"
    rf" warmup_steps:{_number('warmup', _INT)} max_wallclock_seconds:{_number('cap_s')}",
    "seed": rf"seed:{_number('seed', _INT)}",
    "xsa": rf"XSA:last_{_number('layers', _INT)} active_layers:\[.*\]",
    "stop": rf"stopping_early: wallclock_cap train_time:{_number('train_ms', _INT)}ms {_STEP}",
    "memory": rf"peak memory allocated: {_number('mib', _INT)} MiB reserved: \d+ MiB",
    "swa": r"swa:start step:\d+",
    "late_qat": r"late_qat:enabled step:\d+ scale:[\d.]+.*",
    "ema": r"ema:applying EMA weights",
    "post_ema": rf"DIAGNOSTIC post_ema {_SCORE}{_EVAL}",
    "raw_model": r"Serialized model: \d+ bytes",
    "code": rf"Code size: {_number('bytes', _INT)} bytes",
    "raw_total": r"Total submission size: \d+ bytes",
    "model": rf"Serialized model {_FORMAT}: {_number('bytes', _INT)} bytes(?: \(payload:.+\))?",
    "total": rf"Total submission size {_FORMAT}: {_number('bytes', _INT)} bytes",
    "int8": rf"final_int8_{_PACKER}_roundtrip {_SCORE}{_EVAL}",
    "int6": rf"final_int6_roundtrip {_SCORE}{_EVAL}",
    "int6_exact": rf"final_int6_roundtrip_exact {_EXACT}",
    "sliding": rf"final_int6_sliding_window {_SCORE} stride:{_number('stride', _INT)}{_EVAL}",
    "sliding_exact": rf"final_int6_sliding_window_exact {_EXACT}",
    "second_sliding": rf"final_int6_sliding_window_s64 {_SCORE} stride:64{_EVAL}",
    "second_sliding_exact": rf"final_int6_sliding_window_s64_exact {_EXACT}",
    "ttt_start": rf"ttt_sliding:start chunks=\d+ chunk_tokens={_number('chunk_tokens', _INT)}"
    rf" total_windows=\d+ stride={_number('stride', _INT)}(?: ttt_lr={_number('lr')}"
    rf" ttt_epochs={_number('epochs', _INT)} freeze_blocks={_number('freeze', _INT)})?",
    "ttt_done": rf"ttt_sliding:done {_score(6, '=')} elapsed=.+s",
    "ttt": rf"legal_ttt {_SCORE}{_EVAL}",
    "ttt_exact": rf"legal_ttt_exact {_EXACT}",
    "slot_start": rf"slot:starting lr={_number('lr')} steps={_number('steps', _INT)}",
    "slot": rf"final_slot {_SCORE} time:{_number('eval_ms', _INT)}ms",
    "slot_exact": rf"final_slot_exact {_EXACT}",
}
_REPEATED = {
    "val": rf"{_STEP} {_SCORE} {_TIMES}",
    "train": rf"{_STEP} train_loss:{_number('loss')} {_TIMES}",
    "int8_exact": rf"final_int8_{_PACKER}_roundtrip_exact {_EXACT}",  # also said of sliding scores
    "chunk": rf" *ttt_chunk \[\d+/\d+\] bpb={_number('bpb')} time=.+s",  # rank 0's part, no score
    "ttt_params": r"ttt_sliding:params unfrozen=\d+ frozen=\d+",
    "gptq": r"gptq(?::calibrated|:calibrating|:generated|_quantize:).+",
    "silent": r"(?:warmup_step:\d+/\d+|logs/[\da-f-]+\.txt|\s*"
    r"|mtp_num_heads:0 .*|gptq:reserving .*"
    r"|sdp_backends:.*|final_eval_mode:standard|[IWE]\d{4} \S+ \d+ (?:\[\S+\] )?torch/.+)",
}
_HEADER = ("start", "dataset", "val_loader", "params", "world", "heads", "rates", "config", "seed")
_KINDS = {kind: re.compile(text) for kind, text in (_ONCE | _REPEATED).items()}

# Words with which nothing begins but a line of the grammar.
_BEGINS = (
    *("step:", "seed:", "final_", "legal_ttt", "ttt_sliding", "DIAGNOSTIC", "diagnostic"),
    *("Serialized model", "Total submission", "Code size", "stopping_early", "model_params:"),
    *("train_batch_tokens:", "val_loader:", "val_bpb:", "world_size:", "tie_embeddings:", "XSA:"),
    *("attention_mode:", "peak memory", "ema:", "lawa:", "slot:", "quantized"),
)
_OF_A_SCORE = re.compile(r"bpb|val_loss|roundtrip")

# Lines after which a score is not what its name says: kind, how it is known, what it means.
_NOT_PLAIN = {
    "slot in TTT": (
        r"^ttt_sliding:.*slot",
        "this TTT also shifts hidden states, fitted on the targets that it then scores: an illegal"
        " SLOT score under the name of TTT",
    ),
    "sliding round trip": (
        r"^final_eval_mode:.*sliding",
        "the final score is of sliding windows, under the name of the round trip",
    ),
    "mixture": (
        r"^(?=.*(?:bpb|val_loss)).*?(?:n-?gram|ctw|mixture|mixing|knn)",
        "a score of a mixture with another model; what else here is of the mixture is not said",
    ),
    "other average": (
        r"^lawa:applying",
        "weights that are averaged in a way that no recipe here has",
    ),
}
_NOT_PLAIN_LINES = {
    kind: (re.compile(pattern, re.IGNORECASE), what) for kind, (pattern, what) in _NOT_PLAIN.items()
}

# Words after which a score may not be what its name says, or not of this data or this training.
_OF_ANOTHER_SCORE = (
    r"slot|n[-_ ]?gram|\d-?gram|ctw|mixture|mixing|interpolat|backoff|blend|dirichlet|knn|tilt"
    r"|ensembl|paid|(?<![a-z])(?:ppm|ttt|ema|swa|lawa|lora|qat)(?![a-z])|averag(?:ed|ing)"
    r"|sliding|stride|eval_(?:seq|len|context|window)|two[-_ ]?pass|rescor"
    r"|val_?only|train_?on_?val|(?<![a-z])sp(?!1024)\d{3,5}|byte260"
    r"|resum(?:e|ed|ing)\b|load(?:ed|ing)? (?:\w+ ){0,4}(?:checkpoint|weights)"
    r"|pretrained|distill|prun(?:e|ed|ing)(?![a-z])"
)
_OF_AN_ACTIVATION = r"mlp_act|slope|leaky|relu|gelu|silu|swi(?:sh|glu)|asqu"
_ASKS = re.compile(f"{_OF_ANOTHER_SCORE}|{_OF_AN_ACTIVATION}", re.IGNORECASE)
_ASKS_BESIDE_ACTIVATION = re.compile(_OF_ANOTHER_SCORE, re.IGNORECASE)
_NAMES_ACTIVATION = re.compile(
    r"(?<![a-z])(?:(?:mlp_)?act(?:ivation)?(?:_fn|_func|_type)?\s*[:=]\s*['\"]?\w"
    r"|slope\s*[:=]\s*[-+]?\.?\d)",
    re.IGNORECASE,
)


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
    repeated: list[LogLine] = []
    unknown_lines: list[int] = []
    accepted: list[str] = []
    for number, line_text in enumerate(texts[begin:], start=begin + 1):
        line = _parsed(line_text, number, where)
        if line is None:
            unknown_lines.append(number)
            accepted += _answered(line_text, number, where, accept)
            if _NAMES_ACTIVATION.search(line_text):
                repeated.append(LogLine("activation", number, line_text, {}, {}))
        elif line.kind in _REPEATED:
            repeated.append(line)
        elif line.kind in once:
            raise _said_twice(where, line, once[line.kind])
        else:
            once[line.kind] = line
    last = (len(texts), texts[-1] if texts else "")
    preamble = _preamble(texts[:begin])
    answers = tuple(dict.fromkeys(accepted))
    return LogLines(where, preamble, once, tuple(repeated), tuple(unknown_lines), answers, last)


def beginning(kind: str) -> str:
    """How a line of ``kind`` begins, as it stands in a log.

    >>> beginning("int6_exact")
    'final_int6_roundtrip_exact'
    """
    begin = re.match(r"[^\\(]*", _KINDS[kind].pattern)
    return begin[0].partition(" val_loss")[0].strip() if begin else kind


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
        runs = sum(bool(_KINDS["start"].fullmatch(line)) for line in lines)
        what = TWO_RUNS[0].upper() + TWO_RUNS[1:] if runs > 1 else "This is a log of another script"
        raise ConfigError(
            f"{where}, line {odd + 1}: {len(rulers)} rulers of 100 '='; a log that begins with its"
            f" source has two, after the source and after nvidia-smi. {what}."
        )
    return 0


def _parsed(text: str, number: int, where: str) -> LogLine | None:
    """The line as its kind; None where it is of none, and it does not matter."""
    for kind, pattern in _KINDS.items():
        match = pattern.fullmatch(text)
        if match is None:
            continue
        groups = {name: found for name, found in match.groupdict().items() if found is not None}
        words = {name: groups.pop(name) for name in _WORDS if name in groups}
        values = {
            name: int(found) if found.isdigit() else float(found) for name, found in groups.items()
        }
        line = LogLine(kind, number, text, values, words)
        if not all(map(math.isfinite, values.values())):
            raise line_error(
                where, line, "not a finite number, so this run has no score to compare"
            )
        return line
    for known, what in _NOT_PLAIN_LINES.values():
        if known.search(text):
            raise ConfigError(f"{where}, line {number}: {text[:200]!r}: {what}.")
    if text.lstrip().startswith(_BEGINS) or _OF_A_SCORE.search(text):
        raise ConfigError(
            f"{where}, line {number}: {text[:200]!r}: this line is damaged, or of a script whose"
            " logs are not known. Known are those of PR #1035, #549, #1176 and #1135"
            " (docs/published.md)."
        )
    return None


def _answered(text: str, number: int, where: str, accept: Sequence[str]) -> list[str]:
    """The text that answers the question of an unknown line; none, if it asks none."""
    names = _NAMES_ACTIVATION.search(text)  # then it is held against the claim
    asks = (_ASKS_BESIDE_ACTIVATION if names else _ASKS).search(text)
    if asks is None:
        return []
    answers = [known for known in accept if known in text]
    if not answers:
        raise ConfigError(
            f"{where}, line {number}: {text[:200]!r}: this line is not known and speaks of"
            f" {asks[0]!r}, so a score may not be what its name says. If you have looked and it is,"
            " say so by --accept with a part of the line."
        )
    return answers[:1]


def _said_twice(where: str, line: LogLine, before: LogLine) -> ConfigError:
    why = "a run says it once, and which of the two counts is not said"
    if line.kind in _HEADER:
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
