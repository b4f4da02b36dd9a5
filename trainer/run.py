"""One cell in order: build, warm up, train, average, score, pack, unpack, score, adapt, report."""

import copy
import math
import platform
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from trainer.artifact import Packed, pack, unpack
from trainer.averaging import Average
from trainer.contract import (
    ARTIFACT_FILE,
    CURVE_COLUMNS,
    CURVE_FILE,
    REPORT_FILE,
    Report,
    RunSpec,
    recipe_hash,
)
from trainer.data.loader import SequentialLoader
from trainer.data.manifest import Dataset, open_dataset
from trainer.data.shards import load_stream
from trainer.files import write_atomically
from trainer.kernels.mlp import BACKEND as MLP_BACKEND
from trainer.model import GPT
from trainer.model.attention import BACKEND as ATTENTION_BACKEND
from trainer.model.init import initialize
from trainer.progress import Progress
from trainer.scoring.bpb import Score, Stream, score
from trainer.scoring.ttt import adapt_and_score
from trainer.scoring.windows import windows
from trainer.source import trainer_source
from trainer.strict import ConfigError
from trainer.train import StepLog, Trained, train, warm_up
from trainer.world import World


def run(spec: RunSpec, out: Path, world: World) -> Report:
    """Answer ``spec``; rank 0 leaves curve, artifact and report in ``out``."""
    cell = _Cell(spec, out, world)
    cell.progress.report("setup")
    dataset = _checked_dataset(spec)
    model = build_model(spec).to(world.device)
    with cell.timed("warmup"):
        warm_up(model, spec.recipe, _loader(spec, dataset, world), world)
    average = Average(spec.recipe.averaging, dict(model.named_parameters()))
    cell.setup_s = max(0.0, _seconds_alive() - cell.seconds["warmup"])
    trained = train(
        model,
        _loader(spec, dataset, world),
        spec.recipe,
        spec.parsed_budget,
        average,
        world,
        check_every=spec.log_every,
        on_step=cell.on_step,
    )
    if world.is_main:
        write_curve(trained, spec, out / CURVE_FILE)
    if trained.first_bad_step is not None:
        where = f"the training loss of step {trained.first_bad_step} is not finite"
        return cell.finish(model, trained, diverged=where)
    stream = validation_stream(spec, dataset, world)
    return _score_all(cell, model, trained, average, stream)


def build_model(spec: RunSpec) -> GPT:
    """The model of ``spec`` on the CPU, with the weights of its seed."""
    model = GPT(
        spec.recipe.model,
        activation=spec.activation.name,
        activation_params=spec.activation.params,
        num_positions=max(spec.recipe.train.seq_len, spec.recipe.scoring.seq_len),
        dtype=torch.bfloat16 if spec.dtype == "bfloat16" else torch.float32,
    )
    initialize(model, spec.seed)
    return model


def validation_stream(spec: RunSpec, dataset: Dataset, world: World) -> Stream:
    """The validation targets that the recipe scores: a whole number of windows, from the start."""
    tokens = load_stream(dataset.val_paths)
    scoring = spec.recipe.scoring
    available = len(tokens) - 1
    wanted = available if scoring.max_targets is None else min(scoring.max_targets, available)
    num_targets = wanted // scoring.seq_len * scoring.seq_len
    if num_targets == 0:
        raise ConfigError(
            f"the validation split has {len(tokens)} tokens, fewer than one scoring window of "
            f"{scoring.seq_len} and the token after it: use more text or a shorter "
            f"scoring.seq_len."
        )
    tokens = tokens[: num_targets + 1]
    target_bytes = dataset.byte_table.count(tokens[:-1], tokens[1:])
    return Stream(
        tokens=torch.as_tensor(tokens.astype("int64"), device=world.device),
        target_bytes=torch.as_tensor(target_bytes, device=world.device),
    )


def write_curve(trained: Trained, spec: RunSpec, path: Path) -> None:
    """One row per step: the loss of its batch before the update, as ``CURVE_COLUMNS``."""
    rows = [
        (
            log.step,
            log.step * spec.recipe.train.batch_tokens,
            log.elapsed_s,
            loss,
            log.lr_mult,
        )
        for log, loss in zip(trained.steps, trained.losses, strict=True)
    ]
    types = (pa.int64(), pa.int64(), pa.float64(), pa.float64(), pa.float64())
    columns = [pa.array([row[i] for row in rows], type=kind) for i, kind in enumerate(types)]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(dict(zip(CURVE_COLUMNS, columns, strict=True))), sink)
    write_atomically(path, sink.getvalue().to_pybytes())


