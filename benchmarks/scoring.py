"""How much of the plain scoring's time does ours take, and how far is it from the arithmetic?

Sliding windows and test-time training of one recipe, plain and ours in turn, round after round, on
the same weights and text. Machines are noisy, so only ratios within a round are compared (median
and quartiles). Fails where the two scores are apart by more than the tolerance. Plain is
``benchmarks.plain_scoring``. On a CPU it takes the model of ``benchmarks.plain`` and has a process
of its own, with the C library's memory as it comes (``--plain-keeps-memory``: as ours keeps it, see
``trainer.distributed.malloc``).
On a GPU it takes our own model's unfused forward, compiled for sliding windows and not for
test-time training, as published.
"""

import argparse
import copy
import functools
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.contenders import CONTENDERS, REFERENCE, build
from benchmarks.hardware import need_gpu
from benchmarks.measured import conclude
from benchmarks.plain import PlainGPT
from benchmarks.plain_scoring import Lessons, Plan, Text, plain_sliding, plain_ttt
from benchmarks.scoring_flops import Arithmetic, flops
from benchmarks.turns import Quartiles, quartiles
from trainer.config import Recipe, load_recipe
from trainer.distributed.malloc import keep_freed_memory
from trainer.distributed.world import World, open_world
from trainer.evaluate.bpb import Stream, score
from trainer.evaluate.ttt import adapt_and_score
from trainer.evaluate.windows import windows
from trainer.model import GPT
from trainer.report_files import device_name

