"""One cell in order: build, warm up, train, average, score, pack, measure, score, adapt, report.

Beside a GPU the artifact is compressed, written and read back while the packed weights are scored,
and so is measured what is of weights alone.
"""

import copy
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
import torch
from torch import Tensor

from trainer.compress.artifact import Packed, contained_weights, pack
from trainer.compress.artifact_file import write_artifact
from trainer.compress.calibration import generate, hessians
from trainer.config.config_errors import ConfigError
from trainer.contract import ARTIFACT_FILE, CURVE_FILE, Report, RunSpec, recipe_hash
from trainer.data.loader import Loader, open_loader
from trainer.data.manifest import Dataset, check_content, open_dataset
from trainer.data.prefetch import prefetched
from trainer.data.shards import load_stream
from trainer.distributed.world import World
from trainer.evaluate.bpb import Score, Stream
from trainer.evaluate.slot import slot_score
from trainer.evaluate.ttt import adapt_and_score
from trainer.mechanism.measure import (
    CLASSES_AT_ONCE,
    LayerRow,
    activation_rows,
    validation_sample,
    weight_rows,
)
from trainer.model import GPT
from trainer.model.init import initialize
from trainer.optim.optimizers import newton_schulz_of
from trainer.optim.parameter_kinds import kind_of
from trainer.report_files import Scores, write_curve
from trainer.run_context import RunContext
from trainer.training.averaging import Average
from trainer.training.checkpoint import CheckpointSettings
from trainer.training.step import Training
from trainer.training.train import TrainingHooks, TrainingResult, train, warm_up


def run(
    spec: RunSpec, out: Path, world: World, checkpoint: CheckpointSettings | None = None
) -> Report:
    """Answer ``spec``; rank 0 leaves curve, artifact, layers and report in ``out``.

    With ``checkpoint`` it goes on from the checkpoint that it finds there, and leaves others.
    """
    context = RunContext(spec, out, world)
    checkpointer = context.checkpointer(checkpoint)
    context.progress.report("setup")
    set_matmul_precision(world.device, bfloat16=spec.dtype == "bfloat16")
    dataset = open_dataset(Path(spec.data_dir), spec.recipe.model.vocab_size)
    check_content(dataset.directory, dataset.manifest, spec.corpus_sha256, spec.tokenizer_sha256)
    stream = validation_stream(spec, dataset, world)
    model = placed(build_model(spec), world)
    training = Training(model, spec.recipe, spec.seed, world, context.progress.beat)
    with context.timed("warmup"):
        warm_up(training, _loader(spec, dataset, world))
    average = Average(spec.recipe.averaging, dict(model.named_parameters()))
    context.durations_s["setup"] = max(0.0, _seconds_alive() - context.durations_s["warmup"])
    hooks = TrainingHooks(
        spec.log_every,
        context.on_start,
        context.on_step,
        lambda step: context.validate(model, stream, step),
    )
    context.probe()
    loader = _loader(spec, dataset, world)
    trained = train(training, loader, spec.training_budget, average, hooks, checkpointer)
    if world.is_main:
        write_curve(trained, spec, out / CURVE_FILE)
    if trained.first_bad_step is not None:
        where = f"the training loss of step {trained.first_bad_step} is not finite"
        return context.finish(model, trained, where)
    model.load_state_dict(average.current())
    return _score_all(context, model, trained, dataset, stream)


def set_matmul_precision(device: torch.device, *, bfloat16: bool) -> None:
    """On CUDA float32 products are rounded to TensorFloat-32 in bfloat16 runs, and in no other.

    What is compiled under one rule is not found under the other.
    """
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if bfloat16 else "highest")


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


def placed(model: GPT, world: World) -> GPT:
    """``model`` on the device of each rank, where all ranks compute attention and MLP alike.

    Rank 0 tunes the fused MLP, and the others use what it has found; what is wrong or does not run
    on one rank, no rank uses.
    """
    world.rank_0_first(lambda: model.on_device(world.device))
    without = model.mlp_backend != "triton_fused", model.attention_backend != "flash_attn_3"
    lacks_mlp, lacks_flash = world.largest(
        torch.tensor(without, dtype=torch.float32, device=world.device)
    ).tolist()
    return model.on_device(world.device, fused=not lacks_mlp, flash=not lacks_flash)


def validation_stream(spec: RunSpec, dataset: Dataset, world: World) -> Stream:
    """The validation targets that the recipe scores, from the start of the split.

    A whole number of sequences, those of training or those of scoring, whichever are longer.
    """
    tokens = load_stream(dataset.val_paths)
    scoring = spec.recipe.scoring
    available = len(tokens) - 1
    num_val = available if scoring.max_targets is None else min(scoring.max_targets, available)
    length = max(scoring.seq_len, spec.recipe.train.seq_len)
    num_targets = num_val // length * length
    if num_targets == 0:
        raise ConfigError(
            f"the validation split gives {num_val} targets, fewer than one sequence of {length}: "
            f"use more text, a larger scoring.max_targets, or a shorter train.seq_len and "
            f"scoring.seq_len."
        )
    tokens = tokens[: num_targets + 1]
    target_bytes = dataset.val_target_bytes(tokens)
    return Stream(
        tokens=torch.as_tensor(tokens.astype("int64"), device=world.device),
        target_bytes=torch.as_tensor(target_bytes, device=world.device),
    )


