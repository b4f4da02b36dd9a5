"""Scenarios of the calibration: worlds that the analysis assumes, and some that it does not."""

from dataclasses import dataclass

from analysis.models.block_model import Pairing
from benchmarks.simulated_sweeps import NUM_FUNCTIONS, REFERENCE, World
from benchmarks.two_stages import TwoStages

ONE = "leaky_relu2-s0.3"  # the activation whose own interval is looked at, and that an effect has
NOISY = {"leaky_relu2-s0.9": 3.0, "asqu": 3.0}


@dataclass(frozen=True, slots=True)
class Scenario:
    """One world, and what is predicted of it. ``second``: a screening, then fresh seeds."""

    name: str
    world: World
    second: TwoStages | None = None
    pairing: Pairing = "seed"
    alone: bool = False  # the intervals of one activation alone are looked at too
    share: float = 1.0  # of the number of sweeps, where a sweep takes long

    @property
    def batch(self) -> int:
        """Sweeps a frame; fewer where they are compared one by one."""
        return 20 if self.world.missing else 500

    @property
    def effect(self) -> float:
        return self.world.effect(ONE)

    @property
    def asks_of_quantization(self) -> bool:
        """Whether its sweeps are asked the second question too: one screening does not ask it."""
        return self.effect == 0 and self.second is None

    @property
    def is_as_assumed(self) -> bool:
        """Whether the noise is normal, independent and alike, as the pooled interval assumes."""
        world = self.world
        scattered = world.node_sd > 0 and not world.whole_blocks
        return not (world.noise_factors or world.tail_df or scattered)


def _with_effect(effect: float, num_seeds: int) -> World:
    return World(num_seeds=num_seeds, effects={ONE: effect})


def _two(screening_seeds: int, kept: int, seeds: int) -> TwoStages:
    return TwoStages(
        num_activations=NUM_FUNCTIONS, screening_seeds=screening_seeds, keep=kept, seeds=seeds
    )


SCENARIOS = (
    Scenario("null", World(), alone=True),
    Scenario("null, 2 seeds", World(num_seeds=2)),
    Scenario("null, 9 seeds", World(num_seeds=9)),
    Scenario("null, two activations 3 times as noisy", World(noise_factors=NOISY), alone=True),
    Scenario("null, the same with 9 seeds", World(noise_factors=NOISY, num_seeds=9)),
    Scenario("null, the reference 3 times as noisy", World(noise_factors={REFERENCE: 3.0})),
    Scenario("null, four nodes of sd 0.0005 at random", World(node_sd=0.0005, num_nodes=4)),
    Scenario(
        "null, a node of sd 0.005 for every seed, nodes as blocks",
        World(node_sd=0.005, num_nodes=4, whole_blocks=True),
        pairing="node",
    ),
    Scenario("null, heavy tails (t, 3 df)", World(tail_df=3)),
    Scenario("null, two stages", World(), second=_two(3, 3, 5)),
    Scenario("effect 0.0010, 3 seeds", _with_effect(-0.0010, 3)),
    Scenario("effect 0.0023, 3 seeds", _with_effect(-0.0023, 3)),
    Scenario("effect 0.0010, 7 seeds", _with_effect(-0.0010, 7)),
    Scenario("effect 0.0005, 9 seeds", _with_effect(-0.0005, 9)),
    Scenario("effect 0.0010, two stages", _with_effect(-0.0010, 3), second=_two(3, 3, 8)),
    Scenario("null, a tenth of the cells failed", World(missing=0.1), share=0.2),
)
