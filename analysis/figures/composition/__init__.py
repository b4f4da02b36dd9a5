"""Which panels make a figure, and what is said below it? (cells, sweep, given) -> Figure."""
