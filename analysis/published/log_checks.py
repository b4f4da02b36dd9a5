"""Which lines of a published log carry its results, and do they agree with all that it says twice?

Rounded and exact scores, loss and bits per byte, a size and its parts, the last validation and the
stop: a log says most things more than once, so a digit or a line that is lost is noticed. Every
function raises a ConfigError with the line that cannot be believed.
"""

from collections.abc import Iterable

from analysis.number_format import listed
from analysis.published.log_grammar import Said, Sayings, refusal, shown
from trainer.config.config_errors import ConfigError

_TWO_RUNS = "are there two runs in this file? Give each run a file of its own"
_CUT = "the run was killed, or lines are missing"
_DECIMALS = {"ttt_done": 6}  # of loss and bits per byte; else 8 in exact lines and 4 in others


def require(log: Sayings, kinds: Iterable[str]) -> None:
    """Nothing, if every one of ``kinds`` is said; else what is missing and where the log ends."""
    missing = [repr(shown(kind)) for kind in kinds if kind not in log.once]
    if missing:
        raise _unfinished(log, f"no line that begins {listed(missing)}")


def end_of_training(log: Sayings) -> Said:
    """The last validation, which is that of the last step; the steps lead there in order."""
    before = 0.0
    for said in log.often:
        if said.kind in ("val", "train"):
            _check_step(log, said, before)
            before = said.values["step"]
    validations = [said for said in log.often if said.kind == "val"]
    if not validations:
        raise _unfinished(log, "no validation")
    end, stop = validations[-1], log.once.get("stop")
    last = max(before, stop.values["step"] if stop else before)
    if end.values["step"] != last:
        why = f"the last validation, but training went on to step {last:.0f}: {_CUT}"
        raise refusal(log.where, end, why)
    if stop is None and last < end.values["iterations"]:
        why = f"the last validation, neither at the last iteration nor before a stop: {_CUT}"
        raise refusal(log.where, end, why)
    if stop and stop.values["train_ms"] != end.values["train_ms"]:
        raise refusal(log.where, stop, f"line {end.line} says another training time")
    return end


def sizes(log: Sayings) -> tuple[Said, Said, Said]:
    """Compressed model, code, and the line of their sum."""
    require(log, ("model", "code", "total"))
    model, code, total = (log.once[kind] for kind in ("model", "code", "total"))
    both = model.values["bytes"] + code.values["bytes"]
    if model.format != total.format:
        raise refusal(log.where, total, f"line {model.line} speaks of {model.format}")
    if both != total.values["bytes"]:
        why = f"lines {model.line} and {code.line} add up to {both:.0f}"
        raise refusal(log.where, total, why)
    return model, code, total


def score(log: Sayings, exact: str, rounded: str, *signs: str) -> Said | None:
    """The exact line of a score; None where no line of it, nor a sign that it was begun, is there.

    A score is believed if its exact and its rounded line are there and agree.
    """
    found = [log.once[kind] for kind in (exact, rounded, *signs) if kind in log.once]
    if not found:
        return None
    for kind in (exact, rounded):
        if kind not in log.once:
            why = f"no line that begins {shown(kind)!r} goes with it: {_CUT}"
            raise refusal(log.where, found[0], why)
    for said in found:
        check_rounded(log, said, log.once[exact])
    return log.once[exact]


def round_trip(log: Sayings, model: Said, slidings: list[Said]) -> Said:
    """The score of the weights read back: what the artifact is decides which line that is.

    ``slidings`` are the log's sliding scores, which logs with an int6 artifact print once more
    under the name ``final_int8_zlib_roundtrip_exact``.
    """
    named = [said for said in log.often if said.kind == "int8_exact"]
    if model.format == "int8+zlib":
        require(log, ("int8",))
        odd = [log.once[kind] for kind in ("int6", "int6_exact", "ema") if kind in log.once]
        if len(named) != 1 or odd:
            why = (
                "a log with an int8 artifact has one round trip, exact and rounded, of raw weights"
            )
            raise refusal(log.where, (odd or named or [log.once["int8"]])[0], why)
        check_rounded(log, log.once["int8"], named[0])
        return named[0]
    require(log, ("post_ema", "int6", "int6_exact", "sliding", "sliding_exact"))
    known = [(said.values["loss"], said.values["bpb"]) for said in slidings]
    for said in named:
        if (said.values["loss"], said.values["bpb"]) not in known:
            why = "beside an int6 artifact this name carries a sliding score, and none is equal"
            raise refusal(log.where, said, why)
    check_rounded(log, log.once["int6"], log.once["int6_exact"])
    return log.once["int6_exact"]


def check_one_text(log: Sayings, exact: Said) -> None:
    """Loss over bits per byte is the same for every score of a text, as far as it is printed.

    A printed number is off by up to half of its last digit. Sliding windows score the last 64
    targets 31 times more (#549 on): that moves the ratio by 2.6e-6.
    """
    ratio = exact.values["loss"] / exact.values["bpb"]
    for said in [*log.once.values(), *log.often]:
        if not {"loss", "bpb"} <= said.values.keys():
            continue
        loss, bpb = said.values["loss"], said.values["bpb"]
        rounding = 0.5 * (10.0 ** -_decimals(said) + 1e-8) * (1 + ratio)
        if bpb <= 0 or abs(loss - ratio * bpb) > rounding + 5e-6 * loss:
            why = f"loss and bits per byte are of another text than in line {exact.line}"
            raise refusal(log.where, said, why)


def check_rounded(log: Sayings, said: Said, exact: Said) -> None:
    """Nothing, if ``said`` is ``exact`` rounded to the decimals that it is printed with."""
    half = 0.5 * 10.0 ** -_decimals(said) + 1e-9
    for name in ("loss", "bpb"):
        if name in said.values and abs(said.values[name] - exact.values[name]) > half:
            raise refusal(log.where, said, f"line {exact.line} says {exact.values[name]:.8f}")


def _check_step(log: Sayings, said: Said, before: float) -> None:
    """Steps go up, of as many as configured; step_avg is train_time / step."""
    step, average_ms = said.values["step"], said.values["step_avg_ms"]
    if step < before:
        raise refusal(log.where, said, f"it comes after step {before:.0f}: {_TWO_RUNS}")
    config = log.once["config"]
    if said.values["iterations"] != config.values["iterations"]:
        raise refusal(log.where, said, f"line {config.line} says another number of iterations")
    steps = max(step, 1.0)
    # Half of the last digit of either: 0.01 ms of the average, 1 ms of the time.
    if abs(average_ms * steps - said.values["train_ms"]) > 0.005 * steps + 0.51:
        raise refusal(log.where, said, "train_time is not step × step_avg")


def _decimals(said: Said) -> int:
    return _DECIMALS.get(said.kind, 8 if said.kind.endswith("exact") else 4)


def _unfinished(log: Sayings, what: str) -> ConfigError:
    number, text = log.last
    return ConfigError(
        f"{log.where}: {what}. The file ends at line {number}: {text[:120]!r}. The log of a"
        " finished run of PR #1035, #549, #1176 or #1135 is needed."
    )
