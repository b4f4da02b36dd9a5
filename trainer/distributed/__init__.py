"""Ranks, the one clock, and checks of what connects them."""
