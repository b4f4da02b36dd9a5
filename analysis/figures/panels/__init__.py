"""Panels: (frame, Axes) -> Axes, of what the statistics returned."""
