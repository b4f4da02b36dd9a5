"""LeakyReLU² with a slope for each layer, such as a profile that was learned, and is frozen."""

from trainer.activations import Params, leaky_relu2
from trainer.activations.squared import Squared


def build(hidden: int, params: Params) -> Squared:
    return leaky_relu2.build(hidden, {"slope": params["slopes"]})
