"""What does each thing look like? (frame, Axes) -> Axes, of what the statistics returned."""

from analysis.figures.panels.size import CAP_BYTES

__all__ = ["CAP_BYTES"]
