"""One cell, from its specification to its report, in this process and as one rank."""

import itertools
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.support.reference import BETA
from tests.support.tiny import (
    RANK_0,
    answer,
    random_tokens,
    read_curve,
    read_report,
    run_cell,
    tiny_model,
    tiny_recipe,
    tiny_spec,
)
from trainer.activations import ACTIVATIONS
from trainer.cell import build_model, run, validation_stream
from trainer.compress.artifact import unpack
from trainer.config.config_errors import ConfigError
from trainer.contract import ARTIFACT_FILE
from trainer.data.loader import open_loader
from trainer.data.manifest import open_dataset
from trainer.distributed.world import World
from trainer.evaluate.bpb import Score, score
from trainer.evaluate.ttt import adapt_and_score
from trainer.evaluate.windows import windows
from trainer.model.embeddings import HashedBigram
from trainer.optim.optimizers import Optimizers
from trainer.training.step import Training, take_step
from trainer.training.train import train, warm_up

SCORES = (
    "pre_quant_loss",
    "pre_quant_bpb",
    "post_quant_loss",
    "post_quant_bpb",
    "post_quant_sliding_bpb",
    "ttt_bpb",
)


@pytest.fixture(scope="module")
def spec(data_dir):
    return tiny_spec(data_dir, activation="asqu")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("cell")


@pytest.fixture(scope="module")
def report(spec, out):
    """The cell that most of the claims are about: ASQU, four steps."""
    return run_cell(spec, out)


def scores(report):
    return {name: getattr(report, name) for name in SCORES}


def loader_of(spec):
    dataset = open_dataset(Path(spec.data_dir), spec.recipe.model.vocab_size)
    return open_loader(dataset, spec.recipe.data, spec.recipe.train, rank=0, world_size=1)


# -- what a run leaves


def test_the_time_limits_of_the_field_hold_for_what_they_are_about(data_dir, tmp_path):
    """Calibration counts as training; what is scored before packing does not count as evaluation,
    and neither does a SLOT score that is not legal."""

    def told(**changes):
        ways = {"quantization.matrices": "gptq", "quantization.gptq.batches": 2, **changes}
        spec = tiny_spec(data_dir, activation="relu2", budget="2steps", overrides=ways)
        return run_cell(spec, tmp_path)

    slot = {"slot.mode": "causal", "slot.lr": 0.01, "slot.steps": 1, "slot.batch_seqs": 8}
    legal = told(**slot)
    assert 0 < legal.calibrate_s < legal.pack_s
    assert legal.ttt_s + legal.slot_s < legal.eval_s
    assert legal.eval_s < legal.ttt_s + legal.slot_s + legal.score_s + legal.pack_s
    assert legal.fits_train_cap
    assert legal.fits_eval_cap
    published = told(**slot | {"slot.mode": "published", "artifact.eval_cap_s": 1e-3})
    assert published.ttt_s < published.eval_s
    assert published.eval_s < published.ttt_s + published.score_s + published.pack_s
    assert published.fits_train_cap
    assert not published.fits_eval_cap
    assert not told(**{"artifact.train_cap_s": 1e-9}).fits_train_cap
    assert told(**{"quantization.matrices": "int6_row"}).calibrate_s is None


@pytest.mark.parametrize(
    "name", [n if n == "xielu" else pytest.param(n, marks=pytest.mark.slow) for n in ACTIVATIONS]
)
def test_every_activation_trains_learns_and_is_scored(data_dir, tmp_path, name):
    """ASQU, RReLU² and LeakyReLU² do so in the tests below too."""
    report = run_cell(tiny_spec(data_dir, activation=name, budget="12steps"), tmp_path)
    losses = read_curve(tmp_path)["train_loss"]
    assert report.state == "succeeded"
    assert losses[-1] < losses[0]
    assert all(value is not None for value in scores(report).values())
    assert (report.beta_mean is not None) == (report.beta_std is not None) == (name in BETA)


def test_the_curve_counts_from_one_and_ends_with_the_budget(report, out, spec):
    curve = read_curve(out)
    columns = ["step", "tokens", "train_s", "train_loss", "lr_mult", "val_loss", "val_bpb"]
    assert list(curve) == columns
    assert set(curve["val_loss"]) == set(curve["val_bpb"]) == {None}
    assert curve["step"] == [1, 2, 3, 4]
    assert curve["tokens"] == [256, 512, 768, 1024]
    assert curve["lr_mult"] == [1.0, 1.0, 1.0, 0.5]
    assert curve["train_s"] == sorted(curve["train_s"])
    assert (report.steps, report.tokens) == (4, 1024)
    assert report.train_s == curve["train_s"][-1]


