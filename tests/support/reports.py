"""What a trainer would deliver for a cell, without training: a function of the spec."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq

from sweep.messages import Delivery, Order
from trainer.contract import CURVE_COLUMNS, RunSpec, recipe_hash, spec_hash

ARTIFACT = b"artifact"
LAYERS = b"layers"


def report_values(spec: RunSpec, **changes: object) -> dict[str, object]:
    """A report of ``spec`` whose scores depend on activation and seed alone."""
    slope = spec.activation.params.get("slope", 0.0)
    bpb = 2.0 + 0.01 * (slope - 0.6) ** 2 + 0.001 * (spec.seed % 7)
    recipe = spec.recipe
    return {
        "spec_hash": spec_hash(spec),
        "state": "succeeded",
        "reason": None,
        "steps": 4,
        "tokens": 1024,
        "train_s": 1.0,
        "step_ms_p50": 250.0,
        "step_ms_p99": 260.0,
        "train_loss": 3.0,
        "val_tokens": 512,
        "val_bytes": 1000,
        "window": recipe.scoring.seq_len,
        "stride": recipe.scoring.stride,
        "pre_quant_loss": 3.0,
        "pre_quant_bpb": bpb,
        "pre_quant_sliding_bpb": None,
        "post_quant_loss": 3.1,
        "post_quant_bpb": bpb + 0.01,
        "post_quant_sliding_bpb": bpb - 0.02,
        "ttt_bpb": bpb - 0.03,
        "slot_bpb": None,
        "slot_legal": None,
        "beta_mean": 0.25,
        "beta_std": 0.0,
        "floored_rows": 0.0,
        "pruned_codes": None,
        "gptq_fallbacks": None,
        "num_params": 1000,
        "model_bytes": len(ARTIFACT),
        "code_bytes": recipe.artifact.code_bytes,
        "trainer_source_bytes": 100,
        "artifact_bytes": len(ARTIFACT) + recipe.artifact.code_bytes,
        "fits_cap": True,
        "fits_train_cap": True,
        "fits_eval_cap": True,
        "world_size": 1,
        "device": spec.device,
        "device_name": "fake",
        "dtype": spec.dtype,
        "attention_backend": "torch_sdpa",
        "mlp_backend": "torch",
        "compile_misses": None,
        "peak_memory_bytes": 1,
        "setup_s": 1.0,
        "warmup_s": 0.1,
        "score_s": 0.1,
        "ttt_s": 0.1,
        "slot_s": None,
        "pack_s": 0.1,
        "overlap_s": None,
        "idle_s": None,
        "mechanism_s": 0.1,
        "calibrate_s": None,
        "eval_s": 0.4,
        "resumed_from_step": None,
        "probe_before_ms": None,
        "probe_after_ms": None,
        "allreduce_before_ms": None,
        "allreduce_after_ms": None,
        "corpus_sha256": spec.corpus_sha256,
        "tokenizer_sha256": spec.tokenizer_sha256,
        "recipe_hash": recipe_hash(recipe),
        "trainer_hash": "0" * 64,
        "python": "3.11",
        "torch": "2.13.0",
        **changes,
    }


def delivered(order: Order, **changes: object) -> Delivery:
    """A delivery whose report has ``changes``."""
    spec = RunSpec.model_validate_json(order.spec_json)
    return Delivery(
        state="succeeded",
        reason=None,
        report=json.dumps(report_values(spec, **changes)),
        curve=b"curve",
        artifact=ARTIFACT,
        layers=LAYERS,
        log="a line\n",
    )


def failed(
    state: str, reason: str, failure: str = "cell", signature: str | None = None
) -> Delivery:
    """A delivery without an answer."""
    return Delivery(
        state=state,
        reason=reason,
        report=None,
        curve=None,
        artifact=None,
        log="Traceback\n",
        failure=failure,
        signature=signature,
    )


def curve_of(*points: dict[str, object]) -> bytes:
    """A curve as the trainer writes it."""
    columns = {name: [point.get(name) for point in points] for name in CURVE_COLUMNS}
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()
