"""Which part of an optimizer step does a rank compute?"""

from dataclasses import dataclass

from trainer.config.config_errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Share:
    """``rank`` of ``world_size`` computes every ``world_size``-th of a step's micro-steps.

    A step takes ``batch_tokens`` in ``micro_steps`` equal parts of whole sequences of ``seq_len``;
    rank r of W computes the parts r, W + r, 2W + r, … ``virtual_world`` is the number of ranks that
    the order of the data is made for. It has no say in who computes what.
    """

    batch_tokens: int
    seq_len: int
    micro_steps: int
    virtual_world: int
    rank: int
    world_size: int

    def __post_init__(self) -> None:
        if self.batch_tokens % (self.micro_steps * self.seq_len):
            raise ConfigError(
                f"batch_tokens {self.batch_tokens} is not divisible by micro_steps "
                f"{self.micro_steps} x seq_len {self.seq_len}: every micro-step holds a whole "
                f"number of sequences."
            )
        if self.micro_steps % self.world_size:
            fitting = -(-self.micro_steps // self.world_size) * self.world_size
            raise ConfigError(
                f"{self.world_size} ranks cannot share micro_steps = {self.micro_steps} evenly. "
                f"Start a number of ranks that divides it, or choose a multiple of the ranks: "
                f"--set train.micro_steps={fitting}."
            )
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank {self.rank} of {self.world_size}: ranks are numbered from 0")

    @property
    def micro_tokens(self) -> int:
        """Predictions of one micro-step."""
        return self.batch_tokens // self.micro_steps

    @property
    def mine(self) -> range:
        """The numbers of this rank's micro-steps within a step."""
        return range(self.rank, self.micro_steps, self.world_size)