def by_hand(spec, num_steps):
    """The losses and the averaged weights of a training loop that is written out here."""
    recipe, model, loader = spec.recipe, build_model(spec), loader_of(spec)
    optimizers = Optimizers(model, recipe.optim, RANK_0)
    decay, warmdown = recipe.averaging.decay, recipe.train.warmdown_steps
    average = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses = []
    for step in range(num_steps):
        batch = loader.next_batch()
        loss = sum(model.nll(x, y).mean() for x, y in batch) / len(batch)
        loss.backward()
        norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
        with torch.no_grad():
            for p in model.parameters():
                p.grad *= min(1.0, recipe.optim.grad_clip / float(norm + 1e-6))
        optimizers.step(step, min(1.0, (num_steps - step) / warmdown))
        for name, p in model.named_parameters():
            average[name] = decay * average[name] + (1 - decay) * p.detach()
        losses.append(float(loss.detach()))
    model.load_state_dict(average)
    return losses, model


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {
            "optim.grad_clip": 0.01,
            "train.warmdown_steps": 40,
            "optim.muon_momentum_warmup_steps": 3,
            "optim.muon_momentum_start": 0.0,
        },
    ],
    ids=["tiny", "in another way"],
)
def test_a_run_is_the_training_loop_written_out(data_dir, tmp_path, overrides):
    """Weight decay is raised, so that it would show. Tolerance: the loops round differently, 2⁻²⁴
    of gradients that orthogonalize magnifies by up to 485, in six steps: 6 · 485 · 2⁻²⁴."""
    overrides = {"optim.weight_decay": 2.0} | overrides
    spec = tiny_spec(data_dir, activation="asqu", budget="6steps", overrides=overrides)
    report = run_cell(spec, tmp_path)
    losses, averaged = by_hand(spec, 6)
    tolerance = 6 * 485 * 2.0**-24
    assert read_curve(tmp_path)["train_loss"] == pytest.approx(losses, abs=tolerance)
    dataset = open_dataset(Path(spec.data_dir), spec.recipe.model.vocab_size)
    stream = validation_stream(spec, dataset, RANK_0)
    plan = windows(stream.num_targets, 32, 32)
    expected = score(averaged, stream, plan, batch_seqs=32, world=RANK_0)
    assert report.pre_quant_loss == pytest.approx(expected.loss, abs=tolerance)


def test_only_training_is_on_the_clock(monkeypatch, data_dir, tmp_path):
    """Not warm-up, set-up or scoring: the clock covers the steps and nothing outside of train()."""
    spent = []

    def timed(function):
        def wrapper(*arguments, **options):
            start_s = time.perf_counter()
            result = function(*arguments, **options)
            spent.append((function.__name__, time.perf_counter() - start_s))
            return result

        return wrapper

    monkeypatch.setattr("trainer.cell.train", timed(train))
    monkeypatch.setattr("trainer.training.train.take_step", timed(take_step))
    report = run_cell(tiny_spec(data_dir), tmp_path)
    steps_s = [duration for name, duration in spent if name == "take_step"]
    (train_s,) = (duration for name, duration in spent if name == "train")
    assert len(steps_s) == 5  # one of warm-up
    assert sum(steps_s[1:]) <= report.train_s <= train_s


def test_the_artifacts_size_is_its_file_and_the_recipes_code(report, out, spec):
    assert report.model_bytes == (out / ARTIFACT_FILE).stat().st_size
    assert report.code_bytes == spec.recipe.artifact.code_bytes
    assert report.artifact_bytes == report.model_bytes + report.code_bytes
    assert report.fits_cap


def test_fits_cap_is_true_up_to_the_cap_and_false_beyond(data_dir, tmp_path, report):
    """The artifact's bytes do not depend on its cap but for the recipe's hash within them."""
    size = report.artifact_bytes
    for cap in (size - 40, size + 40):
        overrides = {"artifact.cap_bytes": cap}
        found = run_cell(
            tiny_spec(data_dir, activation="asqu", overrides=overrides), tmp_path / str(cap)
        )
        assert found.fits_cap == (found.artifact_bytes <= cap) == (cap > size)


def read_back(spec, out):
    """The model of the artifact on disk and the text that it is scored on."""
    config = spec.recipe.quantization
    model = build_model(spec)
    model.load_state_dict(unpack((out / ARTIFACT_FILE).read_bytes(), config))
    dataset = open_dataset(Path(spec.data_dir), spec.recipe.model.vocab_size)
    return model, validation_stream(spec, dataset, RANK_0)


