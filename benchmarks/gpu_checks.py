"""What is asked of a GPU in the first minutes: each check tells what it finds, bit by bit.

A check is a generator of things found, of which ``says`` is its line of the table; an exception
fails it. The measuring is that of the other benchmarks.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import loader, memory, mlp_kernel, quantize, scoring, step_time, warm_compile
from benchmarks.contenders import CONTENDERS, REFERENCE, Form, Ours, build, random_batch, spec_of
from benchmarks.hardware import need_gpu, peaks_of, versions
from benchmarks.measured import ROOT
from benchmarks.seams import Kept, astray, watched
from benchmarks.turns import Times, in_turn, ratios, spread
from trainer.cell import build_model
from trainer.config import Recipe, load_recipe
from trainer.contract import REPORT_FILE, SPEC_FILE, ActivationSpec
from trainer.data.building.corpus import stdlib_corpus
from trainer.data.building.prepare import prepare_stdlib
from trainer.distributed.world import open_world
from trainer.model.attention import attend
from trainer.training.step import MicroBatches

Found = Iterator[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What is run, and how often."""

    device: str
    recipe_name: str
    scored_name: str
    rounds: int
    targets: int
    budget: str
    matrices: int

    @property
    def recipe(self) -> Recipe:
        return load_recipe(self.recipe_name)

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"


FULL = Size(
    device="cuda",
    recipe_name="pr549",
    scored_name="pr549-clean",
    rounds=30,
    targets=2**18,
    budget="30s",
    matrices=22,
)
TINY = Size(
    device="cpu",
    recipe_name="tiny",
    scored_name="tiny",
    rounds=6,
    targets=512,
    budget="0.1s",
    matrices=1,
)
SLOPES = {
    f"leaky_relu2-s{slope}": ActivationSpec(name="leaky_relu2", params={"slope": slope})
    for slope in (0.0, 0.5, 0.9)
}
PUBLISHED: Form = "compiled"
"""#549 as published: compiled, the MLP not fused."""
NUM_PARTS = 3
"""Of the rounds of steps: what is cut off in the middle has told of the parts before."""
NUM_LOSSES, NUM_PROFILED, NUM_KERNELS = 10, 10, 40
SEQUENCES_AT_ONCE = 4
"""In float32, whose attention may keep every score of every head."""


def machine(size: Size) -> Found:
    """Hardware and versions; whether ranks can be forked, and whether the all-reduce works."""
    need_gpu("gpu_check", size.device)
    yield versions()
    refused = _refusal_of_the_fork_server()
    yield {
        "fork_server": refused,
        "devices": [str(p) for p in sorted(Path("/dev").glob("nvidia*"))],
    }
    if size.on_gpu:
        known = torch.cuda.get_device_properties(0)
        yield {"memory_bytes": known.total_memory, "capability": [known.major, known.minor]}
    with tempfile.TemporaryDirectory() as folder:
        check = [sys.executable, "-m", "trainer.distributed.all_reduce_check"]
        check += ["--rank", "0", "--ranks", "1", "--device", size.device]
        yield {"all_reduce": json.loads(_said([*check, "--rendezvous", f"{folder}/meeting"]))}
    yield {"says": "fork server and all-reduce work"}
    if refused is not None:
        sys.exit(refused)


def kernel(size: Size) -> Found:
    """Whether the fused MLP is proven right, and how long proof and tuning take."""
    with open_world(size.device, threads=1) as world:
        start_s = time.perf_counter()
        chosen = build(size.recipe, CONTENDERS[REFERENCE], size.device)
        backend = chosen.on_device(world.device).mlp_backend
        world.synchronize()
        yield {"mlp_backend": backend, "s": time.perf_counter() - start_s, "says": backend}
    if size.on_gpu and backend != "triton_fused":
        sys.exit(f"the MLP is {backend} and not the fused kernel: the log says why")


def dtypes(size: Size) -> Found:
    """Types at every seam of a step that is not compiled, and the bytes that it keeps."""
    recipe = size.recipe
    with open_world(size.device, threads=1) as world:
        model = build(recipe, CONTENDERS["asqu"], size.device).on_device(world.device)
        tokens, targets = (t.to(world.device) for t in random_batch(recipe, size.device)[0])
        kept = Kept(model.parameters())
        with watched(model) as seams:
            with kept.watching():
                loss = model.nll(tokens, targets).mean()
            yield {"kept_bytes": kept.num_bytes, "says": f"{kept.num_bytes / 1e9:.1f} GB kept"}
            loss.backward()
    yield {"seams": sorted({f"{s.part} {s.direction} {s.dtype}" for s in seams})}
    if wrong := astray(seams, model.compute_dtype):
        sys.exit(f"not in {model.compute_dtype}: {sorted({s.part for s in wrong})}")


