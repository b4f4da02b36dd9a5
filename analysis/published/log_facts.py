"""Read scores, sizes, times and configuration of a published run from its training log.

The lines are read by ``log_lines`` and held against each other by ``log_checks``. The
labels in a log cannot be taken at their word:

- ``final_int8_zlib_roundtrip_exact`` is the round trip in the logs of #1035. Those of #549 and
  #1176 print the *sliding* score under this name.
- The last ``step:`` line with a validation is of the raw weights. That is the pre-quant score only
  where nothing is averaged (#1035); else the line ``DIAGNOSTIC post_ema`` is.
- The first ``Total submission size`` is that of uncompressed weights.
- ``ttt_chunk`` lines are sums of rank 0 alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from stat import S_ISREG
from typing import Any

from analysis.published.log_checks import (
    check_one_text,
    check_plausible,
    end_of_training,
    require,
    round_trip,
    score,
    sizes,
)
from analysis.published.log_lines import LogLine, LogLines, Preamble, line_error, read_lines
from trainer.config.config_errors import ConfigError
from trainer.script.logs.named_activation import Named, named_in_line, named_in_source

MIB = 2**20
MOST_BYTES = 64 * MIB

# What a log says of its configuration: the key of a recipe, the kind of line, the number in it.
_CONFIGURED = {
    "train.seq_len": ("config", "seq_len"),
    "train.batch_tokens": ("config", "batch_tokens"),
    "train.warmup_steps": ("config", "warmup"),
    "optim.embed_lr": ("rates", "embed_lr"),
    "optim.matrix_lr": ("rates", "matrix_lr"),
    "optim.scalar_lr": ("rates", "scalar_lr"),
    "model.num_heads": ("heads", "heads"),
    "model.num_kv_heads": ("heads", "kv_heads"),
    "model.xsa_last_layers": ("xsa", "layers"),
    "scoring.stride": ("sliding", "stride"),
    "ttt.lr": ("ttt_start", "lr"),
    "ttt.epochs": ("ttt_start", "epochs"),
    "ttt.chunk_tokens": ("ttt_start", "chunk_tokens"),
    "ttt.freeze_layers": ("ttt_start", "freeze"),
    "slot.lr": ("slot_start", "lr"),
    "slot.steps": ("slot_start", "steps"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFacts:
    """What one log says.

    ``row``: values by column of the store's schema, None where it does not say; losses in nats per
    token, scores in bits per byte. ``configured``: values by key of a recipe, as far as it says
    them, each with the kind of line that does; of ``ttt`` and ``slot`` whether they were scored.
    ``data``: of which tokens, as far as it says. ``named``: the lines, of its source too, that name
    an activation. ``unknown_lines``: numbers of the lines that the grammar does not know.
    ``accepted``: the texts that a question of theirs was answered by. ``lines`` and ``texts``: the
    number and the text of each line that is said once, by its kind in the grammar.
    """

    where: str
    row: Mapping[str, Any]
    configured: Mapping[str, tuple[object, str]]
    data: Mapping[str, tuple[Any, str]]
    named: tuple[Named, ...]
    preamble: Preamble
    unknown_lines: tuple[int, ...]
    accepted: tuple[str, ...]
    lines: Mapping[str, int]
    texts: Mapping[str, str]


def read_log(path: Path, accept: Sequence[str] = ()) -> LogFacts:
    """The facts of the log in ``path``; of ``accept`` see ``log_lines.read_lines``."""
    if not all(text.strip() for text in accept):
        raise ConfigError("--accept '': every line has this in it; give a part of the one meant.")
    try:
        found = path.stat()
        if not S_ISREG(found.st_mode) or found.st_size > MOST_BYTES:
            raise ConfigError(f"{path}: no training log, which is a file of up to 64 MiB.")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        why = f"this is no text ({error.reason} at byte {error.start})"
        raise ConfigError(f"{path}: {why}; a training log is needed.") from None
    except OSError as error:
        raise ConfigError(f"{path}: this cannot be read ({error.strerror}).") from None
    return parse_log(text, str(path), accept)


def parse_log(text: str, where: str, accept: Sequence[str] = ()) -> LogFacts:
    """The facts of a finished run; a ConfigError says with the line why there are none.

    ``where`` names the log in messages.
    """
    log = read_lines(text, where, accept)
    require(log, ("start", "dataset", "val_loader", "params", "world", "rates", "config", "seed"))
    end = end_of_training(log)
    model, code, total = sizes(log)
    sliding = score(log, "sliding_exact", "sliding")
    second = score(log, "second_sliding_exact", "second_sliding")
    ttt = score(log, "ttt_exact", "ttt", "ttt_done", "ttt_start")
    slot = score(log, "slot_exact", "slot", "slot_start")
    after = round_trip(log, model, [line for line in (sliding, second) if line])
    before = log.once.get("post_ema", end)
    check_one_text(log, after)
    scores = {"last validation": end, "pre-quant": before, "post-quant": after}
    check_plausible(log, {**scores, "sliding": sliding, "TTT": ttt})
    config, memory_mib = log.once["config"].values, _number(log, "memory", "mib")
    budget_kind, budget_value = _budget(log)
    gpus = set(log.preamble.gpus)
    row = {
        "seed": _number(log, "seed", "seed"),
        "num_params": _number(log, "params", "params"),
        "world_size": _number(log, "world", "ranks"),
        "val_tokens": _number(log, "val_loader", "tokens"),
        "budget_kind": budget_kind,
        "budget_value": budget_value,
        "steps": end.values["step"],
        "tokens": end.values["step"] * config["batch_tokens"],
        "train_s": end.values["train_ms"] / 1000,
        "pre_quant_loss": before.values["loss"],
        "pre_quant_bpb": before.values["bpb"],
        "post_quant_loss": after.values["loss"],
        "post_quant_bpb": after.values["bpb"],
        "post_quant_sliding_bpb": _bpb(sliding),
        "ttt_bpb": _bpb(ttt),
        "slot_bpb": _bpb(slot),
        "window": config["seq_len"],
        "stride": _number(log, "sliding", "stride") or config["seq_len"],
        "model_bytes": model.values["bytes"],
        "code_bytes": code.values["bytes"],
        "artifact_bytes": total.values["bytes"],
        "peak_memory_bytes": None if memory_mib is None else memory_mib * MIB,
        "score_s": _seconds(log, "post_ema", "int6", "sliding"),
        "ttt_s": _seconds(log, "ttt"),
        "slot_s": _seconds(log, "slot"),
        "device": None if memory_mib is None else "cuda",
        "device_name": gpus.pop() if len(gpus) == 1 else None,
        "python": log.preamble.python,
        "torch": log.preamble.torch,
    }
    said = {**log.once, after.kind: after}
    return LogFacts(
        where=where,
        row=row,
        configured=_configured(log, model),
        data=_data(log, after),
        named=_named(log),
        preamble=log.preamble,
        unknown_lines=log.unknown_lines,
        accepted=log.accepted,
        lines={kind: line.number for kind, line in said.items()},
        texts={kind: line.text for kind, line in said.items()},
    )


def _configured(log: LogLines, model: LogLine) -> dict[str, tuple[object, str]]:
    codes, compressor = model.words["format"].split("+")
    gptq = any(line.kind == "gptq" for line in log.repeated)
    found: dict[str, tuple[object, str]] = {
        key: (log.once[kind].values[name], kind)
        for key, (kind, name) in _CONFIGURED.items()
        if kind in log.once and name in log.once[kind].values
    }
    found["quantization.matrices"] = ("gptq" if gptq else f"{codes}_row", "model")
    found["quantization.compressor"] = (compressor, "model")
    if "ema" in log.once:
        found["averaging.kind"] = ("ema", "ema")
    for stage in ("ttt", "slot"):
        scored = f"{stage}_exact" in log.once
        found[stage] = (scored, f"{stage}_exact" if scored else "total")
    return found


def _data(log: LogLines, scored: LogLine) -> dict[str, tuple[Any, str]]:
    loader = log.once["val_loader"]
    return {
        "dataset": (log.once["dataset"].words["dataset"], "dataset"),
        "tokenizer": (PurePosixPath(log.once["start"].words["tokenizer"]).name, "start"),
        "folder": (PurePosixPath(loader.words["pattern"]).parent.name or None, "val_loader"),
        "val_tokens": (loader.values["tokens"], "val_loader"),
        "train_shards": (log.once["dataset"].values["shards"], "dataset"),
        "nats_per_bpb": (scored.values["loss"] / scored.values["bpb"], scored.kind),
    }


def _named(log: LogLines) -> tuple[Named, ...]:
    lines = [named_in_line(x.number, x.text) for x in log.repeated if x.kind == "activation"]
    return (*lines, *named_in_source(log.preamble.source))


def _budget(log: LogLines) -> tuple[str, float]:
    """Seconds where the cap ended training, else steps."""
    config, stop = log.once["config"], log.once.get("stop")
    cap_s, iterations = config.values["cap_s"], config.values["iterations"]
    if stop is None and cap_s > 0:
        why = (
            f"all {iterations} iterations were taken before the cap of {cap_s:g} s, whose clock the"
            " learning rate follows: that is a budget of neither steps nor seconds, and compares to"
            " nothing here"
        )
        raise line_error(log.where, config, why)
    if stop is not None and cap_s <= 0:
        raise line_error(log.where, stop, f"line {config.number} says that there is no cap")
    return ("steps", float(iterations)) if stop is None else ("seconds", cap_s)


def _bpb(line: LogLine | None) -> float | None:
    return None if line is None else line.values["bpb"]


def _seconds(log: LogLines, *kinds: str) -> float | None:
    """The time that scoring took; None where one of the scores is not there."""
    if any(kind not in log.once for kind in kinds):
        return None
    return sum(log.once[kind].values["eval_ms"] for kind in kinds) / 1000


def _number(log: LogLines, kind: str, name: str) -> float | None:
    return log.once[kind].values[name] if kind in log.once else None
