"""Find the lines of a published log that carry its results, and check all that it says twice.

Rounded and exact scores, loss and bits per byte, a size and its parts, the last validation and the
stop: a log says most things more than once, so a digit or a line that is lost is noticed. Every
function raises a ConfigError with the line that is contradicted.
"""

import math
from collections.abc import Iterable, Mapping

from analysis.number_format import listed
from analysis.published.log_lines import TWO_RUNS, LogLine, LogLines, line_error
from trainer.config.config_errors import ConfigError
from trainer.script.logs.log_grammar import beginning

# A score, what it is measured from, how far it may lie below and above that, and what else it is.
# In results/published sliding scores gain 0.021 to 0.038, TTT up to 0.024; quantization loses.
_PLAUSIBLE = (
    (
        *("pre-quant", "last validation", 0.02, math.inf),
        "averaged weights gain 0.01 at most, so this is of sliding windows or of a mixture",
    ),
    (
        *("post-quant", "pre-quant", 0.001, math.inf),
        "quantization takes away, so this is of sliding windows, of averaged weights or of a"
        " mixture, under the name of the round trip",
    ),
    (
        *("sliding", "post-quant", 0.05, 0.001),
        "a longer context gives 0.02 to 0.04, so this is of a mixture or was fitted on its targets",
    ),
    (
        *("TTT", "sliding", 0.03, math.inf),
        "score-first TTT gives 0.025 at most, so this is of a mixture or was fitted on its targets",
    ),
)
_NOT_OF_INT8 = ("int6", "int6_exact", "ema", "post_ema", "swa", "late_qat")
_CUT = "the run was killed, or lines are missing"
_DECIMALS = {"ttt_done": 6}  # of loss and bits per byte; else 8 in exact lines and 4 in others


def require(log: LogLines, kinds: Iterable[str]) -> None:
    """Nothing, if every one of ``kinds`` is there; else what is missing and where the log ends."""
    missing = [repr(beginning(kind)) for kind in kinds if kind not in log.once]
    if missing:
        raise _unfinished(log, f"no line that begins {listed(missing)}")


def end_of_training(log: LogLines) -> LogLine:
    """The last validation, which is that of the last step; the steps lead there in order."""
    before = 0.0
    for line in log.repeated:
        if line.kind in ("val", "train"):
            _check_step(log, line, before)
            before = line.values["step"]
    validations = [line for line in log.repeated if line.kind == "val"]
    if not validations:
        raise _unfinished(log, "no validation")
    end, stop = validations[-1], log.once.get("stop")
    last = max(before, stop.values["step"] if stop else before)
    if end.values["step"] != last:
        why = f"the last validation, but training went on to step {last:.0f}: {_CUT}"
        raise line_error(log.where, end, why)
    if stop is None and last < end.values["iterations"]:
        why = f"the last validation, neither at the last iteration nor before a stop: {_CUT}"
        raise line_error(log.where, end, why)
    if stop and stop.values["train_ms"] != end.values["train_ms"]:
        raise line_error(log.where, stop, f"line {end.number} says another training time")
    return end


def sizes(log: LogLines) -> tuple[LogLine, LogLine, LogLine]:
    """Compressed model, code, and the line of their sum."""
    require(log, ("model", "code", "total"))
    model, code, total = (log.once[kind] for kind in ("model", "code", "total"))
    both = model.values["bytes"] + code.values["bytes"]
    if model.words != total.words:
        what = f"line {model.number} speaks of {model.words['format']}"
        raise line_error(log.where, total, what)
    if both != total.values["bytes"]:
        why = f"lines {model.number} and {code.number} add up to {both:.0f}"
        raise line_error(log.where, total, why)
    return model, code, total


def score(log: LogLines, exact: str, rounded: str, *signs: str) -> LogLine | None:
    """The exact line of a score; None where no line of it, nor a sign that it was begun, is there.

    Its exact and its rounded line must be there and agree.
    """
    found = [log.once[kind] for kind in (exact, rounded, *signs) if kind in log.once]
    if not found:
        return None
    for kind in (exact, rounded):
        if kind not in log.once:
            why = f"no line that begins {beginning(kind)!r} goes with it: {_CUT}"
            raise line_error(log.where, found[0], why)
    for line in found:
        check_rounded(log, line, log.once[exact])
    return log.once[exact]