def attention(size: Size) -> Found:
    """What computes attention in training, and in scoring the last positions."""
    recipe = size.recipe
    model, scored = recipe.model, recipe.scoring
    with open_world(size.device, threads=1) as world:
        chosen = build(recipe, CONTENDERS[REFERENCE], size.device).on_device(world.device)
        dtype = chosen.compute_dtype
        yield {"backend": chosen.attention_backend}
        sequences = recipe.train.batch_tokens // recipe.train.micro_steps // recipe.train.seq_len
        used = {}
        for name, batch, length, tail in (
            ("training", sequences, recipe.train.seq_len, recipe.train.seq_len),
            ("scoring", scored.batch_seqs, scored.seq_len, scored.stride),
        ):
            q, k, v = (
                torch.randn(
                    batch, positions, heads, model.head_dim, device=world.device, dtype=dtype
                )
                for positions, heads in (
                    (tail, model.num_heads),
                    (length, model.num_kv_heads),
                    (length, model.num_kv_heads),
                )
            )
            leaves = [t.requires_grad_(name == "training") for t in (q, k, v)]
            with profile(activities=[ProfilerActivity.CPU]) as recorded:
                attended = attend(*leaves)
                if name == "training":
                    attended.sum().backward()
            names = {event.key for event in recorded.key_averages()}
            used[name] = sorted(n for n in names if "aten::_scaled_dot_product" in n)
            yield {name: used[name]}
    yield {"says": ", ".join(name.removeprefix("aten::_") for name in used["training"])}
    if any("math" in name for name in used["training"]):
        sys.exit("training's attention is the one that keeps every score of every head")


def compilation(size: Size) -> Found:
    """The first gradient with nothing kept, then in fresh processes that find what it left."""
    compiled = str(Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]).parent)
    found = {}
    for name, slope in (("cold", 0.5), ("warm", 0.9), ("warm again", 0.0)):
        found[name] = warm_compile.asked(size.recipe_name, size.device, slope, compiled, "1")
        yield {name: found[name]}
    yield {"says": f"cold {found['cold']['s']:.1f} s, warm {found['warm again']['s']:.1f} s"}
    if found["warm again"]["misses"]:
        sys.exit(f"{found['warm again']['misses']} graphs or kernels were compiled again")


