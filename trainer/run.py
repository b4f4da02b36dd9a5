"""One cell in order: build, warm up, train, average, score, pack, unpack, score, adapt, report."""

import copy
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch
from torch import Tensor

from trainer.artifact import pack, unpack
from trainer.averaging import Average
from trainer.calibration import generate, hessians
from trainer.contract import (
    ARTIFACT_FILE,
    CURVE_FILE,
    REPORT_FILE,
    Report,
    RunSpec,
    recipe_hash,
)
from trainer.data.loader import Loader, open_loader
from trainer.data.manifest import Dataset, open_dataset
from trainer.data.shards import load_stream
from trainer.files import write_atomically
from trainer.model import GPT
from trainer.model.init import initialize
from trainer.optim import kind_of, newton_schulz_of
from trainer.progress import Progress
from trainer.reporting import Scores, make_report, write_curve
from trainer.scoring.bpb import Score, Stream, score
from trainer.scoring.slot import slot_score
from trainer.scoring.ttt import adapt_and_score
from trainer.scoring.windows import windows
from trainer.strict import ConfigError
from trainer.train import StepLog, Trained, Training, Watch, train, warm_up
from trainer.world import World


def run(spec: RunSpec, out: Path, world: World) -> Report:
    """Answer ``spec``; rank 0 leaves curve, artifact and report in ``out``."""
    cell = _Cell(spec, out, world)
    cell.progress.report("setup")
    if spec.device == "cuda":  # TensorFloat-32 has a place in bfloat16 runs alone
        torch.set_float32_matmul_precision("high" if spec.dtype == "bfloat16" else "highest")
    dataset = _checked_dataset(spec)
    stream = validation_stream(spec, dataset, world)
    model = build_model(spec).on_device(world.device)
    training = Training(model, spec.recipe, spec.seed, world)
    with cell.timed("warmup"):
        warm_up(training, _loader(spec, dataset, world))
    average = Average(spec.recipe.averaging, dict(model.named_parameters()))
    cell.durations_s["setup"] = max(0.0, _seconds_alive() - cell.durations_s["warmup"])
    watch = Watch(spec.log_every, cell.on_step, lambda step: cell.validate(model, stream, step))
    trained = train(training, _loader(spec, dataset, world), spec.training_budget, average, watch)
    if world.is_main:
        write_curve(trained, spec, out / CURVE_FILE)
    if trained.first_bad_step is not None:
        where = f"the training loss of step {trained.first_bad_step} is not finite"
        return cell.finish(model, trained, where)
    model.load_state_dict(average.current())
    return _score_all(cell, model, trained, dataset, stream)


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
    model.set_precision()
    return model


def validation_stream(spec: RunSpec, dataset: Dataset, world: World) -> Stream:
    """The validation targets that the recipe scores, from the start of the split.

    A whole number of sequences, those of training or those of scoring, whichever are longer.
    """
    tokens = load_stream(dataset.val_paths)
    scoring = spec.recipe.scoring
    available = len(tokens) - 1
    wanted = available if scoring.max_targets is None else min(scoring.max_targets, available)
    length = max(scoring.seq_len, spec.recipe.train.seq_len)
    num_targets = wanted // length * length
    if num_targets == 0:
        raise ConfigError(
            f"the validation split gives {wanted} targets, fewer than one sequence of {length}: "
            f"use more text, a larger scoring.max_targets, or a shorter train.seq_len and "
            f"scoring.seq_len."
        )
    tokens = tokens[: num_targets + 1]
    target_bytes = dataset.byte_table.count(tokens[:-1], tokens[1:])
    return Stream(
        tokens=torch.as_tensor(tokens.astype("int64"), device=world.device),
        target_bytes=torch.as_tensor(target_bytes, device=world.device),
    )


def _score_all(
    cell: "_Cell", model: GPT, trained: Trained, dataset: Dataset, stream: Stream
) -> Report:
    recipe, world = cell.spec.recipe, cell.world
    which = recipe_hash(recipe)
    with cell.timed("score"):
        pre = cell.score(model, stream, recipe.scoring.seq_len)
    if not pre.is_finite:
        return cell.finish(model, trained, "the pre-quantization score is not finite")
    with cell.timed("pack"):
        packed = pack(
            dict(model.named_parameters()),
            recipe.quantization,
            which,
            code_bytes=recipe.artifact.code_bytes,
            hessians=_calibrate(cell, model, dataset),
            beat=cell.progress.beat,
        )
        data = world.bytes_of_rank_0(packed.data)
        if world.is_main:
            write_atomically(cell.out / ARTIFACT_FILE, data)
        weights = dict(model.named_parameters())
        model.load_state_dict(unpack(data, recipe.quantization, which, like=weights))
    with cell.timed("score"):
        post = cell.score(model, stream, recipe.scoring.seq_len)
        slid = post
        if recipe.scoring.stride != recipe.scoring.seq_len:
            slid = cell.score(model, stream, recipe.scoring.stride)
    adapted, shifted = _adapt(cell, model, stream)
    return cell.finish(model, trained, Scores(pre, post, slid, adapted, shifted, packed))


