"""Write what a run found: its report, its curve and the measures of its layers."""

import math
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from trainer.compress.artifact import Packed
from trainer.contract import (
    CURVE_COLUMNS,
    LAYER_COLUMNS,
    Report,
    RunSpec,
    recipe_hash,
    spec_hash,
)
from trainer.distributed.speed_probe import Probe
from trainer.distributed.world import World
from trainer.evaluate.bpb import Score
from trainer.evaluate.slot import slot_is_legal
from trainer.mechanism.measure import LayerRow
from trainer.model import GPT
from trainer.source import trainer_source
from trainer.system.machine import processor_name
from trainer.system.parquet_file import CURVE_TYPES, write_rows
from trainer.training.train import TrainingResult

DURATIONS = ("setup", "warmup", "score", "ttt", "slot", "pack", "overlap", "idle", "mechanism")
_LAYER_TYPES = (pa.string(), pa.string(), pa.int64(), pa.string(), pa.float64())


@dataclass(frozen=True, slots=True)
class Scores:
    """Every score of one cell; ``ttt`` and ``slot`` are None where the recipe does neither.

    ``layers`` are the measures of the mechanism, which rank 0 alone has. The artifact has
    ``model_bytes``.
    """

    pre: Score
    post: Score
    sliding: Score
    ttt: Score | None
    slot: Score | None
    packed: Packed
    model_bytes: int
    layers: Sequence[LayerRow] = ()

    def first_bad(self) -> str | None:
        """The name of the first score that is not finite."""
        named = {
            "post-quantization": self.post,
            "sliding": self.sliding,
            "test-time-training": self.ttt,
            "SLOT": self.slot,
        }
        return next((name for name, s in named.items() if s is not None and not s.is_finite), None)


@dataclass(frozen=True, slots=True)
class RunCosts:
    """What a run took: how long each phase, memory of rank 0, and what it had to compile.

    A probe of fixed work ``before`` and ``after`` the run, None where it was not probed.
    """

    durations_s: Mapping[str, float]
    peak_memory_bytes: int
    compile_misses: int | None
    before: Probe | None = None
    after: Probe | None = None


def make_report(
    spec: RunSpec,
    world: World,
    model: GPT,
    trained: TrainingResult,
    result: Scores | str,
    measured: RunCosts,
) -> Report:
    """The report of a run whose ``result`` is its scores, or the reason why it has diverged."""
    if isinstance(result, Scores) and (bad := result.first_bad()) is not None:
        result = f"the {bad} score is not finite"
    values = dict.fromkeys(Report.model_fields.keys() - {"contract_version"}) | {
        "spec_hash": spec_hash(spec),
        "num_params": sum(p.numel() for p in model.parameters()),
        "code_bytes": spec.recipe.artifact.code_bytes,
        **_training(spec, trained),
        **_machine(spec, world, model),
        **_measured(measured),
    }
    if isinstance(result, str):
        values |= {"state": "diverged", "reason": result}
    else:
        values |= {"state": "succeeded", **_scores(spec, result), **_beta(model)}
        values |= _times(spec, trained.train_s, measured.durations_s)
    return Report.model_validate(values)


def write_curve(trained: TrainingResult, spec: RunSpec, path: Path) -> None:
    """One row per step as ``CURVE_COLUMNS``: the loss of its batch before the update.

    Where the recipe validates, the row of step n has the contiguous score after n updates, and a
    row of step 0, which trains nothing, has that of the initial weights.
    """
    validated = {step: (s.loss, s.bpb) for step, s in trained.validations if s.is_finite}
    rows: list[tuple[float | None, ...]] = [(0, 0, 0.0, None, None)] if 0 in validated else []
    batch_tokens = spec.recipe.train.batch_tokens
    rows += [
        (log.step, log.step * batch_tokens, log.elapsed_s, loss, log.lr_mult)
        for log, loss in zip(trained.steps, trained.losses, strict=True)
    ]
    whole = [(*row, *validated.get(int(row[0] or 0), (None, None))) for row in rows]
    write_rows(path, CURVE_COLUMNS, CURVE_TYPES, whole)


def write_layers(rows: Sequence[LayerRow], path: Path) -> None:
    """What was measured of layers, tensors and classes as ``LAYER_COLUMNS``, in this order."""
    write_rows(path, LAYER_COLUMNS, _LAYER_TYPES, rows)


