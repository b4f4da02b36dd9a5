"""The context of one run: where it writes, its progress, durations, probes and peak memory."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from trainer.budget import Seconds
from trainer.config.config_errors import ConfigError
from trainer.contract import LAYERS_FILE, REPORT_FILE, Report, RunSpec
from trainer.distributed.speed_probe import Probe, probe
from trainer.distributed.world import World
from trainer.evaluate.bpb import Score, Stream, score
from trainer.evaluate.windows import windows
from trainer.files import write_atomically
from trainer.model import GPT
from trainer.model.compilation import Compilation, during_compilation
from trainer.progress import Progress
from trainer.report_files import RunCosts, Scores, device_name, make_report, write_layers
from trainer.training.checkpoint import Checkpointer, CheckpointSettings, identity_of
from trainer.training.train import StepLog, TrainingResult

T = TypeVar("T")


@dataclass
class RunContext:
    """One run of ``spec``, on one of the ranks of ``world``."""

    spec: RunSpec
    out: Path
    world: World
    progress: Progress = field(init=False)
    durations_s: dict[str, float] = field(default_factory=dict)
    _probes: list[Probe] = field(default_factory=list)
    _peak_memory_bytes: int = 0
    _asked_s: float | None = None
    _compilation: Compilation = field(init=False)

    def __post_init__(self) -> None:
        self.progress = Progress(self.out, enabled=self.world.is_main)
        self._compilation = Compilation(self.world.device)
        if self.world.device.type == "cuda":  # scoring and adapting have graphs of their own
            during_compilation(self.compiling)

    def checkpointer(self, checkpoint: CheckpointSettings | None) -> Checkpointer | None:
        """What keeps the checkpoint, if one is kept."""
        if checkpoint is None:
            return None
        if isinstance(self.spec.parsed_budget, Seconds):
            raise ConfigError(
                f"--checkpoint with budget {self.spec.budget}: a run of fixed time is not resumed, "
                f"it starts again from zero. Leave --checkpoint out, or give a budget of steps."
            )
        identity = identity_of(self.spec, self.world, device_name(self.world.device))
        return Checkpointer(checkpoint, self.world, identity, self.progress)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Report ``phase``, and count what happens inside towards it."""
        self.progress.report(phase)
        with self.counted(phase):
            yield

    @contextmanager
    def counted(self, name: str) -> Iterator[None]:
        """Count what happens inside towards ``name``, whatever phases it has."""
        start_s = time.perf_counter()
        yield
        self.world.synchronize()
        self.add(name, time.perf_counter() - start_s)

    def add(self, name: str, taken_s: float) -> None:
        """Count ``taken_s`` towards ``name``."""
        self.durations_s[name] = self.durations_s.get(name, 0.0) + taken_s

    def begin(self, phase: str, make: Callable[[], T]) -> Callable[[], T]:
        """Let rank 0 ``make`` something; every rank calls what is returned, to have it.

        Rank 0 makes it beside what comes in between, where it has cores to spare, and else at once.
        Its time counts towards ``phase``, and towards "overlap" what of it went on beside. "idle"
        is how long the end of all that was begun was waited for.
        """
        made = self.world.begin_on_rank_0(lambda: _clocked(make))
        if not self.world.has_spare_cores:
            result, start_s, end_s = made()
            self.add(phase, end_s - start_s)
            return lambda: result

        def ended() -> T:
            self._asked_s = self._asked_s or time.perf_counter()
            self.progress.report(phase)
            result, start_s, end_s = made()
            taken_s = end_s - start_s
            idle_s = max(0.0, end_s - max(start_s, self._asked_s))
            self.add(phase, taken_s)
            self.add("overlap", taken_s - idle_s)
            self.durations_s["idle"] = max(idle_s, self.durations_s.get("idle", 0.0))
            return result

        return ended

    def probe(self) -> None:
        """Probe the machine, if this is a run of fixed time."""
        if isinstance(self.spec.parsed_budget, Seconds):
            with self.progress.during("probe"), self.outside_peak_memory():
                self._probes.append(probe(self.world))

    @contextmanager
    def outside_peak_memory(self) -> Iterator[None]:
        """What is allocated inside does not count, where that can be told: on a GPU."""
        self._peak_memory_bytes = self._peak()
        yield
        self.world.reset_peak_memory()

    def compiling(self) -> AbstractContextManager[None]:
        """Within it nothing is said for minutes."""
        return self.progress.during("compile")

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
            compiling=self.compiling,
        )

    def validate(self, model: GPT, stream: Stream, step: int) -> Score:
        """The contiguous score of the weights after ``step`` updates, printed."""
        with self.progress.during("validate"):
            result = self.score(model, stream, self.spec.recipe.scoring.seq_len)
        if self.world.is_main:
            print(f"step:{step} val_loss:{result.loss:.4f} val_bpb:{result.bpb:.4f}", flush=True)
        return result

    def on_start(self, resumed_from_step: int | None) -> None:
        self.progress.report("train", step=resumed_from_step, resumed_from_step=resumed_from_step)
        if self.world.is_main and resumed_from_step is not None:
            print(f"step:{resumed_from_step} resumed from a checkpoint", flush=True)

    def on_step(self, log: StepLog, loss: float | None) -> None:
        known = {"step": log.step, "remaining_steps": log.remaining_steps, "step_ms": log.step_ms}
        if loss is not None:
            known["train_loss"] = loss if math.isfinite(loss) else None
        self.progress.report("train", **known)
        if self.world.is_main and loss is not None:
            mean_ms = 1000 * log.elapsed_s / log.step
            print(
                f"step:{log.step} train_loss:{loss:.4f} "
                f"train_time:{1000 * log.elapsed_s:.0f}ms step_avg:{mean_ms:.2f}ms",
                flush=True,
            )

    def finish(self, model: GPT, trained: TrainingResult, result: Scores | str) -> Report:
        """Make the report and leave it as the last of the files; before it, a success's layers."""
        self.probe()
        misses = self._compilation.misses()
        measured = RunCosts(self.durations_s, self._peak(), misses, *self._probes)
        report = make_report(self.spec, self.world, model, trained, result, measured)
        if self.world.is_main:
            self.progress.report("done")
            if isinstance(result, Scores) and report.state == "succeeded":
                write_layers(result.layers, self.out / LAYERS_FILE)
            write_atomically(self.out / REPORT_FILE, report.model_dump_json(indent=1).encode())
        return report

    def _peak(self) -> int:
        return max(self._peak_memory_bytes, self.world.peak_memory_bytes())


def _clocked(make: Callable[[], T]) -> tuple[T, float, float]:
    """What ``make`` gives, and when it began and ended."""
    start_s = time.perf_counter()
    return make(), start_s, time.perf_counter()
