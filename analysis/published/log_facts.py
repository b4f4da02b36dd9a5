"""Read scores, sizes, times and configuration of a published run from its training log.

The lines are read by ``log_grammar`` and held against each other by ``log_checks``. The
labels in a log cannot be taken at their word:

- ``final_int8_zlib_roundtrip_exact`` is the round trip in the logs of #1035. Those of #549 and
  #1176 print the *sliding* score under this name.
- The last ``step:`` line with a validation is of the raw weights. That is the pre-quant score only
  where nothing is averaged (#1035); else the line ``DIAGNOSTIC post_ema`` is.
- The first ``Total submission size`` is that of uncompressed weights.
- ``ttt_chunk`` lines are sums of rank 0 alone.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from analysis.published.log_checks import (
    check_one_text,
    end_of_training,
    require,
    round_trip,
    score,
    sizes,
)
from analysis.published.log_grammar import LogLine, LogLines, Preamble, line_error, read_lines
from trainer.config.config_errors import ConfigError

MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Configured:
    """What a run was configured with, as far as a log says it; ``cap_s`` is None without a cap."""

    seed: int
    num_params: int
    world_size: int
    batch_tokens: int
    seq_len: int
    warmup_steps: int
    iterations: int
    cap_s: float | None
    embed_lr: float
    matrix_lr: float
    scalar_lr: float
    val_tokens: int
    num_heads: int | None
    num_kv_heads: int | None
    xsa_last_layers: int | None
    gptq: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFacts:
    """What one log says. Losses in nats per token, scores in bits per byte; None: it does not say.

    ``stopped_by_cap``: training ended with the time and not with the iterations. ``stride`` is that
    of the sliding score. ``unknown_lines``: numbers of the lines that the grammar does not know.
    ``lines``: the number of each line that is said once, by its kind in the grammar.
    """

    where: str
    configured: Configured
    steps: int
    train_s: float
    stopped_by_cap: bool
    pre_quant_loss: float
    pre_quant_bpb: float
    post_quant_loss: float
    post_quant_bpb: float
    post_quant_sliding_bpb: float | None
    stride: int | None
    ttt_bpb: float | None
    slot_bpb: float | None
    artifact_format: str
    model_bytes: int
    code_bytes: int
    artifact_bytes: int
    peak_memory_bytes: int | None
    score_s: float | None
    ttt_s: float | None
    slot_s: float | None
    preamble: Preamble
    unknown_lines: tuple[int, ...]
    lines: Mapping[str, int]


def read_log(path: Path) -> LogFacts:
    """The facts of the log in ``path``."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        why = f"this is no text ({error.reason} at byte {error.start})"
        raise ConfigError(f"{path}: {why}; a training log is needed.") from None
    except OSError as error:
        raise ConfigError(f"{path}: this cannot be read ({error.strerror}).") from None
    return parse_log(text, str(path))


def parse_log(text: str, where: str) -> LogFacts:
    """The facts of a finished run; a ConfigError says with the line why there are none.

    ``where`` names the log in messages.
    """
    log = read_lines(text, where)
    configured = _configured(log)
    end = end_of_training(log)
    model, code, total = sizes(log)
    sliding = score(log, "sliding_exact", "sliding")
    second = score(log, "second_sliding_exact", "second_sliding")
    ttt = score(log, "ttt_exact", "ttt", "ttt_done", "ttt_start")
    slot = score(log, "slot_exact", "slot", "slot_start")
    after = round_trip(log, model, [line for line in (sliding, second) if line])
    before = log.once.get("post_ema", end)
    check_one_text(log, after)
    memory_mib = _count(log, "memory", "mib")
    return LogFacts(
        where=where,
        configured=configured,
        steps=int(end.values["step"]),
        train_s=end.values["train_ms"] / 1000,
        stopped_by_cap=_stopped_by_cap(log, configured),
        pre_quant_loss=before.values["loss"],
        pre_quant_bpb=before.values["bpb"],
        post_quant_loss=after.values["loss"],
        post_quant_bpb=after.values["bpb"],
        post_quant_sliding_bpb=_bpb(sliding),
        stride=_count(log, "sliding", "stride"),
        ttt_bpb=_bpb(ttt),
        slot_bpb=_bpb(slot),
        artifact_format=str(model.format),
        model_bytes=int(model.values["bytes"]),
        code_bytes=int(code.values["bytes"]),
        artifact_bytes=int(total.values["bytes"]),
        peak_memory_bytes=None if memory_mib is None else memory_mib * MIB,
        score_s=_seconds(log, "post_ema", "int6", "sliding"),
        ttt_s=_seconds(log, "ttt"),
        slot_s=_seconds(log, "slot"),
        preamble=log.preamble,
        unknown_lines=log.unknown_lines,
        lines={kind: line.number for kind, line in log.once.items()},
    )


def _configured(log: LogLines) -> Configured:
    require(log, ("val_loader", "params", "world", "rates", "config", "seed"))
    config, rates = log.once["config"].values, log.once["rates"].values
    return Configured(
        seed=int(log.once["seed"].values["seed"]),
        num_params=int(log.once["params"].values["params"]),
        world_size=int(log.once["world"].values["ranks"]),
        batch_tokens=int(config["batch_tokens"]),
        seq_len=int(config["seq_len"]),
        warmup_steps=int(config["warmup"]),
        iterations=int(config["iterations"]),
        cap_s=config["cap_s"] if config["cap_s"] > 0 else None,
        embed_lr=rates["embed_lr"],
        matrix_lr=rates["matrix_lr"],
        scalar_lr=rates["scalar_lr"],
        val_tokens=int(log.once["val_loader"].values["tokens"]),
        num_heads=_count(log, "heads", "heads"),
        num_kv_heads=_count(log, "heads", "kv_heads"),
        xsa_last_layers=_count(log, "xsa", "layers"),
        gptq=any(line.kind == "gptq" for line in log.repeated),
    )


def _stopped_by_cap(log: LogLines, configured: Configured) -> bool:
    stop = log.once.get("stop")
    if stop is not None and configured.cap_s is None:
        raise line_error(
            log.where, stop, f"line {log.once['config'].number} says that there is no cap"
        )
    return stop is not None


def _bpb(line: LogLine | None) -> float | None:
    return None if line is None else line.values["bpb"]


def _seconds(log: LogLines, *kinds: str) -> float | None:
    """The time that scoring took; None where one of the scores is not there."""
    if any(kind not in log.once for kind in kinds):
        return None
    return math.fsum(log.once[kind].values["eval_ms"] for kind in kinds) / 1000


def _count(log: LogLines, kind: str, name: str) -> int | None:
    return int(log.once[kind].values[name]) if kind in log.once else None