def _score_all(
    context: RunContext, model: GPT, trained: TrainingResult, dataset: Dataset, stream: Stream
) -> Report:
    recipe = context.spec.recipe
    with context.timed("score"):
        pre = context.score(model, stream, recipe.scoring.seq_len)
    if not pre.is_finite:
        return context.finish(model, trained, "the pre-quantization score is not finite")
    with context.timed("pack"):
        packed = _pack(context, model, dataset)
    path = context.out / ARTIFACT_FILE
    written = context.begin("pack", lambda: write_artifact(packed, recipe.quantization, path))
    layers = _measure(context, model, stream, packed)
    with context.counted("eval"):
        with context.counted("pack"):
            model.load_state_dict(contained_weights(packed.plain, recipe.quantization))
        with context.timed("score"):
            post = context.score(model, stream, recipe.scoring.seq_len)
            slid = post
            if recipe.scoring.stride != recipe.scoring.seq_len:
                slid = context.score(model, stream, recipe.scoring.stride)
        adapted, left_by_ttt = _adapt(context, model, stream)
    shifted = _shift(context, model, left_by_ttt, stream)
    file = written()
    context.add("eval", file.read_s)
    scores = Scores(pre, post, slid, adapted, shifted, packed, file.num_bytes, layers())
    return context.finish(model, trained, scores)


def _pack(context: RunContext, model: GPT, dataset: Dataset) -> Packed:
    """The averaged weights as rank 0 quantizes them."""
    recipe, weights = context.spec.recipe, dict(model.named_parameters())
    hessians_found = None
    if recipe.quantization.matrices == "gptq":
        with context.counted("calibrate"):
            hessians_found = _calibrate(context, model, dataset)
    return context.world.on_rank_0(
        lambda: pack(
            weights,
            recipe.quantization,
            recipe_hash(recipe),
            code_bytes=recipe.artifact.code_bytes,
            hessians=hessians_found,
            beat=context.progress.beat,
        )
    )


def _measure(
    context: RunContext, model: GPT, stream: Stream, packed: Packed
) -> Callable[[], tuple[LayerRow, ...]]:
    """What the mechanism study needs of the averaged weights, on rank 0; the others go on.

    The device measures activations now. What is of the weights alone is begun, and waited for where
    the result is called.
    """
    world, recipe, beat = context.world, context.spec.recipe, context.progress.beat
    rows: tuple[LayerRow, ...] = ()
    weights = {}
    with context.timed("mechanism"), context.outside_peak_memory():
        if world.is_main:
            sample_NT = validation_sample(stream, recipe.scoring.seq_len)
            rows = tuple(activation_rows(model, sample_NT, beat))
            weights = {
                name: p.detach().to("cpu", torch.float32, copy=True)
                for name, p in model.named_parameters()
            }
    at_once, said = (CLASSES_AT_ONCE, _nothing) if world.has_spare_cores else (1, beat)
    of_weights = context.begin(
        "mechanism", lambda: weight_rows(weights, packed, recipe.quantization, at_once, said)
    )
    return lambda: (*rows, *of_weights())


def _calibrate(context: RunContext, model: GPT, dataset: Dataset) -> Mapping[str, Tensor]:
    """The Hessians that GPTQ weighs its errors with.

    As published, training data serves the banks alone, and generated text the projections too, a
    sequence at a time and without its last token.
    """
    spec, world = context.spec, context.world
    gptq, beat = spec.recipe.quantization.gptq, context.progress.beat
    if gptq.calibration == "train":
        batches = _loader(spec, dataset, world).calibration(gptq.batches)
        found = hessians(model, batches, gptq.batches, gptq, world, beat)
        return {name: hessian for name, hessian in found.items() if kind_of(name) == "matrices"}
    written = generate(
        model,
        gptq,
        length=spec.recipe.train.seq_len,
        seed=spec.seed,
        world=world,
        beat=beat,
    )
    sequences = [tokens_1T[:, :-1] for tokens_BT in written for tokens_1T in tokens_BT.split(1)]
    return hessians(model, sequences, len(sequences), gptq, world, beat)


def _adapt(context: RunContext, model: GPT, stream: Stream) -> tuple[Score | None, GPT]:
    """The score of test-time training and the model that it leaves; ``model`` stays as it is.

    None, and ``model``, where the recipe does without.
    """
    recipe, world = context.spec.recipe, context.world
    if recipe.ttt is None:
        return None, model
    copied = copy.deepcopy(model)
    with context.timed("ttt"):
        adapted = adapt_and_score(
            copied,
            stream,
            scoring=recipe.scoring,
            ttt=recipe.ttt,
            world=world,
            newton_schulz=newton_schulz_of(recipe.optim),
            sink=context.beat,
            beat=context.progress.beat,
            compiling=context.compiling,
        )
    return adapted, copied


def _shift(context: RunContext, model: GPT, left_by_ttt: GPT, stream: Stream) -> Score | None:
    """The score of SLOT, None where the recipe does without.

    The published one runs on the model that test-time training has left, the causal one on
    ``model``.
    """
    recipe = context.spec.recipe
    if recipe.slot is None:
        return None
    with context.timed("slot"):
        return slot_score(
            left_by_ttt if recipe.slot.mode == "published" else model,
            stream,
            scoring=recipe.scoring,
            slot=recipe.slot,
            virtual_world=recipe.data.virtual_world,
            world=context.world,
            sink=context.beat,
        )


def _loader(spec: RunSpec, dataset: Dataset, world: World) -> Loader:
    recipe = spec.recipe
    loader = open_loader(dataset, recipe.data, recipe.train, rank=world.rank, world_size=world.size)
    return prefetched(loader, world.device)


def _nothing() -> None:
    """Another phase goes on meanwhile, and says so itself."""


def _seconds_alive() -> float:
    return time.time() - float(psutil.Process().create_time())