def _score_all(
    cell: "_Cell", model: GPT, trained: Trained, average: Average, stream: Stream
) -> Report:
    spec, world = cell.spec, cell.world
    scoring = spec.recipe.scoring
    contiguous = windows(stream.num_targets, scoring.seq_len, scoring.seq_len)
    sliding = windows(stream.num_targets, scoring.seq_len, scoring.stride)

    model.load_state_dict(average.current())
    with cell.timed("score"):
        pre = score(model, stream, contiguous, batch_seqs=scoring.batch_seqs, world=world)
    if not pre.is_finite:
        return cell.finish(model, trained, diverged="the pre-quantization score is not finite")
    with cell.timed("pack"):
        packed = pack(
            dict(model.named_parameters()), spec.recipe.quantization, recipe_hash(spec.recipe)
        )
        if world.is_main:
            write_atomically(cell.out / ARTIFACT_FILE, packed.data)
        model.load_state_dict(
            unpack(packed.data, spec.recipe.quantization, recipe_hash(spec.recipe))
        )
    with cell.timed("score"):
        post = score(model, stream, contiguous, batch_seqs=scoring.batch_seqs, world=world)
        slid = score(model, stream, sliding, batch_seqs=scoring.batch_seqs, world=world)
    adapted = None
    if spec.recipe.ttt is not None:
        with cell.timed("ttt"):
            adapted = adapt_and_score(
                copy.deepcopy(model), stream, scoring=scoring, ttt=spec.recipe.ttt, world=world
            )
    scores = _Scores(pre=pre, post=post, sliding=slid, ttt=adapted)
    return cell.finish(model, trained, scores=scores, packed=packed)


@dataclass(frozen=True, slots=True)
class _Scores:
    pre: Score
    post: Score
    sliding: Score
    ttt: Score | None

    def first_bad(self) -> str | None:
        named = {
            "post-quantization": self.post,
            "sliding": self.sliding,
            "test-time-training": self.ttt,
        }
        bad = (name for name, s in named.items() if s is not None and not s.is_finite)
        return next(bad, None)