def steps(size: Size) -> Found:
    """Steps of slopes and of ASQU in turn with the published computation; peak memory, MFU."""
    recipe, reference = size.recipe, f"{PUBLISHED} {REFERENCE}"
    with open_world(size.device, threads=1) as world:
        batch = random_batch(recipe, size.device)
        work: dict[str, Callable[[], object]] = {}
        forms: list[tuple[Form, str]] = [("fused", name) for name in (*SLOPES, "asqu")]
        for form, label in [*forms, (PUBLISHED, REFERENCE)]:
            activation = SLOPES.get(label) or CONTENDERS[label]
            ours = Ours(build(recipe, activation, size.device), recipe, world, form)
            work[f"{form} {label}"] = lambda ours=ours: ours.take(batch, 1, 0.0)
            world.reset_peak_memory()
            start_s = time.perf_counter()
            work[f"{form} {label}"]()
            yield {
                f"first {form} {label}": {
                    "s": time.perf_counter() - start_s,
                    "mlp_backend": ours.model.mlp_backend,
                    "peak_bytes": world.peak_memory_bytes(),
                }
            }
        times: Times = {name: [] for name in work}
        for _ in range(NUM_PARTS):
            part = in_turn(work, rounds=size.rounds // NUM_PARTS, warmup=1, clock=time.perf_counter)
            times = {name: times[name] + part[name] for name in work}
            yield {"seconds": times, "ratios": ratios(times, reference)}
    found = ratios(times, reference)
    fused = {label: times[f"fused {label}"] for label in (*SLOPES, "asqu")}
    slopes, asqu = spread(fused, "asqu")
    yield {"slowest_over_fastest_slope": slopes, "asqu_over_slopes": asqu}
    if size.on_gpu and peaks_of(torch.cuda.get_device_name()) is not None:
        yield {"mfu": step_time.utilisation(recipe, times, torch.cuda.get_device_name())}
    ms = 1000 * statistics.median(times[f"fused {REFERENCE}"])
    yield {
        "says": f"{ms:.1f} ms, over published {found[f'fused {REFERENCE}']}, "
        f"slopes {slopes:.3f}, ASQU {asqu:.3f}"
    }


def losses(size: Size) -> Found:
    """Losses of the first updates, as cells take them and in float32 without a compiler.

    Nothing is clipped: float32 has smaller micro-batches, which would be clipped one by one.
    """
    without = {"optim.grad_clip": None}
    recipe = load_recipe(size.recipe_name, without)
    batch = random_batch(recipe, size.device)
    smaller = _cut(batch, SEQUENCES_AT_ONCE)
    more = recipe.train.micro_steps * len(smaller) // len(batch)
    exact = load_recipe(size.recipe_name, without | {"train.micro_steps": more})
    with open_world(size.device, threads=1) as world:
        ours = Ours(build(recipe, CONTENDERS[REFERENCE], size.device), recipe, world)
        yield {"ours": (found := [ours.take(batch, step, 1.0) for step in range(NUM_LOSSES)])}
        spec = spec_of("exact", exact, CONTENDERS[REFERENCE], size.device)
        in_float32 = build_model(spec.model_copy(update={"dtype": "float32"}))
        plain = Ours(in_float32, exact, world, "eager")
        yield {"float32": (expected := [plain.take(smaller, s, 1.0) for s in range(NUM_LOSSES)])}
    apart = max(abs(a - b) for a, b in zip(found, expected, strict=True))
    yield {"apart": apart, "says": f"{apart:.5f} nats apart at most in {len(found)} steps"}


def profiled(size: Size) -> Found:
    """Which kernels the time of a step goes to."""
    recipe = size.recipe
    with open_world(size.device, threads=1) as world:
        ours = Ours(build(recipe, CONTENDERS[REFERENCE], size.device), recipe, world)
        batch = random_batch(recipe, size.device)
        for _ in range(2):
            ours.take(batch, 1, 0.0)
        activity = ProfilerActivity.CUDA if size.on_gpu else ProfilerActivity.CPU
        with profile(activities=[activity]) as recorded:
            for _ in range(NUM_PROFILED):
                ours.take(batch, 1, 0.0)

    def own_us(event: Any) -> float:
        taken: float = event.self_device_time_total if size.on_gpu else event.self_cpu_time_total
        return taken

    events = sorted(recorded.key_averages(), key=own_us, reverse=True)
    total_us = sum(map(own_us, events)) or 1.0
    yield {
        "ms_per_step": total_us / 1000 / NUM_PROFILED,
        "kernels": [
            {"name": e.key[:120], "calls": e.count, "share": own_us(e) / total_us}
            for e in events[:NUM_KERNELS]
        ],
    }
    yield {"says": ", ".join(f"{own_us(e) / total_us:.2f} {e.key[:30]}" for e in events[:3])}


def peak_memory(size: Size) -> Found:
    """The most that a step and a batch of scoring take at once."""
    found = memory.measure(size.recipe_name, size.device)
    yield {
        **found,
        "says": f"step {found['step'] / 1e9:.1f} GB, score {found['score'] / 1e9:.1f} GB",
    }


def cells(size: Size) -> Found:
    """Whole cells of ReLU² and of slope 0, which are one function: noise, and time not trained."""
    bpb = {}
    with tempfile.TemporaryDirectory() as folder:
        vocab_size = size.recipe.model.vocab_size
        dataset = f"stdlib-{vocab_size}"
        prepared = prepare_stdlib(dataset, vocab_size, Path(folder), stdlib_corpus()).dataset
        recipe = load_recipe(size.recipe_name, {"data.dataset": dataset})
        about = {
            "budget": size.budget,
            "data_dir": str(prepared.directory),
            "corpus_sha256": prepared.manifest.corpus_sha256,
            "tokenizer_sha256": prepared.manifest.tokenizer_sha256,
        }
        for label, activation in (("relu2", CONTENDERS["relu2"]), *list(SLOPES.items())[:1]):
            out = Path(folder) / label
            out.mkdir()
            spec = spec_of(size.recipe_name, recipe, activation, size.device)
            spec = type(spec).model_validate(spec.model_dump() | about)
            (out / SPEC_FILE).write_text(spec.model_dump_json(), encoding="utf-8")
            command = [sys.executable, "-m", "trainer", "--spec", str(out / SPEC_FILE)]
            start_s = time.perf_counter()
            subprocess.run([*command, "--out", str(out)], cwd=ROOT, check=True)
            whole_s = time.perf_counter() - start_s
            report = json.loads((out / REPORT_FILE).read_bytes())
            bpb[label] = report["post_quant_bpb"]
            rest_s = whole_s - report["train_s"]
            yield {label: {"whole_s": whole_s, "not_training_s": rest_s, "report": report}}
    apart = abs(bpb["relu2"] - bpb["leaky_relu2-s0.0"])
    yield {
        "apart_bpb": apart,
        "says": f"{rest_s:.0f} s not training, {report['compile_misses']} compiled again, "
        f"A/A {apart:.5f} BPB",
    }


def scored(size: Size) -> Found:
    """Sliding windows and test-time training over the plain ones, at equal scores."""
    with open_world(size.device, threads=1) as world:
        recipe = load_recipe(size.scored_name)
        bench = scoring.Bench(recipe, size.scored_name, size.targets, world)
        found = bench.measure(bench.plain(), rounds=2, warmup=1)
    yield {**found, "says": f"over plain {found['ratios']['together']}"}


def mlp(size: Size) -> Found:
    """One layer's MLP: compiled and fused."""
    recipe = size.recipe
    shape = mlp_kernel.Shape(
        tokens=recipe.train.batch_tokens // recipe.train.micro_steps,
        width=recipe.model.width,
        hidden=recipe.model.mlp_hidden,
    )
    forms, peaks = (("eager",), None)
    if size.on_gpu:
        forms, peaks = ("compiled", "fused"), peaks_of(torch.cuda.get_device_name())
    with open_world(size.device, threads=1) as world:
        times = mlp_kernel.measure(shape, world.device, forms, rounds=size.rounds, repeats=3)
    lines = mlp_kernel.table(times, shape, peaks, f"{forms[0]} {REFERENCE}")
    yield {"lines": [asdict(line) for line in lines], "says": str(lines[-1].ratio)}


def reading(size: Size) -> Found:
    """A step that reads its batch, over one that has it."""
    with tempfile.TemporaryDirectory() as folder:
        paths = loader.shards(Path(folder), size.recipe.model.vocab_size)
        share = loader.gpu_share if size.on_gpu else loader.local_share
        found = ratios(share(paths, rounds=size.rounds), "step")
    yield {"ratios": found, "says": "; ".join(f"{name} {ratio}" for name, ratio in found.items())}


def quantizing(size: Size) -> Found:
    """Seconds of quantizing a matrix and of packing an artifact, on the CPU."""
    yield {"seconds": quantize.measure(size.recipe, rounds=2)}
    found = quantize.packing(size.recipe, size.matrices)
    yield {"packing": found, "says": f"packed in {found['whole_s']:.1f} s"}


def _refusal_of_the_fork_server() -> str | None:
    """What a fork server complains of; None if it serves."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "trainer.fork_server.server", str(theirs.fileno())]
    server = subprocess.Popen(
        command, cwd=ROOT, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE, text=True
    )
    theirs.close()
    with ours:
        serves = bool(ours.recv(1))
    said = server.communicate()[1]
    return None if serves else said


def _said(command: list[str]) -> str:
    """What a process of its own prints; what it complains of is in the log."""
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def _cut(batch: MicroBatches, num_sequences: int) -> MicroBatches:
    """The same sequences in micro-batches of ``num_sequences``."""
    return [
        parts
        for micro_batch in batch
        for parts in zip(*(tokens.split(num_sequences) for tokens in micro_batch), strict=True)
    ]


CHECKS: dict[str, Callable[[Size], Found]] = {
    "machine": machine,
    "kernel": kernel,
    "dtypes": dtypes,
    "attention": attention,
    "compilation": compilation,
    "steps": steps,
    "losses": losses,
    "profile": profiled,
    "memory": peak_memory,
    "cell": cells,
    "scoring": scored,
    "mlp": mlp,
    "reading": reading,
    "quantizing": quantizing,
}
