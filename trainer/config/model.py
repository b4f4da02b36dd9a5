"""``[model]``: the network, but for its activation."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, StrictInt, model_validator

from trainer.config.config_errors import StrictModel, require


class Bigram(StrictModel):
    """A hashed embedding of the last two tokens, added to the token embedding.

    ``factors`` multiply the token and the one before it in the hash.
    """

    vocab_size: Annotated[int, Field(ge=2)]
    dim: PositiveInt
    scale: float = 0.05
    factors: Annotated[tuple[StrictInt, StrictInt], Field(strict=False)] = (36313, 27191)


class ValueEmbedding(StrictModel):
    """A second token embedding, added to the attention values of some layers."""

    layers: Annotated[tuple[StrictInt, ...], Field(strict=False, min_length=1)]
    dim: PositiveInt
    scale: float = 0.1
    init_std: float = 0.01


class Model(StrictModel):
    """``rope_ntk_len``: sequences longer than this stretch the RoPE base with their length.

    ``rope_frequencies``: whether a run in bfloat16 rounds them, as the published models do.
    """

    vocab_size: Annotated[int, Field(ge=4, le=65536)]
    num_layers: Annotated[int, Field(ge=2)]
    width: PositiveInt
    num_heads: PositiveInt
    num_kv_heads: PositiveInt
    mlp_hidden: PositiveInt
    rope_dims: Annotated[int, Field(ge=2)]
    rope_base: PositiveFloat = 10000.0
    rope_ntk_len: PositiveInt | None = None
    rope_frequencies: Literal["exact", "rounded"] = "exact"
    qk_gain: float = 1.5
    xsa_last_layers: NonNegativeInt = 0
    smear_gate: bool = False
    layer_scale: Literal["none", "inverse_sqrt_depth"] = "none"
    logit_softcap: PositiveFloat = 30.0
    init: Literal["orthogonal", "kaiming"] = "orthogonal"
    embed_init_std: float = 0.005
    orthogonal_min_dim: PositiveInt = 64
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
        require(
            self.width % self.num_heads == 0,
            f"width {self.width} is not divisible by num_heads {self.num_heads}: "
            f"change one of them so that every head has the same whole number of dimensions.",
        )
        require(
            self.num_heads % self.num_kv_heads == 0,
            f"num_heads {self.num_heads} is not divisible by num_kv_heads {self.num_kv_heads}: "
            f"each key-value head serves the same number of query heads.",
        )
        require(
            self.rope_dims % 2 == 0 and self.rope_dims <= self.head_dim,
            f"rope_dims {self.rope_dims} must be even and at most the head dimension "
            f"{self.head_dim} (width {self.width} / num_heads {self.num_heads}).",
        )
        require(
            self.rope_ntk_len is None or self.rope_dims > 2,
            f"rope_ntk_len {self.rope_ntk_len} needs rope_dims of 4 or more, got {self.rope_dims}: "
            f"the base grows by the power rope_dims / (rope_dims − 2).",
        )
        require(
            self.xsa_last_layers <= self.num_layers,
            f"xsa_last_layers {self.xsa_last_layers} is more than num_layers {self.num_layers}.",
        )
        return self

    @model_validator(mode="after")
    def _value_layers_exist(self) -> "Model":
        if self.value_embedding is not None:
            layers = self.value_embedding.layers
            outside = [i for i in layers if not 0 <= i < self.num_layers]
            require(
                len(set(layers)) == len(layers),
                f"value_embedding.layers {list(layers)} names a layer twice.",
            )
            require(
                not outside,
                f"value_embedding.layers {outside} do not exist: "
                f"layers are numbered 0 to {self.num_layers - 1}.",
            )
        return self