@dataclass
class _Cell:
    """What one run carries from step to step: where it writes, how long its parts took."""

    spec: RunSpec
    out: Path
    world: World
    progress: Progress = field(init=False)
    seconds: dict[str, float] = field(default_factory=dict)
    setup_s: float = 0.0

    def __post_init__(self) -> None:
        self.progress = Progress(self.out, enabled=self.world.is_main)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Count what happens inside towards ``phase``."""
        self.progress.report(phase)
        start_s = time.perf_counter()
        yield
        self.world.synchronize()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - start_s

    def on_step(self, log: StepLog, loss: Tensor) -> None:
        self.progress.report(
            "train", step=log.step, remaining_steps=log.remaining_steps, step_ms=log.step_ms
        )
        if self.world.is_main and log.step % self.spec.log_every == 0:
            mean_ms = 1000 * log.elapsed_s / log.step
            print(
                f"step:{log.step} train_loss:{float(loss) * self.world.size:.4f} "
                f"train_time:{1000 * log.elapsed_s:.0f}ms step_avg:{mean_ms:.2f}ms",
                flush=True,
            )

    def finish(
        self,
        model: GPT,
        trained: Trained,
        *,
        scores: _Scores | None = None,
        packed: Packed | None = None,
        diverged: str | None = None,
    ) -> Report:
        """The report; where a score is not finite the run has diverged and no score stands."""
        bad = scores.first_bad() if scores is not None else None
        if bad is not None:
            scores, diverged = None, f"the {bad} score is not finite"
        spec, recipe, source = self.spec, self.spec.recipe, trainer_source()
        step_ms = sorted(log.step_ms for log in trained.steps)
        beta = _beta(model)
        model_bytes = len(packed.data) if packed is not None and scores is not None else None
        artifact_bytes = None if model_bytes is None else model_bytes + recipe.artifact.code_bytes
        report = Report(
            state="succeeded" if diverged is None else "diverged",
            reason=diverged,
            steps=len(trained.steps),
            tokens=len(trained.steps) * recipe.train.batch_tokens,
            train_s=trained.train_s,
            step_ms_p50=statistics.median(step_ms) if step_ms else None,
            step_ms_p99=step_ms[math.ceil(0.99 * len(step_ms)) - 1] if step_ms else None,
            train_loss=_final_loss(trained),
            val_tokens=scores.pre.num_tokens if scores else None,
            val_bytes=scores.pre.num_bytes if scores else None,
            window=recipe.scoring.seq_len,
            stride=recipe.scoring.stride,
            pre_quant_loss=scores.pre.loss if scores else None,
            pre_quant_bpb=scores.pre.bpb if scores else None,
            pre_quant_sliding_bpb=None,
            post_quant_loss=scores.post.loss if scores else None,
            post_quant_bpb=scores.post.bpb if scores else None,
            post_quant_sliding_bpb=scores.sliding.bpb if scores else None,
            ttt_bpb=scores.ttt.bpb if scores and scores.ttt else None,
            beta_mean=float(beta.mean()) if beta is not None and scores else None,
            beta_std=float(beta.std(correction=0)) if beta is not None and scores else None,
            floored_rows=packed.floored_rows if packed is not None else None,
            num_params=sum(p.numel() for p in model.parameters()),
            model_bytes=model_bytes,
            code_bytes=recipe.artifact.code_bytes,
            trainer_source_bytes=source.num_bytes,
            artifact_bytes=artifact_bytes,
            fits_cap=None
            if artifact_bytes is None
            else artifact_bytes <= recipe.artifact.cap_bytes,
            world_size=self.world.size,
            device=spec.device,
            device_name=_device_name(self.world.device),
            dtype=spec.dtype,
            attention_backend=ATTENTION_BACKEND,
            mlp_backend=MLP_BACKEND,
            peak_memory_bytes=_peak_memory_bytes(self.world.device),
            setup_s=self.setup_s,
            warmup_s=self.seconds.get("warmup", 0.0),
            score_s=self.seconds.get("score", 0.0),
            ttt_s=self.seconds.get("ttt", 0.0),
            pack_s=self.seconds.get("pack", 0.0),
            corpus_sha256=spec.corpus_sha256,
            tokenizer_sha256=spec.tokenizer_sha256,
            recipe_hash=recipe_hash(recipe),
            trainer_hash=source.sha256,
            python=platform.python_version(),
            torch=torch.__version__,
        )
        if self.world.is_main:
            self.progress.report("done")
            write_atomically(self.out / REPORT_FILE, report.model_dump_json(indent=1).encode())
        return report


def _checked_dataset(spec: RunSpec) -> Dataset:
    dataset = open_dataset(Path(spec.data_dir), spec.recipe.model.vocab_size)
    found = dataset.manifest.corpus_sha256, dataset.manifest.tokenizer_sha256
    if found != (spec.corpus_sha256, spec.tokenizer_sha256):
        raise ConfigError(
            f"{spec.data_dir}: the specification asks for corpus {spec.corpus_sha256[:12]} and "
            f"tokenizer {spec.tokenizer_sha256[:12]}, here are {found[0][:12]} and "
            f"{found[1][:12]}. Point data_dir at the data that was meant, or plan again."
        )
    return dataset


def _loader(spec: RunSpec, dataset: Dataset, world: World) -> SequentialLoader:
    train_config = spec.recipe.train
    return SequentialLoader(
        dataset.train_paths,
        batch_tokens=train_config.batch_tokens,
        seq_len=train_config.seq_len,
        micro_steps=train_config.micro_steps,
        rank=world.rank,
        world_size=world.size,
    )


def _final_loss(trained: Trained) -> float | None:
    last = trained.losses[-max(1, len(trained.losses) // 10) :]
    return statistics.fmean(last) if last and all(map(math.isfinite, last)) else None


def _beta(model: GPT) -> Tensor | None:
    """β of every layer and channel of the squared family; None for activations without one."""
    betas = [getattr(module, "beta", None) for module in model.activations]
    known = [b.detach().float().flatten() for b in betas if isinstance(b, Tensor)]
    return torch.cat(known) if known else None


def _seconds_alive() -> float:
    return time.time() - float(psutil.Process().create_time())


def _peak_memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())