def _training(spec: RunSpec, trained: TrainingResult) -> dict[str, Any]:
    step_ms = sorted(log.step_ms for log in trained.steps)
    last = trained.losses[-max(1, len(trained.losses) // 10) :]
    return {
        "steps": len(trained.steps),
        "tokens": len(trained.steps) * spec.recipe.train.batch_tokens,
        "resumed_from_step": trained.resumed_from_step,
        "train_s": trained.train_s,
        "step_ms_p50": statistics.median(step_ms) if step_ms else None,
        "step_ms_p99": step_ms[math.ceil(0.99 * len(step_ms)) - 1] if step_ms else None,
        "train_loss": statistics.fmean(last) if last and all(map(math.isfinite, last)) else None,
    }


def _scores(spec: RunSpec, scores: Scores) -> dict[str, Any]:
    artifact, slot, packed = spec.recipe.artifact, spec.recipe.slot, scores.packed
    total = scores.model_bytes + artifact.code_bytes
    return {
        "val_tokens": scores.pre.num_tokens,
        "val_bytes": scores.pre.num_bytes,
        "pre_quant_loss": scores.pre.loss,
        "pre_quant_bpb": scores.pre.bpb,
        "post_quant_loss": scores.post.loss,
        "post_quant_bpb": scores.post.bpb,
        "post_quant_sliding_bpb": scores.sliding.bpb,
        "ttt_bpb": scores.ttt and scores.ttt.bpb,
        "slot_bpb": scores.slot and scores.slot.bpb,
        "slot_legal": slot and slot_is_legal(slot),
        "floored_rows": packed.floored_rows,
        "pruned_codes": packed.pruned_codes,
        "gptq_fallbacks": packed.gptq_fallbacks,
        "model_bytes": scores.model_bytes,
        "artifact_bytes": total,
        "fits_cap": total <= artifact.cap_bytes,
    }


def _times(spec: RunSpec, train_s: float, durations_s: Mapping[str, float]) -> dict[str, Any]:
    """What the field limits. A SLOT score that is not legal is not ranked, and does not count."""
    artifact, slot = spec.recipe.artifact, spec.recipe.slot
    ranked_slot_s = durations_s["slot"] if slot is not None and slot_is_legal(slot) else 0.0
    eval_s = durations_s["eval"] + ranked_slot_s
    calibrate_s = durations_s.get("calibrate")
    return {
        "calibrate_s": calibrate_s,
        "eval_s": eval_s,
        "fits_train_cap": train_s + (calibrate_s or 0.0) <= artifact.train_cap_s,
        "fits_eval_cap": eval_s <= artifact.eval_cap_s,
    }


def _beta(model: GPT) -> dict[str, float]:
    """Of β over every layer and channel; absent outside the squared family."""
    betas = [getattr(module, "beta", None) for module in model.activations]
    known = [b.detach().double().flatten() for b in betas if isinstance(b, Tensor)]
    if not known:
        return {}
    beta = torch.cat(known)
    return {"beta_mean": float(beta.mean()), "beta_std": float(beta.std(correction=0))}


def _measured(measured: RunCosts) -> dict[str, Any]:
    durations = {f"{name}_s": measured.durations_s.get(name) for name in DURATIONS}
    probes = {"before": measured.before, "after": measured.after}
    return (
        durations
        | {"peak_memory_bytes": measured.peak_memory_bytes}
        | {"compile_misses": measured.compile_misses}
        | {f"probe_{when}_ms": found and found.matmul_ms for when, found in probes.items()}
        | {f"allreduce_{when}_ms": found and found.allreduce_ms for when, found in probes.items()}
    )


def _machine(spec: RunSpec, world: World, model: GPT) -> dict[str, Any]:
    source = trainer_source()
    return {
        "window": spec.recipe.scoring.seq_len,
        "stride": spec.recipe.scoring.stride,
        "world_size": world.size,
        "device": spec.device,
        "device_name": device_name(world.device),
        "dtype": spec.dtype,
        "attention_backend": model.attention_backend,
        "mlp_backend": model.mlp_backend,
        "corpus_sha256": spec.corpus_sha256,
        "tokenizer_sha256": spec.tokenizer_sha256,
        "recipe_hash": recipe_hash(spec.recipe),
        "trainer_hash": source.sha256,
        "trainer_source_bytes": source.num_bytes,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def device_name(device: torch.device) -> str:
    """The model of the processor or GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return processor_name()