def test_the_artifact_read_back_has_the_scores_of_the_report_exactly(report, out, spec):
    model, stream = read_back(spec, out)
    config = spec.recipe.scoring
    found = []
    for stride in (config.seq_len, config.stride):
        plan = windows(stream.num_targets, config.seq_len, stride)
        found.append(score(model, stream, plan, batch_seqs=config.batch_seqs, world=RANK_0))
    assert found[0].bpb == report.post_quant_bpb
    assert found[0].loss == report.post_quant_loss
    assert found[1].bpb == report.post_quant_sliding_bpb
    adapted = adapt_and_score(model, stream, scoring=config, ttt=spec.recipe.ttt, world=RANK_0)
    assert adapted.bpb == report.ttt_bpb


def test_the_scored_text_is_whole_windows_from_the_start(report, spec):
    dataset = open_dataset(Path(spec.data_dir), spec.recipe.model.vocab_size)
    for wanted, expected in ((512, 512), (500, 480), (None, dataset.manifest.num_val_tokens - 1)):
        recipe = tiny_recipe(None if wanted is None else {"scoring.max_targets": wanted})
        if wanted is None:
            scoring = recipe.scoring.model_copy(update={"max_targets": None})
            recipe = recipe.model_copy(update={"scoring": scoring})
        stream = validation_stream(spec.model_copy(update={"recipe": recipe}), dataset, RANK_0)
        assert stream.num_targets == expected // 32 * 32
    assert (report.val_tokens, report.window, report.stride) == (512, 32, 16)


def test_beta_is_reported_as_it_was_scored(report, out, spec, data_dir, tmp_path):
    """The artifact's β for what is learned; s² where it is fixed."""
    model, _ = read_back(spec, out)
    betas = torch.cat([each.beta.detach().double() for each in model.activations])
    assert report.beta_mean == float(betas.mean())
    assert report.beta_std == float(betas.std(correction=0)) > 0
    fixed = run_cell(tiny_spec(data_dir, params={"slope": 0.5}, budget="1steps"), tmp_path)
    assert (fixed.beta_mean, fixed.beta_std) == (0.25, 0.0)


# -- what a run's answer depends on


def test_relu2_and_leaky_relu2_of_slope_zero_give_the_same_answer_in_every_bit(data_dir, tmp_path):
    """The A/A control of every sweep."""
    one = run_cell(tiny_spec(data_dir, activation="relu2"), tmp_path / "a")
    other = run_cell(tiny_spec(data_dir, params={"slope": 0.0}), tmp_path / "b")
    assert answer(one) == answer(other)
    assert read_curve(tmp_path / "a")["train_loss"] == read_curve(tmp_path / "b")["train_loss"]


def test_warm_up_leaves_no_trace(report, out, data_dir, tmp_path):
    """One step in ``report``; none and three here. The recipe's hash differs, so not the bytes."""
    for steps in (0, 3):
        folder = tmp_path / str(steps)
        overrides = {"train.warmup_steps": steps}
        found = run_cell(tiny_spec(data_dir, activation="asqu", overrides=overrides), folder)
        assert scores(found) == scores(report)
        assert read_curve(folder)["train_loss"] == read_curve(out)["train_loss"]


@pytest.mark.parametrize(("below", "met"), [(None, {False}), (0.15, {False, True})])
def test_warm_up_meets_late_qat_if_training_will(monkeypatch, below, met):
    """It is a graph of its own, which else would be compiled on the clock."""
    seen, look_up = set(), HashedBigram.look_up
    monkeypatch.setattr(
        HashedBigram, "look_up", lambda self, *x: seen.add(self.six_bits) or look_up(self, *x)
    )
    recipe, tokens = tiny_recipe({"train.late_qat_below": below}), random_tokens(2, 33)
    loader = SimpleNamespace(next_batch=lambda: [(tokens[:, :-1], tokens[:, 1:])])
    warm_up(Training(tiny_model(), recipe, 7, RANK_0), loader)
    assert seen == met


# -- budgets of seconds


@dataclass(frozen=True)
class SteadyWorld(World):
    """Every reading of the clock is an eighth of a second after the last."""

    readings: list[None] = field(default_factory=list)

    def seconds_since(self, start_s):
        self.readings.append(None)
        return len(self.readings) / 8


def test_at_constant_step_time_both_budgets_are_the_same_run(data_dir, tmp_path):
    """An eighth of a second a step makes every division exact: one second is eight steps."""
    for name, budget in (("steps", "8steps"), ("time", "1s")):
        (tmp_path / name).mkdir()
        world = SteadyWorld(0, 1, torch.device("cpu"))
        run(tiny_spec(data_dir, budget=budget), tmp_path / name, world)
    one, other = (read_report(tmp_path / name) for name in ("steps", "time"))
    assert answer(one) == answer(other)
    assert read_curve(tmp_path / "steps") == read_curve(tmp_path / "time")
    assert read_curve(tmp_path / "time")["lr_mult"] == [1.0] * 7 + [0.5]


