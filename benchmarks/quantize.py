"""How long does an artifact take, and what of it? Quantizing and packing at the size of #549.

Weights are synthetic: normal, of the size that training leaves. Each way to quantize is measured in
turn with one that loops in Python where ours is batched: over rows for the clip of int6_row, over
percentiles for GPTQ, whose columns are one after the other in both. Of packing it is told how much
is compression.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from benchmarks.contenders import CONTENDERS, REFERENCE, build
from benchmarks.measured import conclude
from benchmarks.turns import in_turn, quartiles, ratios
from trainer.compress import gptq
from trainer.compress.artifact import artifact_of, pack
from trainer.compress.int6_row import LEVELS, int6_row
from trainer.compress.row_codes import Quantized, best_by_squared_error, encode
from trainer.config import Quantization, Recipe, load_recipe

STANDARD_DEVIATION = 0.05
CALIBRATION_ROWS = 4096


def weights_of(recipe: Recipe) -> dict[str, Tensor]:
    """Drawn in the shapes of the recipe's model."""
    draw = torch.Generator().manual_seed(0)
    model = build(recipe, CONTENDERS[REFERENCE])
    return {
        name: STANDARD_DEVIATION * torch.randn(p.shape, generator=draw)
        for name, p in model.named_parameters()
    }


def row_by_row(w_RC: Tensor, config: Quantization) -> Quantized:
    """int6_row by its definition: the clip of each row looked for by itself."""
    candidates = []
    for percentile in sorted(config.percentiles):
        clip_R = torch.stack([torch.quantile(row.abs(), percentile) for row in w_RC])
        candidates.append(encode(w_RC, clip_R, LEVELS, config.scale_floor))
    return best_by_squared_error(w_RC, candidates)


def percentile_by_percentile(w_RC: Tensor, config: Quantization, hessian_CC: Tensor) -> Quantized:
    """GPTQ once for each percentile, the best of them."""
    found = [
        gptq(w_RC, config.model_copy(update={"percentiles": (percentile,)}), hessian_CC)
        for percentile in sorted(config.percentiles)
    ]
    return best_by_squared_error(w_RC, found)


def measure(recipe: Recipe, rounds: int) -> dict[str, list[float]]:
    """Seconds of quantizing one up-projection, ours and looped, in turn."""
    matrix = weights_of(recipe)["up_bank"][0]
    draw = torch.Generator().manual_seed(1)
    inputs = torch.randn(CALIBRATION_ROWS, matrix.size(1), generator=draw)
    hessian, config = inputs.T @ inputs, recipe.quantization
    work: dict[str, Callable[[], object]] = {
        "looped int6_row": lambda: row_by_row(matrix, config),
        "int6_row": lambda: int6_row(matrix, config),
        "looped gptq": lambda: percentile_by_percentile(matrix, config, hessian),
        "gptq": lambda: gptq(matrix, config, hessian),
    }
    return in_turn(work, rounds=rounds, warmup=1)


def packing(recipe: Recipe, matrices: int) -> dict[str, float]:
    """Seconds of an artifact of the first matrices of every bank, and of its compression."""
    weights = {
        name: w[:matrices] for name, w in weights_of(recipe).items() if name.endswith("_bank")
    }
    start_s = time.process_time()
    packed = pack(weights, recipe.quantization, "0" * 16)
    packed_s = time.process_time()
    data = artifact_of(packed, recipe.quantization)
    end_s = time.process_time()
    return {
        "whole_s": end_s - start_s,
        "compression_s": end_s - packed_s,
        "bytes": float(len(data)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="pr549")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--matrices", type=int, default=1, help="of each bank to pack; 22: all")
    parser.add_argument("--check", action="store_true", help="compare with what was kept")
    given = parser.parse_args()
    torch.set_num_threads(1)
    recipe = load_recipe(given.recipe)
    times = measure(recipe, given.rounds)
    found = {
        name: ratios({"looped": times[f"looped {name}"], name: times[name]}, "looped")[name]
        for name in ("int6_row", "gptq")
    }
    for name, ratio in found.items():
        milliseconds = 1000 * quartiles(times[name]).middle
        print(f"  {name:9} over a loop in Python {ratio}, median {milliseconds:.1f} ms a matrix")
    whole: Mapping[str, float] = packing(recipe, given.matrices)
    print(
        f"  pack {given.matrices} of each bank: {whole['whole_s']:.1f} s, "
        f"of it compression {whole['compression_s']:.1f} s; "
        f"{whole['bytes'] / 1e6:.2f} MB"
    )
    seconds = {name: statistics.median(taken) for name, taken in times.items()}
    result = {
        "recipe": given.recipe,
        "ratios": found,
        "median_s": seconds,
        "matrices": given.matrices,
        "pack": whole,
    }
    conclude("quantize", result, check=given.check)


if __name__ == "__main__":
    main()