def _calibrate(cell: "_Cell", model: GPT, dataset: Dataset) -> Mapping[str, Tensor] | None:
    """The Hessians that GPTQ weighs its errors with; None where nothing asks for them.

    As published, training data serves the banks alone, and generated text the projections too, a
    sequence at a time and without its last token.
    """
    spec, world = cell.spec, cell.world
    gptq = spec.recipe.quantization.gptq
    if spec.recipe.quantization.matrices != "gptq":
        return None
    if gptq.calibration == "train":
        batches = _loader(spec, dataset, world).calibration(gptq.batches)
        found = hessians(model, batches, gptq.batches, gptq, world)
        return {name: hessian for name, hessian in found.items() if kind_of(name) == "matrices"}
    written = generate(
        model,
        gptq,
        vocab_size=spec.recipe.model.vocab_size,
        length=spec.recipe.train.seq_len,
        seed=spec.seed,
        world=world,
        beat=cell.progress.beat,
    )
    sequences = [tokens_1T[:, :-1] for tokens_BT in written for tokens_1T in tokens_BT.split(1)]
    return hessians(model, sequences, len(sequences), gptq, world)


def _adapt(cell: "_Cell", model: GPT, stream: Stream) -> tuple[Score | None, Score | None]:
    """The scores of test-time training and of SLOT, each None where the recipe does without.

    The published SLOT runs on the model that test-time training has left, the causal one on
    ``model``, which stays as it is.
    """
    recipe, world = cell.spec.recipe, cell.world
    adapted = shifted = None
    if recipe.ttt is not None:
        copied = copy.deepcopy(model)
        with cell.timed("ttt"):
            adapted = adapt_and_score(
                copied,
                stream,
                scoring=recipe.scoring,
                ttt=recipe.ttt,
                world=world,
                newton_schulz=newton_schulz_of(recipe.optim),
                sink=cell.beat,
            )
        if recipe.slot is not None and recipe.slot.mode == "published":
            model = copied
    if recipe.slot is not None:
        with cell.timed("slot"):
            shifted = slot_score(
                model,
                stream,
                scoring=recipe.scoring,
                slot=recipe.slot,
                virtual_world=recipe.data.virtual_world,
                world=world,
                sink=cell.beat,
            )
    return adapted, shifted


@dataclass
class _Cell:
    """What one run carries from step to step: where it writes, how long its parts took."""

    spec: RunSpec
    out: Path
    world: World
    progress: Progress = field(init=False)
    durations_s: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.progress = Progress(self.out, enabled=self.world.is_main)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Count what happens inside towards ``phase``."""
        self.progress.report(phase)
        start_s = time.perf_counter()
        yield
        self.world.synchronize()
        taken_s = time.perf_counter() - start_s
        self.durations_s[phase] = self.durations_s.get(phase, 0.0) + taken_s

    def beat(self, targets_BS: Tensor, nll_BS: Tensor) -> None:
        """Say that a batch has been scored: a long score is no hang."""
        self.progress.beat()

    def score(self, model: GPT, stream: Stream, stride: int) -> Score:
        """Of the validation targets in windows every ``stride``."""
        scoring = self.spec.recipe.scoring
        return score(
            model,
            stream,
            windows(stream.num_targets, scoring.seq_len, stride, scoring.tail),
            batch_seqs=scoring.batch_seqs,
            world=self.world,
            sink=self.beat,
        )

    def validate(self, model: GPT, stream: Stream, step: int) -> Score:
        """The contiguous score of the weights after ``step`` updates, printed."""
        self.progress.report("validate", step=step)
        result = self.score(model, stream, self.spec.recipe.scoring.seq_len)
        if self.world.is_main:
            print(f"step:{step} val_loss:{result.loss:.4f} val_bpb:{result.bpb:.4f}", flush=True)
        return result

    def on_step(self, log: StepLog, loss: float | None) -> None:
        self.progress.report(
            "train", step=log.step, remaining_steps=log.remaining_steps, step_ms=log.step_ms
        )
        if self.world.is_main and loss is not None:
            mean_ms = 1000 * log.elapsed_s / log.step
            print(
                f"step:{log.step} train_loss:{loss:.4f} "
                f"train_time:{1000 * log.elapsed_s:.0f}ms step_avg:{mean_ms:.2f}ms",
                flush=True,
            )

    def finish(self, model: GPT, trained: Trained, result: Scores | str) -> Report:
        """Make the report and leave it, as the last of the run's files."""
        report = make_report(self.spec, self.world, model, trained, result, self.durations_s)
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


def _loader(spec: RunSpec, dataset: Dataset, world: World) -> Loader:
    recipe = spec.recipe
    return open_loader(dataset, recipe.data, recipe.train, rank=world.rank, world_size=world.size)


def _seconds_alive() -> float:
    return time.time() - float(psutil.Process().create_time())