def round_trip(log: LogLines, model: LogLine, slidings: list[LogLine]) -> LogLine:
    """The score of the weights read back: what the artifact is decides which line that is.

    ``slidings`` are the log's sliding scores, which logs with an int6 artifact print once more
    under the name ``final_int8_zlib_roundtrip_exact``.
    """
    named = [line for line in log.repeated if line.kind == "int8_exact"]
    if model.words["format"].startswith("int8+"):
        require(log, ("int8",))
        odd = [log.once[kind] for kind in _NOT_OF_INT8 if kind in log.once]
        if len(named) != 1 or odd:
            why = (
                "a log with an int8 artifact has one round trip, exact and rounded, of raw weights"
                " that were trained without quantization"
            )
            raise line_error(log.where, (odd or named or [log.once["int8"]])[0], why)
        check_rounded(log, log.once["int8"], named[0])
        return named[0]
    require(log, ("post_ema", "int6", "int6_exact", "sliding", "sliding_exact"))
    known = [(line.values["loss"], line.values["bpb"]) for line in slidings]
    for line in named:
        if (line.values["loss"], line.values["bpb"]) not in known:
            why = "beside an int6 artifact this name carries a sliding score, and none is equal"
            raise line_error(log.where, line, why)
    check_rounded(log, log.once["int6"], log.once["int6_exact"])
    return log.once["int6_exact"]


def check_one_text(log: LogLines, exact: LogLine) -> None:
    """Loss over bits per byte is the same for every score of a text, as far as it is printed.

    A printed number is off by up to half of its last digit. Sliding windows score the last 64
    targets 31 times more (#549 on): that moves the ratio by 2.6e-6.
    """
    if exact.values["bpb"] <= 0:
        raise line_error(log.where, exact, "no model scores nothing")
    ratio = exact.values["loss"] / exact.values["bpb"]
    for line in [*log.once.values(), *log.repeated]:
        if not {"loss", "bpb"} <= line.values.keys():
            continue
        loss, bpb = line.values["loss"], line.values["bpb"]
        rounding = 0.5 * (10.0 ** -_decimals(line) + 1e-8) * (1 + ratio)
        if bpb <= 0 or abs(loss - ratio * bpb) > rounding + 5e-6 * loss:
            why = f"loss and bits per byte are of another text than in line {exact.number}"
            raise line_error(log.where, line, why)


def check_plausible(log: LogLines, scores: Mapping[str, LogLine | None]) -> None:
    """Nothing, if no score of ``scores`` is further from another than its kind can be."""
    for name, other, below, above, why in _PLAUSIBLE:
        line, base = scores[name], scores[other]
        if line is None or base is None:
            continue
        gain = base.values["bpb"] - line.values["bpb"]
        if not -above <= gain <= below:
            what = f"{abs(gain):.4f} {'below' if gain > 0 else 'above'} the {other} score of line"
            raise line_error(log.where, line, f"{what} {base.number}: {why}")


def check_rounded(log: LogLines, line: LogLine, exact: LogLine) -> None:
    """Nothing, if ``line`` is ``exact`` rounded to the decimals that it is printed with."""
    half = 0.5 * 10.0 ** -_decimals(line) + 1e-9
    for name in ("loss", "bpb"):
        if name in line.values and abs(line.values[name] - exact.values[name]) > half:
            raise line_error(log.where, line, f"line {exact.number} says {exact.values[name]:.8f}")


def _check_step(log: LogLines, line: LogLine, before: float) -> None:
    """Steps go up, of as many as configured; step_avg is train_time / step."""
    step, average_ms = line.values["step"], line.values["step_avg_ms"]
    if step < before:
        raise line_error(log.where, line, f"it comes after step {before:.0f}: {TWO_RUNS}")
    config = log.once["config"]
    if line.values["iterations"] != config.values["iterations"]:
        raise line_error(log.where, line, f"line {config.number} says another number of iterations")
    steps = max(step, 1.0)
    # Half of the last digit of either: 0.01 ms of the average, 1 ms of the time.
    if abs(average_ms * steps - line.values["train_ms"]) > 0.005 * steps + 0.51:
        raise line_error(log.where, line, "train_time is not step × step_avg")


def _decimals(line: LogLine) -> int:
    return _DECIMALS.get(line.kind, 8 if line.kind.endswith("exact") else 4)


def _unfinished(log: LogLines, what: str) -> ConfigError:
    number, text = log.last
    return ConfigError(
        f"{log.where}: {what}. The file ends at line {number}: {text[:120]!r}. The log of a"
        " finished run of PR #1035, #549, #1176 or #1135 is needed."
    )
