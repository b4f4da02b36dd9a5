"""The schema of an attempt's row: declared, versioned columns.

Additive changes only: a column that an older file lacks reads as null. A column that is renamed or
re-defined raises SCHEMA_VERSION, and a store of a newer version is refused. The dictionary in
``results/README.md`` is generated from this table (``python -m sweep.store.schema``), and that of
the measures of ``layers/`` from the trainer's; a test compares.
"""

from dataclasses import dataclass

import pyarrow as pa

from trainer.contract import LAYER_MEASURES

SCHEMA_VERSION = 1
VERSION_KEY = b"activation_sweep_schema_version"

TERMINAL_STATES = ("succeeded", "diverged")
FAILED_STATES = ("failed", "oom", "hung", "lost", "interrupted")
STATES = TERMINAL_STATES + FAILED_STATES
FAILURES = ("cell", "memory", "infrastructure", "hang", "preemption", "driver", "user")

# One stage is named before any result is seen, and only its ranking is tested: four tested stages
# would be four chances to find a winner. It is the first of these that the recipe scores: the very
# first in every recipe of our own. The recipe of a script says which stages it prints, and a cell
# that lacks one of them fails, so no result decides it.
TESTED = ("post_quant_sliding_bpb", "post_quant_bpb", "ttt_bpb", "pre_quant_bpb")


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its Arrow type, its unit ("" for none) and what it means."""

    name: str
    type: pa.DataType
    unit: str
    meaning: str


_TEXT, _INT, _REAL, _FLAG = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_TIME = pa.timestamp("us", tz="UTC")

IDENTITY = (
    Column("sweep", _TEXT, "", "name of the sweep file"),
    Column(
        "cell", _TEXT, "", "name that people read and type: activation, seed, budget, further axes"
    ),
    Column("cell_id", _TEXT, "", "hash of everything that changes the cell's answer"),
    Column("recipe", _TEXT, "", "name of the recipe"),
    Column("activation", _TEXT, "", "name of the activation in the table of trainer/activations"),
    Column("params_json", _TEXT, "", "every parameter of the activation that was given, as JSON"),
    Column("slope", _REAL, "", "negative slope s of leaky_relu2; null for every other activation"),
    Column(
        "neg_beta",
        _REAL,
        "",
        "fixed factor of x² for x ≤ 0: s² for leaky_relu2, 0 for relu2; null if there is not one",
    ),
    Column("seed", _INT, "", "seed of the initial weights"),
    Column("replicate", _INT, "", "counts cells that differ in nothing else, from 0"),
    Column("budget_kind", _TEXT, "", "steps or seconds"),
    Column("budget_value", _REAL, "steps or s", "size of the training budget"),
    Column("set_json", _TEXT, "", "recipe values that this sweep varies, as JSON; {} if none"),
    Column("order_position", _INT, "", "position in the sweep's order of execution, from 0"),
    Column(
        "block", _TEXT, "", "block of the design: one seed and budget, all activations, shuffled"
    ),
)

OUTCOME = (
    Column(
        "state",
        _TEXT,
        "",
        "succeeded or diverged (terminal); failed, oom, hung, lost or interrupted",
    ),
    Column(
        "reason",
        _TEXT,
        "",
        "why the state is not succeeded; null if it is. In cells.parquet it also says if another "
        "attempt at a diverged cell succeeded, and what often being preempted has cost",
    ),
    Column(
        "failure",
        _TEXT,
        "",
        "class of a failure, which decides on its retries: cell, memory, infrastructure, hang, "
        "preemption, driver or user; null where the state is terminal",
    ),
    Column(
        "failure_signature",
        _TEXT,
        "",
        "what failures that are alike share: the last line of the traceback and where it came "
        "from, without numbers; null where there is no traceback",
    ),
    Column(
        "to_confirm",
        _FLAG,
        "",
        "whether a divergence is to be confirmed on another node before it settles the cell; null "
        "unless diverged",
    ),
    Column(
        "tainted",
        _FLAG,
        "",
        "the attempt's timing was disturbed, by a signal that does not depend on its activation",
    ),
    Column("taint_reason", _TEXT, "", "the signal that tainted it; null if none"),
    Column("attempt", _INT, "", "number of this attempt at the cell, from 1"),
    Column("num_attempts", _INT, "", "attempts made at the cell so far (cells.parquet only)"),
    Column(
        "generation",
        _INT,
        "",
        "0, and one more for every refresh with changed trainer code; the latest one that settled "
        "the cell gives its row",
    ),
    Column("why", _TEXT, "", "why this attempt was made"),
    Column(
        "node",
        _TEXT,
        "",
        "node that ran it: its Ray label activation-sweep-node, else its host name",
    ),
    Column("node_id", _TEXT, "", "Ray's id of that node, which changes when Ray is restarted"),
    Column("driver", _TEXT, "", "which driver made the attempt: process, host, start"),
    Column("started_at", _TIME, "", "when the attempt was announced"),
    Column("ended_at", _TIME, "", "when the attempt was closed"),
    Column(
        "log", _TEXT, "", "log of the attempt, relative to the sweep's folder; null if none came"
    ),
)

TRAINING = (
    Column("steps", _INT, "steps", "optimizer updates taken"),
    Column("tokens", _INT, "tokens", "training targets seen"),
    Column(
        "resumed_from_step",
        _INT,
        "steps",
        "updates that an earlier attempt had taken when it left the checkpoint this one went on "
        "from; null where it started from zero",
    ),
    Column("train_s", _REAL, "s", "training time that counts against the budget"),
    Column(
        "step_ms_p50",
        _REAL,
        "ms",
        "median time of a step; of a script over the steps between those that it prints",
    ),
    Column("step_ms_p99", _REAL, "ms", "99th percentile of the time of a step"),
    Column(
        "train_loss",
        _REAL,
        "nats/token",
        "mean training loss of the last tenth of the steps, of a script of those that it prints",
    ),
    Column("num_params", _INT, "", "parameters, learned activation parameters included"),
    Column("beta_mean", _REAL, "", "mean of the factor of x² for x ≤ 0 over layers and channels"),
    Column("beta_std", _REAL, "", "its standard deviation over layers and channels"),
)

SCORES = (
    Column("val_tokens", _INT, "tokens", "validation targets, each scored exactly once"),
    Column("val_bytes", _INT, "bytes", "bytes of text that those targets stand for"),
    Column("window", _INT, "tokens", "length of a scoring window"),
    Column("stride", _INT, "tokens", "stride of sliding scores; contiguous scores use window"),
    Column("pre_quant_loss", _REAL, "nats/token", "averaged weights, contiguous windows"),
    Column("pre_quant_bpb", _REAL, "bits/byte", "averaged weights, contiguous windows"),
    Column(
        "pre_quant_sliding_bpb",
        _REAL,
        "bits/byte",
        "averaged weights, sliding windows; null where not scored",
    ),
    Column("post_quant_loss", _REAL, "nats/token", "weights read back, contiguous windows"),
    Column("post_quant_bpb", _REAL, "bits/byte", "weights read back, contiguous windows"),
    Column("post_quant_sliding_bpb", _REAL, "bits/byte", "weights read back, sliding windows"),
    Column(
        "ttt_bpb",
        _REAL,
        "bits/byte",
        "weights read back, sliding windows, adapted on what is already scored: every parameter "
        "that the recipe does not freeze, learned β among them",
    ),
    Column(
        "slot_bpb",
        _REAL,
        "bits/byte",
        "sliding windows, a fitted shift of the hidden states added; never ranked if not legal",
    ),
    Column(
        "slot_legal",
        _FLAG,
        "",
        "whether that shift was fitted on targets already scored; null where there is no SLOT",
    ),
    Column(
        "footing_json",
        _TEXT,
        "",
        "of a script: window and stride of each score by its column, null where its recipe does "
        "not say them, as JSON; null for our own trainer, whose windows are those of its row",
    ),
)

ARTIFACT = (
    Column("floored_rows", _REAL, "fraction", "quantized rows whose scale is the recipe's floor"),
    Column("pruned_codes", _INT, "", "codes set to zero for the size; null where not asked for"),
    Column("gptq_fallbacks", _INT, "", "matrices that GPTQ left to int6_row; null without GPTQ"),
    Column("model_bytes", _INT, "bytes", "size of artifact.bin"),
    Column("code_bytes", _INT, "bytes", "size charged for code, a value of the recipe"),
    Column("trainer_source_bytes", _INT, "bytes", "size of the trainer's source files"),
    Column("artifact_bytes", _INT, "bytes", "model_bytes + code_bytes"),
    Column("fits_cap", _FLAG, "", "artifact_bytes is at most the recipe's cap of 16,000,000"),
    Column("fits_train_cap", _FLAG, "", "train_s + calibrate_s is at most the recipe's 600 s"),
    Column("fits_eval_cap", _FLAG, "", "eval_s is at most the recipe's 600 s"),
)

MACHINE = (
    Column("world_size", _INT, "", "rank processes"),
    Column("device", _TEXT, "", "cpu or cuda"),
    Column("device_name", _TEXT, "", "model of the processor or GPU"),
    Column("dtype", _TEXT, "", "float32 or bfloat16"),
    Column("attention_backend", _TEXT, "", "which attention ran"),
    Column(
        "mlp_backend",
        _TEXT,
        "",
        "which MLP trained: triton_fused, or that of torch, compiled or not",
    ),
    Column(
        "compile_misses",
        _INT,
        "",
        "graphs and kernels that rank 0 compiled or traced for want of a kept one; null where "
        "nothing is compiled",
    ),
    Column(
        "peak_memory_bytes", _INT, "bytes", "peak memory of rank 0, of the device if it has any"
    ),
    Column("setup_s", _REAL, "s", "process start to first step, without warm-up"),
    Column("warmup_s", _REAL, "s", "warm-up steps, outside the budget"),
    Column("score_s", _REAL, "s", "pre-quant, post-quant and sliding scores"),
    Column("ttt_s", _REAL, "s", "adapting and scoring"),
    Column("slot_s", _REAL, "s", "fitting shifts and scoring"),
    Column("pack_s", _REAL, "s", "quantizing, compressing, writing and reading back"),
    Column(
        "overlap_s",
        _REAL,
        "s",
        "of pack_s and mechanism_s, what went on beside scoring; null if all came before",
    ),
    Column(
        "idle_s",
        _REAL,
        "s",
        "GPUs waiting for either after the last score; null if all came before",
    ),
    Column("calibrate_s", _REAL, "s", "the text that GPTQ calibrates on and its Hessians"),
    Column("eval_s", _REAL, "s", "from reading the artifact to the last ranked score"),
    Column("mechanism_s", _REAL, "s", "measuring what layers.parquet holds, outside the budget"),
)

TIMING = (
    Column("probe_before_ms", _REAL, "ms", "median time of a fixed matmul before training"),
    Column("probe_after_ms", _REAL, "ms", "the same after the last score"),
    Column("allreduce_before_ms", _REAL, "ms", "median time of a fixed all-reduce; null on 1 rank"),
    Column("allreduce_after_ms", _REAL, "ms", "the same after the last score; null on 1 rank"),
    Column("telemetry_samples", _INT, "", "readings of the GPUs, one a second; null without NVML"),
    Column("sm_clock_mhz_p50", _REAL, "MHz", "median clock over readings and GPUs in training"),
    Column("sm_clock_mhz_min", _REAL, "MHz", "lowest clock of any GPU in training"),
    Column("power_w_mean", _REAL, "W", "mean power of a GPU in training"),
    Column("temperature_c_max", _REAL, "°C", "highest temperature of any GPU in training"),
    Column(
        "throttled_fraction",
        _REAL,
        "fraction",
        "readings in training in which a GPU was slowed by heat or by the hardware",
    ),
    Column(
        "foreign_fraction",
        _REAL,
        "fraction",
        "readings in training that showed a process of others on a GPU; null where not told",
    ),
    Column("gpu_uuids", _TEXT, "", "the GPUs, comma-separated; null without NVML"),
    Column("gpu_driver", _TEXT, "", "version of the GPU driver; null without NVML"),
)

PROVENANCE = (
    Column("corpus_sha256", _TEXT, "", "hash of the documents and their split"),
    Column("tokenizer_sha256", _TEXT, "", "hash of the tokenizer's file"),
    Column("recipe_hash", _TEXT, "", "hash of the resolved recipe"),
    Column("trainer_hash", _TEXT, "", "hash of the trainer's source files; null for a script"),
    Column(
        "script_sha256",
        _TEXT,
        "",
        "hash of the files that ran, patches applied; null for our own trainer",
    ),
    Column("revision", _TEXT, "", "git commit of the driver; null outside a checkout"),
    Column("dirty", _FLAG, "", "the checkout had uncommitted changes; null outside a checkout"),
    Column("python", _TEXT, "", "version of Python"),
    Column("torch", _TEXT, "", "version of torch"),
    Column("ray", _TEXT, "", "version of Ray"),
    Column("source", _TEXT, "", "measured here, or published elsewhere"),
    Column("evidence", _TEXT, "", "what stands behind the row: the attempt's file, or a citation"),
    Column("config_json", _TEXT, "", "the run specification without paths, as JSON"),
)

GROUPS = {
    "Which cell": IDENTITY,
    "What became of it": OUTCOME,
    "Training": TRAINING,
    "Scores": SCORES,
    "Artifact": ARTIFACT,
    "Machine": MACHINE,
    "Timing of the node": TIMING,
    "Provenance": PROVENANCE,
}
COLUMNS = tuple(column for group in GROUPS.values() for column in group)

SCHEMA = pa.schema(
    [pa.field(column.name, column.type) for column in COLUMNS],
    metadata={VERSION_KEY: str(SCHEMA_VERSION).encode()},
)


def dictionary_markdown() -> str:
    """The tables of ``results/README.md``, one per group of columns."""
    lines: list[str] = []
    for title, columns in GROUPS.items():
        lines += [f"### {title}", "", "| column | type | unit | meaning |", "|---|---|---|---|"]
        for column in columns:
            kind = str(column.type).replace("timestamp[us, tz=UTC]", "timestamp (UTC)")
            lines.append(f"| `{column.name}` | {kind} | {column.unit} | {column.meaning} |")
        lines.append("")
    return "\n".join(lines)


def measures_markdown() -> str:
    """The table of ``results/README.md`` that says what ``layers/`` measures."""
    lines = ["| measure | kind | unit | meaning |", "|---|---|---|---|"]
    for name, measure in LAYER_MEASURES.items():
        lines.append(f"| `{name}` | {measure.kind} | {measure.unit} | {measure.meaning} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    print(dictionary_markdown())
    print(measures_markdown())
