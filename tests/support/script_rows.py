"""Rows of a sweep over a script that others wrote: null where no script says anything."""

import json

from tests.analysis.conftest import make_row

SLOPES = (0.3, 0.5, 0.9)
SEEDS = (1, 2, 3)
STAGES = (
    *("pre_quant_bpb", "pre_quant_sliding_bpb", "post_quant_bpb", "post_quant_sliding_bpb"),
    *("ttt_bpb", "slot_bpb"),
)
CONTIGUOUS = (2048, 2048)
SLIDING = (2048, 64)
_OURS = (
    *("trainer_hash", "dtype", "num_params", "window", "stride", "val_bytes", "val_tokens"),
    *("beta_mean", "beta_std"),
)


def script_row(slope, seed, footing, **changes):
    """A succeeded cell with the stages that ``footing`` names: their windows, None if unknown."""
    row = make_row("leaky_relu2", slope, seed) | dict.fromkeys(_OURS)
    row |= {stage: None for stage in STAGES if stage not in footing}
    row |= {"recipe": "golf", "script_sha256": "5" * 64, "recipe_hash": "aaaa"}
    return row | {"footing_json": json.dumps(footing)} | changes


def script_rows(footing, **changes):
    """Three slopes under three seeds."""
    return [script_row(slope, seed, footing, **changes) for seed in SEEDS for slope in SLOPES]
