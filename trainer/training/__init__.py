"""Train under a budget: loop, step, averaging, checkpoints."""
