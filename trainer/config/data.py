"""``[data]``: which tokens, and in which order."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from trainer.config.config_errors import StrictModel, require

DatasetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


class Coprime(StrictModel):
    """How the coprime order mixes shards: few at first, then more and more evenly.

    A call takes ``mix_start`` shards at first and ``mix_end`` from call ``anneal_calls`` on (or the
    number of virtual ranks, and eight times it, where those are more), each with a probability
    proportional to its blocks left to the power ``exponent_start``, later ``exponent_end``.
    """

    anneal_calls: PositiveInt = 1800
    exponent_start: NonNegativeFloat = 0.9
    exponent_end: NonNegativeFloat = 0.5
    mix_start: PositiveInt = 8
    mix_end: PositiveInt = 32


class Data(StrictModel):
    """``virtual_world`` is the number of ranks that the order is drawn for, whatever runs.

    ``seed_names`` are the names that seed the coprime order: absent, the dataset's and the shard's
    own; a string is a folder put in front of each shard's file name; a list is taken as it is.
    """

    dataset: DatasetName
    loader: Literal["sequential", "coprime"] = "sequential"
    virtual_world: PositiveInt = 8
    seed_names: str | Annotated[tuple[str, ...], Field(strict=False)] | None = None
    coprime: Coprime = Coprime()

    @model_validator(mode="after")
    def _names_are_some(self) -> "Data":
        require(
            self.seed_names is None or len(self.seed_names) > 0,
            "seed_names is empty: give a folder, one name for each shard, or leave it out.",
        )
        return self
