"""What goes into a run and what comes out of it: these files, and these are their fields.

``spec.json`` (a :class:`RunSpec`) goes in; ``report.json`` (a :class:`Report`), ``curve.parquet``,
``artifact.bin`` and, of a success, ``layers.parquet`` come out. Whoever starts a run, a person or a
driver, writes the same specification and reads the same report. Imports no torch.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import Field, NonNegativeFloat, NonNegativeInt, field_validator, model_validator

from trainer.activations import activation_label, check_activation, check_num_layers, neg_beta
from trainer.budget import Budget, Seconds, Steps, parse_budget
from trainer.config import Recipe, ScriptRecipe
from trainer.config.config_errors import ConfigError, StrictModel, parse_object, require, validated
from trainer.layer_measures import LAYER_MEASURES as LAYER_MEASURES
from trainer.layer_measures import Measure as Measure

CONTRACT_VERSION: Final = 1

SPEC_FILE = "spec.json"
REPORT_FILE = "report.json"
CURVE_FILE = "curve.parquet"
ARTIFACT_FILE = "artifact.bin"
LAYERS_FILE = "layers.parquet"
PROGRESS_FILE = "progress.json"
ENDS_FILE = "ends.json"
KEPT_FOLDER = "kept"
OUTPUT_FILES = (REPORT_FILE, CURVE_FILE, ARTIFACT_FILE, LAYERS_FILE)

EXIT_REPORTED = 0
EXIT_BAD_INPUT = 2
EXIT_OUT_OF_MEMORY = 12  # ENOMEM
EXIT_STOPPED = 143  # 128 + SIGTERM, with a checkpoint; any other status is a crash

CURVE_COLUMNS = ("step", "tokens", "train_s", "train_loss", "lr_mult", "val_loss", "val_bpb")
STAGE_COLUMNS = {
    "pre_quant": "pre_quant_bpb",
    "post_quant": "post_quant_bpb",
    "sliding": "post_quant_sliding_bpb",
    "ttt": "ttt_bpb",
    "slot": "slot_bpb",
}
LAYER_COLUMNS = ("kind", "name", "layer", "measure", "value")

S = TypeVar("S", bound="CellSpec")
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class ActivationSpec(StrictModel):
    """An activation by name, with the parameters that its table entry asks for."""

    name: str
    params: dict[str, float | list[float]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known(self) -> "ActivationSpec":
        check_activation(self.name, self.params)
        return self

    @property
    def label(self) -> str:
        return activation_label(self.name, self.params)


class CellSpec(StrictModel):
    """One question: this recipe, this activation, this seed, this budget, on this data."""

    contract_version: Literal[1] = CONTRACT_VERSION
    recipe_name: str
    activation: ActivationSpec
    seed: Seed
    budget: str
    replicate: NonNegativeInt = 0
    device: Literal["cpu", "cuda"]
    data_dir: str
    corpus_sha256: Sha256
    tokenizer_sha256: Sha256
    threads: Annotated[int, Field(ge=1)] = 1

    @field_validator("budget")
    @classmethod
    def _budget_has_one_spelling(cls, text: str) -> str:
        return str(parse_budget(text))

    @property
    def parsed_budget(self) -> Budget:
        return parse_budget(self.budget)

    @property
    def neg_beta(self) -> float | None:
        """The fixed factor of x² for x ≤ 0; None if it is none, or not one number."""
        return neg_beta(self.activation.name, self.activation.params)


class RunSpec(CellSpec):
    """A question to our own trainer."""

    recipe: Recipe
    dtype: Literal["float32", "bfloat16"]
    log_every: Annotated[int, Field(ge=1)] = 10

    @property
    def training_budget(self) -> Budget:
        """What of the budget is left for training: GPTQ's reserve of seconds is not."""
        budget, reserve_s = self.parsed_budget, self.recipe.quantization.gptq.reserve_s
        if isinstance(budget, Steps) or self.recipe.quantization.matrices != "gptq":
            return budget
        return Seconds(budget.seconds - reserve_s)

    @model_validator(mode="after")
    def _each_layer_has_a_value(self) -> "RunSpec":
        layers = self.recipe.model.num_layers
        check_num_layers(self.activation.name, self.activation.params, layers)
        return self

    @model_validator(mode="after")
    def _reserve_leaves_something(self) -> "RunSpec":
        reserve_s = self.recipe.quantization.gptq.reserve_s
        if (
            self.recipe.quantization.matrices == "gptq"
            and isinstance(self.parsed_budget, Seconds)
            and self.parsed_budget.seconds <= reserve_s
        ):
            raise ValueError(
                f"budget {self.budget} with quantization.gptq.reserve_s = {reserve_s:g}: nothing "
                f"is left for training. Give a longer budget or a shorter reserve."
            )
        return self


