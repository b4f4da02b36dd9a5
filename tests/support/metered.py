"""A world whose device remembers the peak of its memory, as a GPU does."""

from dataclasses import dataclass, field

from trainer.distributed.world import World


@dataclass(frozen=True)
class MeteredWorld(World):
    """A device whose peak memory is what a test says until it is forgotten."""

    peak: list[int] = field(default_factory=lambda: [1000])

    def peak_memory_bytes(self):
        return self.peak[-1]

    def reset_peak_memory(self):
        self.peak.append(10)
