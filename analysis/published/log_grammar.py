"""Which lines of a published training log say something, and what does each of them say?

Three kinds of file: the script's own log (#1035: its source, versions and nvidia-smi stand before
the run, parted by two rulers), captured output of torchrun (#549, #1176: a banner before the run),
and either without what stands before. Only the run is read: in the source the same words are format
strings. A line that begins like one of the grammar and is not, or that speaks of a score and is not
known, refuses the log; any other unknown line is passed over and counted.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from trainer.config.config_errors import ConfigError

RULER = "=" * 100

_INT, _REAL = r"\d+", r"[+-]?(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|nan|inf)"
_FORMAT = r"(?P<format>int\d\+\w+)"


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

# What a run says once. A second one means a second run in the file.
_ONCE = {
    "start": r"val_bpb:enabled tokenizer_kind=sentencepiece tokenizer_path=\S+",
    "val_loader": rf"val_loader:shards pattern=\S+ tokens:{_number('tokens', _INT)}",
    "params": rf"model_params:{_number('params', _INT)}",
    "world": rf"world_size:{_number('ranks', _INT)} grad_accum_steps:\d+",
    "heads": r"attention_mode:gqa num_heads:(?P<heads>\d+) num_kv_heads:(?P<kv_heads>\d+)",
    "rates": rf"tie_embeddings:True embed_lr:{_number('embed_lr')} head_lr:{_number('head_lr')}"
    rf" matrix_lr:{_number('matrix_lr')} scalar_lr:{_number('scalar_lr')}",
    "config": rf"train_batch_tokens:{_number('batch_tokens', _INT)}"
    rf" train_seq_len:{_number('seq_len', _INT)} iterations:{_number('iterations', _INT)}"
    rf" warmup_steps:{_number('warmup', _INT)} max_wallclock_seconds:{_number('cap_s')}",
    "seed": rf"seed:{_number('seed', _INT)}",
    "xsa": rf"XSA:last_{_number('layers', _INT)} active_layers:\[.*\]",
    "stop": rf"stopping_early: wallclock_cap train_time:{_number('train_ms', _INT)}ms {_STEP}",
    "memory": rf"peak memory allocated: {_number('mib', _INT)} MiB reserved: \d+ MiB",
    "ema": r"ema:applying EMA weights",
    "post_ema": rf"DIAGNOSTIC post_ema {_SCORE}{_EVAL}",
    "raw_model": r"Serialized model: \d+ bytes",
    "code": rf"Code size: {_number('bytes', _INT)} bytes",
    "raw_total": r"Total submission size: \d+ bytes",
    "model": rf"Serialized model {_FORMAT}: {_number('bytes', _INT)} bytes(?: \(payload:.+\))?",
    "total": rf"Total submission size {_FORMAT}: {_number('bytes', _INT)} bytes",
    "int8": rf"final_int8_zlib_roundtrip {_SCORE}{_EVAL}",
    "int6": rf"final_int6_roundtrip {_SCORE}{_EVAL}",
    "int6_exact": rf"final_int6_roundtrip_exact {_EXACT}",
    "sliding": rf"final_int6_sliding_window {_SCORE} stride:{_number('stride', _INT)}{_EVAL}",
    "sliding_exact": rf"final_int6_sliding_window_exact {_EXACT}",
    "second_sliding": rf"final_int6_sliding_window_s64 {_SCORE} stride:64{_EVAL}",
    "second_sliding_exact": rf"final_int6_sliding_window_s64_exact {_EXACT}",
    "ttt_start": r"ttt_sliding:start chunks=.+",
    "ttt_done": rf"ttt_sliding:done {_score(6, '=')} elapsed=.+s",
    "ttt": rf"legal_ttt {_SCORE}{_EVAL}",
    "ttt_exact": rf"legal_ttt_exact {_EXACT}",
    "slot_start": r"slot:starting .+",
    "slot": rf"final_slot {_SCORE} time:{_number('eval_ms', _INT)}ms",
    "slot_exact": rf"final_slot_exact {_EXACT}",
}
_OFTEN = {
    "val": rf"{_STEP} {_SCORE} {_TIMES}",
    "train": rf"{_STEP} train_loss:{_number('loss')} {_TIMES}",
    "int8_exact": rf"final_int8_zlib_roundtrip_exact {_EXACT}",  # also said of sliding scores
    "chunk": rf" *ttt_chunk \[\d+/\d+\] bpb={_number('bpb')} time=.+s",  # rank 0's part, no score
    "ttt_params": r"ttt_sliding:params .+",
    "gptq": r"gptq(?::calibrated|:calibrating|:generated|_quantize:).+",
    "silent": r"(?!.*(?:bpb|val_loss|roundtrip))(?:warmup_step:\d+/\d+|logs/\S+\.txt|W\d{4} .+|\s*"
    r"|(?:swa|late_qat|mtp_num_heads|gptq|train_loader|sdp_backends)[:_].*)",
}
_KINDS = {kind: re.compile(text) for kind, text in (_ONCE | _OFTEN).items()}

# Words with which nothing begins but a line of the grammar.
_BEGINS = (
    *("step:", "seed:", "final_", "legal_ttt", "ttt_sliding", "DIAGNOSTIC", "diagnostic"),
    *("Serialized model", "Total submission", "Code size", "stopping_early", "model_params:"),
    *("train_batch_tokens:", "val_loader:", "val_bpb:", "world_size:", "tie_embeddings:", "XSA:"),
    *("attention_mode:", "peak memory", "ema:", "lawa:", "slot:", "quantized"),
)
_OF_A_SCORE = re.compile(r"bpb|val_loss|roundtrip")


@dataclass(frozen=True, slots=True)
class Said:
    """One line that says something: its number from 1, its text, its numbers by name."""

    kind: str
    line: int
    text: str
    values: Mapping[str, float]
    format: str | None = None  # of the artifact, such as int6+lzma


@dataclass(frozen=True, slots=True)
class Preamble:
    """What stands before the run: versions and GPUs; None where it is not said."""

    python: str | None = None
    torch: str | None = None
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sayings:
    """A log, line by line. ``often`` holds what may be said more than once, in order."""

    where: str
    preamble: Preamble
    once: Mapping[str, Said]
    often: tuple[Said, ...]
    passed_over: tuple[int, ...]
    last: tuple[int, str]

    def all(self, kind: str) -> list[Said]:
        return [said for said in self.often if said.kind == kind]


def read_sayings(text: str, where: str) -> Sayings:
    """Every line of the run in ``text``; a ConfigError names the line that cannot be believed."""
    lines = [line.rstrip() for line in text.split("\n")]
    begin = _begin(lines, where)
    once: dict[str, Said] = {}
    often: list[Said] = []
    passed_over: list[int] = []
    for number, line in enumerate(lines[begin:], start=begin + 1):
        said = _said(line, number, where)
        if said is None:
            passed_over.append(number)
        elif said.kind in _OFTEN:
            often.append(said)
        elif said.kind in once:
            raise refusal(
                where,
                said,
                f"line {once[said.kind].line} says this already: are there"
                " two runs in this file? Give each run a file of its own",
            )
        else:
            once[said.kind] = said
    last = (len(lines), lines[-1] if lines else "")
    return Sayings(where, _preamble(lines[:begin]), once, tuple(often), tuple(passed_over), last)


def shown(kind: str) -> str:
    """How a line of ``kind`` begins, as it stands in a log.

    >>> shown("int6_exact")
    'final_int6_roundtrip_exact'
    """
    begin = re.match(r"[^\\(]*", _KINDS[kind].pattern)
    return begin[0].partition(" val_loss")[0].strip() if begin else kind


def refusal(where: str, said: Said, why: str) -> ConfigError:
    """What is said of a line that cannot be believed."""
    return ConfigError(f"{where}, line {said.line}: {said.text!r}: {why}.")


def _begin(lines: list[str], where: str) -> int:
    """How many lines stand before the run."""
    rulers = [i for i, line in enumerate(lines) if line == RULER]
    if len(rulers) == 2:
        return rulers[1] + 1
    if rulers:
        odd = rulers[0] if len(rulers) == 1 else rulers[2]
        raise ConfigError(
            f"{where}, line {odd + 1}: {len(rulers)} rulers of 100 '='; a log that begins with its"
            " source has two, after the source and after nvidia-smi. Is it cut, or are there two"
            " runs in this file?"
        )
    return 0


def _said(line: str, number: int, where: str) -> Said | None:
    """What ``line`` says; None where nobody knows, and it does not matter."""
    for kind, pattern in _KINDS.items():
        match = pattern.fullmatch(line)
        if match is None:
            continue
        groups = {name: text for name, text in match.groupdict().items() if text is not None}
        artifact = groups.pop("format", None)
        values = {name: float(text) for name, text in groups.items()}
        said = Said(kind, number, line, values, artifact)
        if not all(map(math.isfinite, values.values())):
            raise refusal(where, said, "not a finite number, so this run has no score to compare")
        return said
    if line.lstrip().startswith(_BEGINS) or _OF_A_SCORE.search(line):
        raise ConfigError(
            f"{where}, line {number}: {line[:200]!r}: this line is damaged, or of a script whose"
            " logs are not known. Known are those of PR #1035, #549, #1176 and #1135"
            " (docs/published.md)."
        )
    return None


def _preamble(lines: list[str]) -> Preamble:
    """Versions and GPUs, read between the rulers only."""
    rulers = [i for i, line in enumerate(lines) if line == RULER]
    block = "\n".join(lines[rulers[0] :]) if rulers else ""
    python = re.search(r"^Running Python (\S+)", block, re.MULTILINE)
    torch = re.search(r"^Running PyTorch (\S+)", block, re.MULTILINE)
    gpus = re.findall(r"^\| +\d+  (\S.*?) +(?:On|Off|N/A) +\| +[0-9A-F]{8}:", block, re.MULTILINE)
    return Preamble(python and python[1], torch and torch[1], tuple(gpus))