class ScriptSpec(CellSpec):
    """A question to a script of the user's own, on so many ranks; ``axes`` fill placeholders."""

    recipe: ScriptRecipe
    axes: dict[str, Any] = Field(default_factory=dict)
    ranks: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _has_no_list(self) -> "ScriptSpec":
        lists = [key for key, value in self.activation.params.items() if isinstance(value, list)]
        require(
            not lists,
            f"activation {self.activation.name}: {', '.join(lists)}: a recipe of a script has no "
            f"placeholder for a list, and does not say how many layers there are. Leave it out of "
            f"this sweep, or run it with a recipe of our trainer.",
        )
        return self


class Report(StrictModel):
    """The answer of one run. Durations in seconds, sizes in bytes, losses in nats per token.

    A diverged run is an answer too: its scores are absent and ``reason`` says what happened.
    """

    contract_version: Literal[1] = CONTRACT_VERSION
    spec_hash: str
    state: Literal["succeeded", "diverged"]
    reason: str | None
    steps: NonNegativeInt
    tokens: NonNegativeInt
    resumed_from_step: NonNegativeInt | None
    train_s: NonNegativeFloat
    step_ms_p50: NonNegativeFloat | None
    step_ms_p99: NonNegativeFloat | None
    train_loss: float | None
    val_tokens: NonNegativeInt | None
    val_bytes: NonNegativeInt | None
    window: NonNegativeInt
    stride: NonNegativeInt
    pre_quant_loss: NonNegativeFloat | None
    pre_quant_bpb: NonNegativeFloat | None
    pre_quant_sliding_bpb: NonNegativeFloat | None
    post_quant_loss: NonNegativeFloat | None
    post_quant_bpb: NonNegativeFloat | None
    post_quant_sliding_bpb: NonNegativeFloat | None
    ttt_bpb: NonNegativeFloat | None
    slot_bpb: NonNegativeFloat | None
    slot_legal: bool | None
    beta_mean: float | None
    beta_std: NonNegativeFloat | None
    floored_rows: Annotated[float, Field(ge=0.0, le=1.0)] | None
    pruned_codes: NonNegativeInt | None
    gptq_fallbacks: NonNegativeInt | None
    num_params: NonNegativeInt
    model_bytes: NonNegativeInt | None
    code_bytes: NonNegativeInt
    trainer_source_bytes: NonNegativeInt
    artifact_bytes: NonNegativeInt | None
    fits_cap: bool | None
    world_size: Annotated[int, Field(ge=1)]
    device: str
    device_name: str
    dtype: str
    attention_backend: str
    mlp_backend: str
    compile_misses: NonNegativeInt | None
    peak_memory_bytes: NonNegativeInt
    setup_s: NonNegativeFloat
    warmup_s: NonNegativeFloat
    score_s: NonNegativeFloat | None
    ttt_s: NonNegativeFloat | None
    slot_s: NonNegativeFloat | None
    pack_s: NonNegativeFloat | None
    overlap_s: NonNegativeFloat | None
    idle_s: NonNegativeFloat | None
    mechanism_s: NonNegativeFloat | None
    calibrate_s: NonNegativeFloat | None
    eval_s: NonNegativeFloat | None
    fits_train_cap: bool | None
    fits_eval_cap: bool | None
    probe_before_ms: NonNegativeFloat | None
    probe_after_ms: NonNegativeFloat | None
    allreduce_before_ms: NonNegativeFloat | None
    allreduce_after_ms: NonNegativeFloat | None
    corpus_sha256: Sha256
    tokenizer_sha256: Sha256
    recipe_hash: str
    trainer_hash: str
    python: str
    torch: str

    @model_validator(mode="after")
    def _success_has_scores(self) -> "Report":
        if self.state == "succeeded":
            required = (
                "val_tokens",
                "val_bytes",
                "pre_quant_bpb",
                "post_quant_bpb",
                "post_quant_sliding_bpb",
                "model_bytes",
                "artifact_bytes",
            )
            absent = [name for name in required if getattr(self, name) is None]
            if absent:
                raise ValueError(f"state is succeeded but {', '.join(absent)} is absent.")
        elif self.reason is None:
            raise ValueError("state is diverged but reason is absent.")
        return self


