"""What is the most memory that a step and a score take at once, by recipe?

On CUDA the allocator's own peak. On a CPU the peak of what torch has allocated and not yet freed,
summed up from its profiler's record of every allocation, over what was allocated before: the
resident size of a process also counts what an allocator keeps. Taken are a step, on CUDA one
micro-step and an update, and one batch of windows. The ratio is to the parameters, which no machine
changes.
"""

import argparse
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.contenders import CONTENDERS, REFERENCE, Ours, build, random_batch
from benchmarks.hardware import need_gpu
from benchmarks.measured import conclude
from benchmarks.turns import Quartiles
from trainer.config import load_recipe
from trainer.distributed.world import World, open_world


def peak_bytes(work: Callable[[], object], world: World) -> int:
    """The most that ``work`` has allocated at once, the second time that it runs."""
    work()
    if world.device.type == "cuda":
        before = torch.cuda.memory_allocated(world.device)
        world.reset_peak_memory()
        work()
        world.synchronize()
        return world.peak_memory_bytes() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        work()
    held = peak = 0
    assert recorded.profiler is not None
    events = recorded.profiler.kineto_results.events()
    for event in sorted(events, key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def measure(name: str, device: str) -> dict[str, int]:
    """Bytes of parameters, of a step, and of scoring one batch."""
    recipe, scoring = load_recipe(name), load_recipe(name).scoring
    with open_world(device, threads=1) as world:
        ours = Ours(build(recipe, CONTENDERS[REFERENCE], device), recipe, world)
        batch = random_batch(recipe, device)
        draw = torch.Generator().manual_seed(1)
        shape = scoring.batch_seqs, scoring.seq_len
        tokens = torch.randint(recipe.model.vocab_size, shape, generator=draw).to(world.device)

        @torch.inference_mode()
        def score() -> None:
            ours.model.eval()
            ours.model.nll(tokens, tokens, tail=min(scoring.stride, scoring.seq_len))

        return {
            "parameters": sum(p.numel() * p.element_size() for p in ours.model.parameters()),
            "step": peak_bytes(lambda: ours.take(batch, 1, 0.0), world),
            "score": peak_bytes(score, world),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", nargs="+", default=["tiny", "local"])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--check", action="store_true", help="compare with what was kept")
    given = parser.parse_args()
    need_gpu("memory --device cuda", given.device)
    found = {name: measure(name, given.device) for name in given.recipes}
    ratios = {}
    for name, taken in found.items():
        print(f"  {name:8} " + ", ".join(f"{k} {v / 1e6:.2f} MB" for k, v in taken.items()))
        for what in ("step", "score"):
            over = taken[what] / taken["parameters"]
            ratios[f"{name} {what}"] = Quartiles(over, over, over)
    result = {"device": given.device, "bytes": found, "ratios": ratios}
    conclude(f"memory-{given.device}", result, check=given.check)


if __name__ == "__main__":
    main()
