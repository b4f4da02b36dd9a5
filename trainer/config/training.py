"""``[train]``, ``[optim]`` and ``[averaging]``: how the weights come about."""

from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from trainer.config.config_errors import Fraction, StrictModel, require


class Train(StrictModel):
    """``late_qat_below``: under this rate multiplier the projections of the embeddings train as if
    they were quantized. The published script asks for 0.15 and its compiler drops it.
    ``equal_cost``: a fixed β goes through the graph of a learned one, and its gradient is dropped.
    """

    seq_len: PositiveInt
    batch_tokens: PositiveInt
    micro_steps: PositiveInt
    warmup_steps: NonNegativeInt
    warmdown_steps: NonNegativeInt
    late_qat_below: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    equal_cost: bool = False

    @model_validator(mode="after")
    def _divides(self) -> "Train":
        require(
            self.batch_tokens % (self.micro_steps * self.seq_len) == 0,
            f"batch_tokens {self.batch_tokens} is not divisible by micro_steps {self.micro_steps} "
            f"x seq_len {self.seq_len}: every micro-step holds a whole number of sequences.",
        )
        return self


class Optim(StrictModel):
    """Muon for matrices, AdamW for the rest.

    ``adam_weight_decay`` is ``weight_decay`` where absent, and ``gain_weight_decay`` is
    ``adam_weight_decay``: gains are the gates, gains, scales and mixes, which are near 1 or 0 by
    design. ``clip = "per_shard"`` clips the gradient of every micro-step and averages then, at any
    number of ranks. ``muon_momentum_dtype = "compute"`` keeps gradient and momentum of the
    matrices in bfloat16 where the run computes in it.
    """

    matrix_lr: NonNegativeFloat
    embed_lr: NonNegativeFloat
    scalar_lr: NonNegativeFloat
    activation_lr: NonNegativeFloat = 0.001
    grad_clip: PositiveFloat | None = None
    clip: Literal["global", "per_shard"] = "global"
    weight_decay: NonNegativeFloat = 0.0
    adam_weight_decay: NonNegativeFloat | None = None
    gain_weight_decay: NonNegativeFloat | None = None
    adam_beta1: Fraction = 0.9
    adam_beta2: Fraction = 0.95
    adam_eps: PositiveFloat = 1e-8
    muon_momentum: Fraction = 0.95
    muon_momentum_start: Fraction = 0.85
    muon_momentum_warmup_steps: NonNegativeInt = 0
    muon_momentum_dtype: Literal["float32", "compute"] = "float32"
    newton_schulz_steps: PositiveInt = 5
    newton_schulz: Annotated[tuple[float, float, float], Field(strict=False)] = (
        3.4445,
        -4.7750,
        2.0315,
    )

    @model_validator(mode="after")
    def _clip_goes_with_a_norm(self) -> "Optim":
        require(
            self.grad_clip is not None or self.clip == "global",
            'clip = "per_shard" without grad_clip: give the norm to clip to, such as 0.3.',
        )
        return self


class Averaging(StrictModel):
    kind: Literal["none", "ema"]
    decay: Fraction | None = None

    @model_validator(mode="after")
    def _decay_goes_with_ema(self) -> "Averaging":
        require(
            (self.decay is not None) == (self.kind == "ema"),
            f'kind = "{self.kind}" with decay = {self.decay}: an EMA needs a decay such as 0.997, '
            f'and kind = "none" takes none.',
        )
        return self
