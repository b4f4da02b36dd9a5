"""Schedules of learning rate and momentum: pure functions of progress.

One formula serves budgets of steps and of seconds, because both answer ``remaining_steps``.
"""


def lr_multiplier(remaining_steps: float | None, warmdown_steps: int) -> float:
    """min(1, remaining / warmdown): constant, then linear to zero; 1 while nothing is known.

    >>> lr_multiplier(5000.0, 1200), lr_multiplier(600.0, 1200), lr_multiplier(None, 1200)
    (1.0, 0.5, 1.0)
    >>> lr_multiplier(3.0, 0)
    1.0
    """
    if remaining_steps is None:
        return 1.0
    left = max(remaining_steps, 0.0)
    return 1.0 if left >= warmdown_steps else left / warmdown_steps


def muon_momentum(step: int, start: float, final: float, warmup_steps: int) -> float:
    """Linear from ``start`` to ``final`` over ``warmup_steps``, constant afterwards.

    >>> muon_momentum(0, 0.8, 0.9, 10), round(muon_momentum(5, 0.8, 0.9, 10), 6)
    (0.8, 0.85)
    >>> muon_momentum(15, 0.8, 0.9, 10), muon_momentum(7, 0.8, 0.9, 0)
    (0.9, 0.9)
    """
    fraction = min(step / warmup_steps, 1.0) if warmup_steps else 1.0
    return (1 - fraction) * start + fraction * final
