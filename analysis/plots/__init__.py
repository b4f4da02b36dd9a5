"""What does each thing look like? (frame, Axes) -> Axes, of what the statistics returned."""
