"""Optimizers, the parameters that each one moves, and the schedules of rate and momentum."""
