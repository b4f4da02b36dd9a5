"""``[scoring]``, ``[ttt]`` and ``[slot]``: how a model is judged."""

from typing import Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from trainer.config.config_errors import Fraction, StrictModel, require


class Scoring(StrictModel):
    """``tail``: whether the last stride of the stream is scored once, or again by every window
    that reaches it (published). ``every_steps``: validate the weights before the first step and
    after each so many, off the clock.
    """

    seq_len: PositiveInt
    stride: PositiveInt
    batch_seqs: PositiveInt
    max_targets: PositiveInt | None = None
    tail: Literal["once", "published"] = "once"
    every_steps: PositiveInt | None = None

    @model_validator(mode="after")
    def _divides(self) -> "Scoring":
        require(
            self.stride <= self.seq_len and self.seq_len % self.stride == 0,
            f"stride {self.stride} does not divide seq_len {self.seq_len}.",
        )
        require(
            self.max_targets is None or self.max_targets >= self.seq_len,
            f"max_targets {self.max_targets} is less than one window of seq_len {self.seq_len}.",
        )
        return self


class TTT(StrictModel):
    """Score-first test-time training.

    ``optimizer = "muon"`` makes every matrix's gradient orthogonal and takes no momentum.
    ``freeze_layers`` keeps the first layers as they are; published freezing reaches only their
    gains, scales and mixes (``freeze_matrices = false``). ``late_qat`` adapts the projections of
    the embeddings as if they were quantized to six bits.
    """

    optimizer: Literal["sgd", "muon"] = "sgd"
    lr: NonNegativeFloat
    momentum: Fraction = 0.0
    epochs: PositiveInt
    chunk_tokens: PositiveInt
    batch_seqs: PositiveInt
    grad_clip: PositiveFloat | None = None
    freeze_layers: NonNegativeInt = 0
    freeze_matrices: bool = True
    late_qat: bool = False

    @model_validator(mode="after")
    def _muon_has_no_momentum(self) -> "TTT":
        require(
            self.optimizer == "sgd" or self.momentum == 0.0,
            f'optimizer = "muon" with momentum = {self.momentum}: test-time Muon has none.',
        )
        return self


class Slot(StrictModel):
    """A shift of the final hidden states, fitted at test time by AdamW.

    ``mode = "published"`` fits one shift for a batch of windows on the very targets that it then
    scores, on the model that TTT has left: not a legal score, and marked so. ``mode = "causal"``
    fits one for each window on the targets that are already scored.
    """

    mode: Literal["published", "causal"]
    lr: NonNegativeFloat = 0.003
    steps: PositiveInt = 5
    batch_seqs: PositiveInt = 32
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    eps: PositiveFloat = 1e-5
    weight_decay: NonNegativeFloat = 1e-8
