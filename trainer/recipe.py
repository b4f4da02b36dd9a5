"""What does a recipe hold constant? Everything but the activation, the seed and the budget.

A recipe is a TOML file under ``configs/recipes/``. Every value can be reached as ``section.key``
(``--set optim.matrix_lr=0.03`` on a command line, ``[grid.set]`` in a sweep file), and an unknown
key is an error. Sources of the mathematics behind each value: docs/recipes.md.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StrictInt, model_validator

from trainer.strict import ConfigError, Strict, build, find_config, read_toml

RECIPES = Path(__file__).resolve().parents[1] / "configs" / "recipes"

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(ge=0.0)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class Bigram(Strict):
    """A hashed embedding of the last two tokens, added to the token embedding."""

    vocab_size: Annotated[int, Field(ge=2)]
    dim: Positive
    scale: float = 0.05


class ValueEmbedding(Strict):
    """A second token embedding, added to the attention values of some layers."""

    layers: Annotated[tuple[StrictInt, ...], Field(strict=False, min_length=1)]
    dim: Positive
    scale: float = 0.1
    init_std: float = 0.01


class Model(Strict):
    vocab_size: Annotated[int, Field(ge=4, le=65536)]
    num_layers: Annotated[int, Field(ge=2)]
    width: Positive
    num_heads: Positive
    num_kv_heads: Positive
    mlp_hidden: Positive
    rope_dims: Annotated[int, Field(ge=2)]
    rope_base: Annotated[float, Field(gt=0.0)] = 10000.0
    qk_gain: float = 1.5
    xsa_last_layers: Count = 0
    smear_gate: bool = False
    layer_scale: Literal["none", "inverse_sqrt_depth"] = "none"
    logit_softcap: Annotated[float, Field(gt=0.0)] = 30.0
    embed_init_std: float = 0.005
    orthogonal_min_dim: Positive = 64
    bigram: Bigram | None = None
    value_embedding: ValueEmbedding | None = None

    @property
    def head_dim(self) -> int:
        return self.width // self.num_heads

    @property
    def kv_dim(self) -> int:
        return self.num_kv_heads * self.head_dim

    @model_validator(mode="after")
    def _divides(self) -> "Model":
        _require(
            self.width % self.num_heads == 0,
            f"width {self.width} is not divisible by num_heads {self.num_heads}: "
            f"change one of them so that every head has the same whole number of dimensions.",
        )
        _require(
            self.num_heads % self.num_kv_heads == 0,
            f"num_heads {self.num_heads} is not divisible by num_kv_heads {self.num_kv_heads}: "
            f"each key-value head serves the same number of query heads.",
        )
        _require(
            self.rope_dims % 2 == 0 and self.rope_dims <= self.head_dim,
            f"rope_dims {self.rope_dims} must be even and at most the head dimension "
            f"{self.head_dim} (width {self.width} / num_heads {self.num_heads}).",
        )
        _require(
            self.xsa_last_layers <= self.num_layers,
            f"xsa_last_layers {self.xsa_last_layers} is more than num_layers {self.num_layers}.",
        )
        if self.value_embedding is not None:
            outside = [i for i in self.value_embedding.layers if not 0 <= i < self.num_layers]
            _require(
                len(set(self.value_embedding.layers)) == len(self.value_embedding.layers),
                f"value_embedding.layers {list(self.value_embedding.layers)} names a layer twice.",
            )
            _require(
                not outside,
                f"value_embedding.layers {outside} do not exist: "
                f"layers are numbered 0 to {self.num_layers - 1}.",
            )
        return self


class Train(Strict):
    seq_len: Positive
    batch_tokens: Positive
    micro_steps: Positive
    warmup_steps: Count
    warmdown_steps: Count
    grad_clip: Annotated[float, Field(gt=0.0)] | None = None

    @model_validator(mode="after")
    def _divides(self) -> "Train":
        _require(
            self.batch_tokens % (self.micro_steps * self.seq_len) == 0,
            f"batch_tokens {self.batch_tokens} is not divisible by micro_steps {self.micro_steps} "
            f"x seq_len {self.seq_len}: every micro-step holds a whole number of sequences.",
        )
        return self


class Optim(Strict):
    matrix_lr: Rate
    embed_lr: Rate
    scalar_lr: Rate
    activation_lr: Rate = 0.001
    weight_decay: Rate = 0.0
    adam_beta1: Fraction = 0.9
    adam_beta2: Fraction = 0.95
    adam_eps: Annotated[float, Field(gt=0.0)] = 1e-8
    muon_momentum: Fraction = 0.95
    muon_momentum_start: Fraction = 0.85
    muon_momentum_warmup_steps: Count = 0
    newton_schulz_steps: Positive = 5


class Averaging(Strict):
    kind: Literal["none", "ema"]
    decay: Fraction | None = None

    @model_validator(mode="after")
    def _decay_goes_with_ema(self) -> "Averaging":
        _require(
            (self.decay is not None) == (self.kind == "ema"),
            f'kind = "{self.kind}" with decay = {self.decay}: an EMA needs a decay such as 0.997, '
            f'and kind = "none" takes none.',
        )
        return self


class Quantization(Strict):
    matrices: Literal["int6_row", "int8_row"]
    embeddings: Literal["int6_row", "int8_row"]
    passthrough_numel: Count
    compressor: Literal["lzma", "zlib"]
    preset: Annotated[int, Field(ge=0, le=9)]
    scale_floor: Annotated[float, Field(gt=0.0)] | None = None


class Scoring(Strict):
    seq_len: Positive
    stride: Positive
    batch_seqs: Positive
    max_targets: Positive | None = None

    @model_validator(mode="after")
    def _divides(self) -> "Scoring":
        _require(
            self.stride <= self.seq_len and self.seq_len % self.stride == 0,
            f"stride {self.stride} does not divide seq_len {self.seq_len}.",
        )
        _require(
            self.max_targets is None or self.max_targets >= self.seq_len,
            f"max_targets {self.max_targets} is less than one window of seq_len {self.seq_len}.",
        )
        return self


class TTT(Strict):
    lr: Rate
    momentum: Fraction
    epochs: Positive
    chunk_tokens: Positive
    batch_seqs: Positive
    grad_clip: Annotated[float, Field(gt=0.0)] | None = None


class Artifact(Strict):
    code_bytes: Count
    cap_bytes: Positive = 16_000_000


class Data(Strict):
    dataset: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]


class Recipe(Strict):
    """One point in the space of everything that a sweep holds fixed."""

    data: Data
    model: Model
    train: Train
    optim: Optim
    averaging: Averaging
    quantization: Quantization
    scoring: Scoring
    artifact: Artifact
    ttt: TTT | None = None

    @model_validator(mode="after")
    def _ttt_fits_scoring(self) -> "Recipe":
        if self.ttt is not None:
            _require(
                self.ttt.chunk_tokens % self.scoring.seq_len == 0,
                f"ttt.chunk_tokens {self.ttt.chunk_tokens} is not divisible by scoring.seq_len "
                f"{self.scoring.seq_len}: a chunk is adapted on in whole sequences.",
            )
        return self


def load_recipe(name_or_path: str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe of that name or file, with ``section.key`` overrides applied."""
    path = find_config(name_or_path, RECIPES, "recipe")
    table = read_toml(path)
    for key, value in (overrides or {}).items():
        _put(table, key, value)
    return build(Recipe, table, f"recipe {path.stem}")


def parse_override(text: str) -> tuple[str, Any]:
    """``section.key=value`` as a key and a value, which is read as TOML.

    Nothing after the equals sign leaves an optional value or table out: the value is None.

    >>> parse_override("optim.matrix_lr=0.03"), parse_override("averaging.kind=none")
    (('optim.matrix_lr', 0.03), ('averaging.kind', 'none'))
    >>> parse_override("ttt=")
    ('ttt', None)
    """
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not key:
        raise ConfigError(
            f"--set {text!r}: write section.key=value, such as optim.matrix_lr=0.03, or "
            f"section.key= to leave an optional value out."
        )
    if not value:
        return key, None
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def _put(table: dict[str, Any], key: str, value: Any) -> None:
    *sections, leaf = key.split(".")
    for section in sections:
        inner = table.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{key}: {section} is a value, not a section.")
        table = inner
    if value is None:
        table.pop(leaf, None)
    else:
        table[leaf] = value


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