def test_a_budget_of_seconds_stops_within_a_step_of_its_time(data_dir, tmp_path):
    """On a real clock, on which nothing else is certain; rates are claimed above."""
    report = run_cell(tiny_spec(data_dir, budget="0.4s"), tmp_path)
    ends = read_curve(tmp_path)["train_s"]
    assert ends[-1] >= 0.4
    assert all(end < 0.4 for end in ends[:-1])
    assert report.state == "succeeded"
    assert report.steps == len(ends)


# -- divergence


def assert_diverged(report, out, reason):
    assert report.state == "diverged"
    assert reason in report.reason
    absent = ("val_tokens", "val_bytes", "model_bytes", "artifact_bytes", "fits_cap", "beta_mean")
    assert {getattr(report, name) for name in (*SCORES, *absent)} == {None}
    assert read_report(out) == report


@pytest.fixture
def poison(monkeypatch):
    """Make the loss of step 3 what is asked for; the weights go on as they were."""

    def install(value):
        step = itertools.count(1)

        def poisoned(*arguments):
            loss = take_step(*arguments)
            return torch.full_like(loss, value) if next(step) == 3 else loss

        monkeypatch.setattr("trainer.training.train.take_step", poisoned)

    return install


@pytest.mark.parametrize(
    ("value", "log_every", "num_steps"), [(math.inf, 1, 3), (math.nan, 3, 3), (-math.inf, 2, 6)]
)
def test_a_loss_that_is_not_finite_makes_the_run_diverged(
    poison, data_dir, tmp_path, value, log_every, num_steps
):
    """At once where the step is checked; else the rest is trained in vain, and told as well."""
    poison(value)
    overrides = {"train.warmup_steps": 0}
    spec = tiny_spec(data_dir, budget="6steps", overrides=overrides, log_every=log_every)
    report = run_cell(spec, tmp_path)
    assert_diverged(report, tmp_path, "the training loss of step 3 is not finite")
    assert report.steps == num_steps
    losses = read_curve(tmp_path)["train_loss"]
    assert [math.isfinite(loss) for loss in losses] == [
        step != 3 for step in range(1, num_steps + 1)
    ]


@pytest.mark.parametrize(
    ("call", "reason"),
    [(1, "pre-quantization"), (2, "post-quantization"), (3, "sliding")],
)
def test_a_score_that_is_not_finite_makes_the_run_diverged(
    monkeypatch, data_dir, tmp_path, call, reason
):
    calls = []

    def poisoned(*arguments, **options):
        calls.append(None)
        good = score(*arguments, **options)
        return Score(math.nan, good.num_tokens, good.num_bytes) if len(calls) == call else good

    monkeypatch.setattr("trainer.run_context.score", poisoned)
    report = run_cell(tiny_spec(data_dir, budget="1steps"), tmp_path)
    assert_diverged(report, tmp_path, f"{reason} score is not finite")


# -- the data that was meant


@pytest.mark.parametrize("name", ["corpus_sha256", "tokenizer_sha256"])
def test_other_data_than_the_specification_asks_for_is_refused(data_dir, tmp_path, name):
    spec = tiny_spec(data_dir, **{name: "0" * 64})
    with pytest.raises(ConfigError, match=r"asks for corpus .* here are"):
        run_cell(spec, tmp_path)
    assert not list(tmp_path.glob("report*"))


# -- validation in between


def test_validation_tells_the_weights_of_that_moment_and_changes_nothing_else(data_dir, tmp_path):
    """Before the first step, after every two and after the last. Both runs take their first three
    steps at full rate, so their first four losses are equal, though this activation is random."""
    quiet = {"averaging": {"kind": "none"}}
    spec = tiny_spec(data_dir, activation="rrelu2", overrides=quiet)
    watched = tiny_spec(
        data_dir, activation="rrelu2", overrides=quiet | {"scoring.every_steps": 2}, budget="5steps"
    )
    report, other = run_cell(spec, tmp_path / "a"), run_cell(watched, tmp_path / "b")
    curve = read_curve(tmp_path / "b")
    assert curve["step"] == [0, 1, 2, 3, 4, 5]
    assert [value is not None for value in curve["val_loss"]] == [True, False] * 2 + [True, True]
    assert curve["val_loss"][-1] == other.pre_quant_loss
    assert curve["train_loss"][0] is None
    assert curve["train_loss"][1:5] == read_curve(tmp_path / "a")["train_loss"]
    assert other.val_tokens == report.val_tokens
    dataset = open_dataset(Path(spec.data_dir), spec.recipe.model.vocab_size)
    stream = validation_stream(spec, dataset, RANK_0)
    plan = windows(stream.num_targets, 32, 32)
    initial = score(build_model(spec), stream, plan, batch_seqs=32, world=RANK_0)
    assert curve["val_loss"][0] == initial.loss
    assert curve["val_bpb"][0] == initial.bpb
