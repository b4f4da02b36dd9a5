"""False positives under unequal noise, and the power that the second interval costs.

    python -m benchmarks.unequal_noise

12 activations; 20,000 simulated sweeps for each number of seeds and each pattern of noise. The
pooled interval is Dunnett's; the wider one is what ``analysis.stats.compare`` reports. Power is
that of a difference which Dunnett's interval finds in about 84 % of sweeps of equal noise.
"""

import json
import math
from pathlib import Path

import numpy as np

from analysis.models.block_model import fit_blocks
from analysis.models.dunnett import quantile
from benchmarks.compare_many import complete_blocks, intervals

ACTIVATIONS, SWEEPS, CHUNK = 12, 20_000, 4_000
OUT = Path(__file__).parent / "results" / "unequal_noise.json"
_ONES = [1.0] * ACTIVATIONS
PATTERNS = {
    "equal": _ONES,
    "one activation 3×": [1.0, 3.0, *_ONES[2:]],
    "half 2×, the reference too": [2.0] * 6 + [1.0] * 6,
    "half 2×, not the reference": [1.0] * 6 + [2.0] * 6,
    "the reference 3×": [3.0, *_ONES[1:]],
    "the reference 2×": [2.0, *_ONES[1:]],
    "the reference 1.5×": [1.5, *_ONES[1:]],
}


def shares(num_seeds: int, sds: list[float], effect: float = 0.0) -> tuple[float, float]:
    """Of simulated sweeps, the share in which the pooled and the wider interval resolve anything.

    With an ``effect`` on the first comparison, the share in which they resolve that one.
    """
    rows = complete_blocks(num_seeds, ACTIVATIONS)
    rng, found = np.random.default_rng([11, num_seeds]), np.zeros(2)
    for _ in range(0, SWEEPS, CHUNK):
        scores = rng.standard_normal((CHUNK, num_seeds, ACTIVATIONS)) * sds
        scores[:, :, 1] += effect
        difference, wider, pooled = intervals(rows, scores.reshape(CHUNK, -1))
        for i, half_width in enumerate((pooled, wider)):
            resolved = np.abs(difference) > half_width
            found[i] += (resolved[:, 0] if effect else resolved.any(axis=1)).sum()
    return float(found[0] / SWEEPS), float(found[1] / SWEEPS)


def main() -> None:
    lines = []
    for num_seeds in (3, 5, 10, 20):
        fit = fit_blocks(complete_blocks(num_seeds, ACTIVATIONS))
        bound = quantile(fit.correlations, fit.noise_df, 0.95)
        cases = [(name, sds, 0.0) for name, sds in PATTERNS.items()]
        cases.append(("power, equal", _ONES, 1.35 * bound * math.sqrt(2 / num_seeds)))
        for name, sds, effect in cases:
            pooled, both = shares(num_seeds, sds, effect)
            lines.append({"seeds": num_seeds, "noise": name, "pooled": pooled, "guarded": both})
            print(f"{num_seeds:>3} seeds  {name:<28} pooled {pooled:.3f}  both {both:.3f}")
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(lines, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
