"""Make the report and the curve of a script from what it printed."""

import math
import platform
import statistics
from itertools import pairwise
from pathlib import Path
from typing import Any

from trainer.config.config_errors import ConfigError
from trainer.contract import (
    CURVE_COLUMNS,
    STAGE_COLUMNS,
    ScriptReport,
    ScriptSpec,
    recipe_hash,
    spec_hash,
)
from trainer.script.checks import check_answers
from trainer.script.logs.read import Reading, first_not_finite, missing_stages
from trainer.script.patching import Rendered
from trainer.script.source.packing import pack
from trainer.system.machine import gpu_name, installed_version, processor_name
from trainer.system.parquet_file import CURVE_TYPES, write_rows

MIB = 1 << 20


def make_report(
    spec: ScriptSpec, rendered: Rendered, reading: Reading, weighed: int | None, where: str
) -> ScriptReport:
    """The answer of a script that ended well; a ConfigError where it answers another question.

    ``weighed`` are the bytes of the model's file, None where the recipe names none.
    """
    check_answers(reading, spec, where)
    diverged = first_not_finite(reading)
    missing = missing_stages(reading, spec.recipe.script.read)
    if diverged is None and missing:
        raise ConfigError(
            f"{where}: the script ended well and did not print {', '.join(missing)}. Correct the "
            f"label in [script.read], or leave the stage out."
        )
    return ScriptReport(
        spec_hash=spec_hash(spec),
        state="succeeded" if diverged is None else "diverged",
        reason=diverged,
        **_training(spec, reading),
        **(_scores(spec, reading) if diverged is None else {"footing": {}}),
        **_sizes(spec, rendered, reading, weighed, where),
        num_params=_whole(reading, "num_params"),
        val_tokens=_whole(reading, "val_tokens"),
        world_size=spec.ranks,
        device=spec.device,
        device_name=gpu_name() if spec.device == "cuda" else processor_name(),
        corpus_sha256=spec.corpus_sha256,
        tokenizer_sha256=spec.tokenizer_sha256,
        recipe_hash=recipe_hash(spec.recipe),
        script_sha256=rendered.sha256,
        python=platform.python_version(),
        torch=installed_version("torch"),
    )


def write_curve(reading: Reading, path: Path) -> None:
    """One row per step that was printed, as ``CURVE_COLUMNS``."""
    per_step = reading.number("batch_tokens")
    rows = []
    for step, values in sorted(reading.curve.items()):
        tokens = None if per_step is None else round(step * per_step)
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        losses = [finite.get(name) for name in ("val_loss", "val_bpb")]
        rows.append((step, tokens, _train_s(finite), finite.get("train_loss"), None, *losses))
    write_rows(path, CURVE_COLUMNS, CURVE_TYPES, rows)


def _training(spec: ScriptSpec, reading: Reading) -> dict[str, Any]:
    steps, per_step = _steps(spec, reading), reading.number("batch_tokens")
    losses = {step: v["train_loss"] for step, v in reading.curve.items() if "train_loss" in v}
    from_step = min(0.9 * (steps or 0), max(losses, default=0) - 1)
    last = [loss for step, loss in losses.items() if step > from_step]
    said = {name: _said(reading, name) for name in ("train_s", "train_ms")}
    train_s = _train_s({name: value for name, value in said.items() if value is not None})
    artifact = spec.recipe.artifact
    return {
        "steps": steps,
        "tokens": None if steps is None or per_step is None else round(steps * per_step),
        "train_s": train_s,
        "step_ms_p50": _median_step_ms(reading),
        "train_loss": sum(last) / len(last) if last and all(map(math.isfinite, last)) else None,
        "fits_train_cap": None if train_s is None else train_s <= artifact.train_cap_s,
    }