TOLERANCE = {"cpu": 1e-6, "cuda": 2e-5}  # bits per byte; float32 there, bfloat16 here
Way = Callable[[], tuple[float, float]]
"""Scores once; returns (seconds, bits per byte)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="local")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--targets", type=int, help="how many; all that the recipe scores if not")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--plain-keeps-memory", action="store_true", help="what it frees, as ours")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--check", action="store_true", help="compare with what was kept")
    arguments = parser.parse_args()
    need_gpu("scoring --device cuda", arguments.device)
    recipe = load_recipe(arguments.recipe)
    if recipe.ttt is None or recipe.ttt.optimizer != "sgd" or recipe.ttt.late_qat:
        parser.error(
            f"recipe {arguments.recipe}: plain test-time training is SGD in full precision"
        )
    num_targets = arguments.targets or recipe.scoring.max_targets or 2**17
    keeps: bool = arguments.plain_keeps_memory
    plain = None
    if arguments.device == "cpu":
        plain = _process(functools.partial(_serve, recipe, arguments.recipe, num_targets, keeps))
    with open_world(arguments.device, threads=1) as world:
        bench = Bench(recipe, arguments.recipe, num_targets, world)
        found = bench.measure(plain or bench.plain(), arguments.rounds, arguments.warmup)
    report(found, arguments.recipe)
    name = f"scoring-{arguments.recipe}-{arguments.device}{'-kept' if keeps else ''}"
    conclude(name, found, check=arguments.check)


class Bench:
    """One model and one text, scored in four ways."""

    def __init__(self, recipe: Recipe, name: str, num_targets: int, world: World) -> None:
        self._recipe, self._world = recipe, world
        draw = torch.Generator().manual_seed(0)
        self._model = build(recipe, CONTENDERS[REFERENCE], world.device.type, name)
        with torch.no_grad():  # fresh output projections are zero: nothing would flow through them
            for p in self._model.parameters():
                p.add_(0.05 * torch.randn(p.shape, generator=draw).to(p.dtype))
        self._model.on_device(world.device)
        vocab_size = recipe.model.vocab_size
        tokens = torch.randint(vocab_size, (num_targets + 1,), generator=draw)
        target_bytes = torch.randint(1, 6, (num_targets,), generator=draw)
        self._stream = Stream(tokens.to(world.device), target_bytes.to(world.device))

    def plain(self) -> dict[str, Way]:
        return {"sliding": self._plain_sliding(), "ttt": self._plain_ttt()}

    def measure(self, plain: Mapping[str, Way], rounds: int, warmup: int) -> dict[str, Any]:
        ours = {"sliding": self._timed(self._sliding), "ttt": self._timed(self._ttt)}
        ways = {name: (plain[name], ours[name]) for name in ours}
        seconds: dict[str, dict[str, list[float]]] = {
            name: {"plain": [], "ours": []} for name in ways
        }
        peak, apart = [], dict.fromkeys(ways, 0.0)
        for i in range(warmup + rounds):
            for name, (plain_way, our_way) in ways.items():
                (plain_s, expected), (ours_s, bpb) = plain_way(), our_way()
                apart[name] = max(apart[name], abs(bpb - expected))
                if i >= warmup:
                    seconds[name]["plain"].append(plain_s)
                    seconds[name]["ours"].append(ours_s)
            if i >= warmup:
                peak.append(self._flops_per_s())
        tolerance = TOLERANCE[self._world.device.type]
        if max(apart.values()) > tolerance:
            raise SystemExit(f"scores are apart by {apart} BPB, more than {tolerance}")
        counted = {name: asdict(flops) for name, flops in self._arithmetic().items()}
        return {
            "device": device_name(self._world.device),
            "torch": torch.__version__,
            "clock": "processor time" if self._world.device.type == "cpu" else "wall clock",
            "rounds": rounds,
            "targets": self._stream.num_targets,
            "bpb_apart": apart,
            "flops": counted,
            "gemm_flops_per_s": statistics.median(peak),
            "seconds": seconds,
            "ratios": _ratios(seconds),
        }

    def _sliding(self) -> float:
        scoring = self._recipe.scoring
        plan = windows(self._stream.num_targets, scoring.seq_len, scoring.stride)
        batch_seqs = scoring.batch_seqs
        found = score(self._model, self._stream, plan, batch_seqs=batch_seqs, world=self._world)
        return found.bpb

    def _ttt(self) -> float:
        ttt, private = self._recipe.ttt, copy.deepcopy(self._model)
        assert ttt is not None
        scoring = self._recipe.scoring.model_copy(update={"tail": "once"})
        return adapt_and_score(
            private, self._stream, scoring=scoring, ttt=ttt, world=self._world
        ).bpb

    def _plain_sliding(self) -> Way:
        model = self._plain_model()
        if self._world.device.type == "cuda":
            model = torch.compile(model, dynamic=False)
        return self._timed(lambda: plain_sliding(model, self._text(), self._plan()).bpb)

    def _plain_ttt(self) -> Way:
        ttt = self._recipe.ttt
        assert ttt is not None
        lessons = Lessons(
            lr=ttt.lr,
            momentum=ttt.momentum,
            epochs=ttt.epochs,
            chunk_tokens=ttt.chunk_tokens,
            batch_seqs=ttt.batch_seqs,
            grad_clip=ttt.grad_clip or math.inf,
        )
        model = self._plain_model()

        def adapted() -> float:
            return plain_ttt(copy.deepcopy(model), self._text(), self._plan(), lessons).bpb

        return self._timed(adapted)

    def _plain_model(self) -> nn.Module:
        if self._world.device.type == "cpu":
            return PlainGPT(self._model, self._recipe.model)
        return WholeLogits(copy.deepcopy(self._model))

    def _text(self) -> Text:
        return Text(self._stream.tokens, self._stream.target_bytes)

    def _plan(self) -> Plan:
        return Plan(self._recipe.scoring.seq_len, self._recipe.scoring.stride)

    def _timed(self, scored: Callable[[], float]) -> Way:
        """One thread on a CPU that others may use too: its own time; else the time that passes."""
        clock = time.process_time if self._world.device.type == "cpu" else time.perf_counter

        def way() -> tuple[float, float]:
            self._world.synchronize()
            start_s = clock()
            bpb = scored()
            self._world.synchronize()
            return clock() - start_s, bpb

        return way

    def _flops_per_s(self) -> float:
        """Of a square product that is large enough to reach what the machine can do."""
        size, where = (8192, "cuda") if self._world.device.type == "cuda" else (768, "cpu")
        a = torch.ones(size, size, device=where, dtype=self._model.compute_dtype)
        multiply = self._timed(lambda: float((a @ a)[0, 0]))
        multiply()
        return float(2 * size**3 / min(multiply()[0] for _ in range(3)))

    def _arithmetic(self) -> dict[str, Arithmetic]:
        model, scoring, ttt = self._recipe.model, self._recipe.scoring, self._recipe.ttt
        assert ttt is not None
        plan = windows(self._stream.num_targets, scoring.seq_len, scoring.stride)
        plain = sum(flops(model, w.length, w.length) for w in plan)
        ours = sum(flops(model, w.length, w.num_scored) for w in plan)
        chunks = -(-self._stream.num_targets // ttt.chunk_tokens) - 1
        sequences = ttt.epochs * chunks * (ttt.chunk_tokens // scoring.seq_len)
        learning = 3 * sequences * flops(model, scoring.seq_len, scoring.seq_len)
        return {
            "sliding": Arithmetic(plain, ours),
            "ttt": Arithmetic(plain + learning, ours + learning),
        }


def _process(serve: Callable[[Connection], None]) -> dict[str, Way]:
    """The plain ways, each answered by a process that is forked now."""
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    fork.Process(target=serve, args=(there,), daemon=True).start()

    def asked(way: str) -> tuple[float, float]:
        here.send(way)
        seconds, bpb = here.recv()
        return seconds, bpb

    return {way: functools.partial(asked, way) for way in ("sliding", "ttt")}


def _serve(recipe: Recipe, name: str, num_targets: int, keeps: bool, asked: Connection) -> None:
    torch.set_num_threads(1)
    if keeps:
        keep_freed_memory()
    ways = Bench(recipe, name, num_targets, World(0, 1, torch.device("cpu"))).plain()
    while True:
        asked.send(ways[asked.recv()]())


class WholeLogits(nn.Module):
    """Logits (B, T, V) of all positions."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens_BT: Tensor) -> Tensor:
        return self.model.head(self.model.body(tokens_BT))


