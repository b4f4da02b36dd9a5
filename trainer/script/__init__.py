"""A training script that others wrote: patched, run and read as one cell."""