def _scores(spec: ScriptSpec, reading: Reading) -> dict[str, Any]:
    rules, artifact = spec.recipe.script.read, spec.recipe.artifact
    scores: dict[str, Any] = {STAGE_COLUMNS[n]: s.bpb for n, s in reading.stages.items()}
    for name in ("pre_quant", "post_quant"):
        if name in reading.stages:
            scores[f"{name}_loss"] = reading.stages[name].loss
    footing = {
        STAGE_COLUMNS[name]: (rule.window, rule.stride) if rule.window and rule.stride else None
        for name, rule in rules.stages.items()
    }
    windows = {pair[0] for pair in footing.values() if pair}
    strides = {pair[1] for pair in footing.values() if pair and pair[0] != pair[1]}
    eval_ms = [s.eval_ms for name, s in reading.stages.items() if name != "pre_quant"]
    known_ms = [ms for ms in eval_ms if ms is not None]
    eval_s = sum(known_ms) / 1000 if eval_ms and len(known_ms) == len(eval_ms) else None
    return {
        **scores,
        "footing": footing,
        "window": windows.pop() if len(windows) == 1 else None,
        "stride": strides.pop() if len(strides) == 1 else None,
        "slot_legal": rules.slot.slot_legal if rules.slot else None,
        "eval_s": eval_s,
        "fits_eval_cap": None if eval_s is None else eval_s <= artifact.eval_cap_s,
    }


def _sizes(
    spec: ScriptSpec, rendered: Rendered, reading: Reading, weighed: int | None, where: str
) -> dict[str, Any]:
    """What a script prints of itself; of one that was packed, the code as it is packed again."""
    model, code = _whole(reading, "model_bytes"), _whole(reading, "code_bytes")
    total = _whole(reading, "artifact_bytes")
    if weighed is not None and model is not None and weighed != model:
        raise ConfigError(
            f"{where}: {spec.recipe.script.artifact_file} has {weighed:,} bytes, the script says "
            f"{model:,} ({reading.values['model_bytes']})."
        )
    model = weighed if model is None else model
    if model is not None and code is not None:
        if total not in (None, model + code):
            raise ConfigError(
                f"{where}: {reading.values['artifact_bytes']}: the model has {model:,} bytes and "
                f"the code {code:,}, which are not {total:,} together."
            )
        total = model + code
    if spec.recipe.packed is not None:
        code = len(pack(rendered.files[rendered.main], spec.recipe.packed).encode())
        total = None if model is None else model + code
    memory_mib = reading.number("peak_memory_mib")
    return {
        "model_bytes": model,
        "code_bytes": code,
        "artifact_bytes": total,
        "fits_cap": None if total is None else total <= spec.recipe.artifact.cap_bytes,
        "peak_memory_bytes": None if memory_mib is None else round(memory_mib * MIB),
    }


def _steps(spec: ScriptSpec, reading: Reading) -> int | None:
    said = _whole(reading, "steps")
    if said is not None:
        return said
    return max(reading.curve, default=None)


def _median_step_ms(reading: Reading) -> float | None:
    """Of the times that it says, else of the mean times between one printed step and the next."""
    if (alone := reading.number("step_ms")) is not None:
        return alone
    if times := [values["step_ms"] for values in reading.curve.values() if "step_ms" in values]:
        return statistics.median(times)
    known = {s: v["train_ms"] for s, v in sorted(reading.curve.items()) if s and "train_ms" in v}
    pairs = pairwise([(0, 0.0), *known.items()])
    each = [(ms - before_ms) / (s - b) for (b, before_ms), (s, ms) in pairs for _ in range(s - b)]
    return statistics.median(each) if each else None


def _said(reading: Reading, name: str) -> float | None:
    """Said in a line of its own, or last in the curve."""
    alone = reading.number(name)
    return reading.last(name) if alone is None else alone


def _train_s(values: dict[str, float]) -> float | None:
    if "train_s" in values:
        return values["train_s"]
    return values["train_ms"] / 1000 if "train_ms" in values else None


def _whole(reading: Reading, name: str) -> int | None:
    value = reading.number(name)
    return None if value is None else round(value)