def report(found: Mapping[str, Any], recipe: str) -> None:
    print(f"recipe {recipe}, {found['targets']} targets, {found['rounds']} rounds, seconds of")
    print(f"{found['clock']}; bound: arithmetic at {found['gemm_flops_per_s'] / 1e9:.0f} GFLOP/s")
    print(f"  {'':8} {'ratio':>6} {'quartiles':>15} {'plain':>9} {'ours':>9} {'bound':>9}  GFLOP")
    for name, (low, middle, high) in found["ratios"].items():
        line = f"  {name:8} {middle:6.3f} {f'{low:.3f} to {high:.3f}':>15}"
        if name in found["seconds"]:
            plain_s, ours_s = (
                statistics.median(found["seconds"][name][which]) for which in ("plain", "ours")
            )
            counted = found["flops"][name]
            bound_s = counted["ours"] / found["gemm_flops_per_s"]
            line += f" {plain_s:8.3f}s {ours_s:8.3f}s {bound_s:8.3f}s"
            line += f"  {counted['plain'] / 1e9:.1f} → {counted['ours'] / 1e9:.1f}"
        print(line)


def _ratios(seconds: dict[str, dict[str, list[float]]]) -> dict[str, Quartiles]:
    """Of ours over plain, for each and for their sum."""

    def over(ours: list[float], plain: list[float]) -> Quartiles:
        return quartiles([a / b for a, b in zip(ours, plain, strict=True)])

    def summed(which: str) -> list[float]:
        return [
            sum(of_round) for of_round in zip(*(s[which] for s in seconds.values()), strict=True)
        ]

    each = {name: over(s["ours"], s["plain"]) for name, s in seconds.items()}
    return {**each, "together": over(summed("ours"), summed("plain"))}


if __name__ == "__main__":
    main()
