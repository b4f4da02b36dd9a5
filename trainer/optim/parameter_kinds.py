"""The kind of every parameter, told by its name: the groups of optimizer and quantizer."""

from typing import Literal, get_args

from torch import nn

Kind = Literal["matrices", "embeddings", "projections", "gains", "activation"]


def kind_of(name: str) -> Kind:
    """What a parameter is, for the optimizer and for the quantizer alike.

    Gains are all that is near 0 or 1 by design: gates, gains, scales, mixes and skip weights.
    """
    if name.endswith("_bank"):
        return "matrices"
    if name == "embed" or name.endswith(".embed"):
        return "embeddings"
    if name.endswith(".proj"):
        return "projections"
    return "activation" if name.startswith("activations.") else "gains"


def parameters_by_kind(model: nn.Module) -> dict[Kind, list[nn.Parameter]]:
    """Every parameter of ``model`` under exactly one kind."""
    groups: dict[Kind, list[nn.Parameter]] = {kind: [] for kind in get_args(Kind)}
    for name, parameter in model.named_parameters():
        groups[kind_of(name)].append(parameter)
    return groups
