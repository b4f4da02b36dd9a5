"""Statistics of a tensor's numbers: root mean square, kurtosis, density, entropy, in float64."""

import torch
from torch import Tensor


def root_mean_square(values: Tensor) -> float:
    """√(mean of squares), of a tensor of any shape with at least one number."""
    return float(values.double().square().mean().sqrt())


def excess_kurtosis(values: Tensor) -> float | None:
    """m₄ / m₂² − 3 with central moments over all numbers; None where they do not vary."""
    deviations = values.double() - values.double().mean()
    squares = deviations.square()
    return kurtosis_of(float(squares.mean()), float(squares.square().mean()))


def kurtosis_of(second: float, fourth: float) -> float | None:
    """The excess kurtosis that central moments make; None where there is none.

    >>> kurtosis_of(1.0, 3.0), kurtosis_of(0.0, 0.0)
    (0.0, None)
    """
    square = second * second
    return fourth / square - 3.0 if square > 0.0 else None


def fraction_above(values: Tensor, threshold: float) -> float:
    """The fraction of numbers whose magnitude exceeds ``threshold``."""
    return float((values.double().abs() > threshold).double().mean())


def mean_squared_error(values: Tensor, others: Tensor) -> float:
    """Mean of (v − o)² over two tensors of one shape."""
    return float((values.double() - others.double()).square().mean())


def entropy_bits(codes: Tensor) -> float:
    """−Σ p·log₂ p of the values of ``codes`` (integers, any shape): bits that a code costs alone.

    What a compressor needs may be less, for it sees neighbours. Source: Shannon (1948).
    """
    counts = torch.unique(codes, return_counts=True)[1].double()
    p = counts / counts.sum()
    return float(-(p * p.log2()).sum()) + 0.0  # −0 means 0