class ScriptReport(StrictModel):
    """The answer of a script: what it printed and what was measured of it, None where neither was.

    ``footing`` is (window, stride) of each score by its column, None where the recipe does not say.
    """

    contract_version: Literal[1] = CONTRACT_VERSION
    spec_hash: str
    state: Literal["succeeded", "diverged"]
    reason: str | None = None
    steps: NonNegativeInt | None = None
    tokens: NonNegativeInt | None = None
    train_s: NonNegativeFloat | None = None
    step_ms_p50: NonNegativeFloat | None = None
    train_loss: float | None = None
    val_tokens: NonNegativeInt | None = None
    window: NonNegativeInt | None = None
    stride: NonNegativeInt | None = None
    footing: dict[str, Annotated[tuple[int, int], Field(strict=False)] | None]
    pre_quant_loss: NonNegativeFloat | None = None
    pre_quant_bpb: NonNegativeFloat | None = None
    post_quant_loss: NonNegativeFloat | None = None
    post_quant_bpb: NonNegativeFloat | None = None
    post_quant_sliding_bpb: NonNegativeFloat | None = None
    ttt_bpb: NonNegativeFloat | None = None
    slot_bpb: NonNegativeFloat | None = None
    slot_legal: bool | None = None
    num_params: NonNegativeInt | None = None
    model_bytes: NonNegativeInt | None = None
    code_bytes: NonNegativeInt | None = None
    artifact_bytes: NonNegativeInt | None = None
    fits_cap: bool | None = None
    eval_s: NonNegativeFloat | None = None
    fits_train_cap: bool | None = None
    fits_eval_cap: bool | None = None
    world_size: Annotated[int, Field(ge=1)]
    device: str
    device_name: str | None = None
    peak_memory_bytes: NonNegativeInt | None = None
    corpus_sha256: Sha256
    tokenizer_sha256: Sha256
    recipe_hash: str
    script_sha256: Sha256
    python: str
    torch: str | None

    @model_validator(mode="after")
    def _success_has_a_score(self) -> "ScriptReport":
        scores = [getattr(self, name) for name in STAGE_COLUMNS.values()]
        if self.state == "succeeded" and not any(scores):
            raise ValueError("state is succeeded but there is no score.")
        if self.state == "diverged" and self.reason is None:
            raise ValueError("state is diverged but reason is absent.")
        return self


def read_spec(path: Path) -> RunSpec:
    """The specification in ``path``; a ConfigError says what is wrong with it."""
    return _read_spec(path, RunSpec)


def read_script_spec(path: Path) -> ScriptSpec:
    """The same of a script's."""
    return _read_spec(path, ScriptSpec)


def _read_spec(path: Path, kind: type[S]) -> S:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: this cannot be read ({error.strerror}).") from None
    return validated(kind, parse_object(text, str(path)), str(path))


def parse_report(text: str) -> Report:
    """The report in ``text``; a ConfigError if it is not a whole one."""
    return validated(Report, parse_object(text, REPORT_FILE), REPORT_FILE)


def parse_script_report(text: str) -> ScriptReport:
    """The same of a script's."""
    return validated(ScriptReport, parse_object(text, REPORT_FILE), REPORT_FILE)


def canonical_json(value: Any) -> str:
    """JSON that is equal exactly where the values mean the same: sorted, 12 significant digits.

    >>> canonical_json({"b": 0.1 + 0.2, "a": 1})
    '{"a":1,"b":0.3}'
    """
    return json.dumps(_rounded(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def short_hash(value: Any) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of ``value``'s canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


def recipe_hash(recipe: Recipe | ScriptRecipe) -> str:
    """What the recipe says, not what it is called."""
    if isinstance(recipe, ScriptRecipe):
        return short_hash(recipe.identity())
    return short_hash(recipe.model_dump(mode="json", exclude_defaults=True))


def spec_values(spec: CellSpec, *without: str) -> dict[str, Any]:
    """What ``spec`` asks, as plain values: defaults left out, and of a script its bytes' hash."""
    values = spec.model_dump(mode="json", exclude=set(without), exclude_defaults=True)
    return values | ({"recipe": spec.recipe.identity()} if isinstance(spec, ScriptSpec) else {})


def spec_hash(spec: CellSpec) -> str:
    """Which question a report answers: everything in the specification but where the data lies."""
    return short_hash(spec_values(spec, "data_dir"))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.12g}") + 0.0  # −0 means 0
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return value
