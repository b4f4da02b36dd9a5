"""Checkpoints: all that another process needs to take the steps that this one would have.

A file of safetensors whose metadata has the rest as JSON, and behind it the SHA-256 of all that:
reading executes nothing, and what is torn, cut or changed is told from what was written. It says
which run it is of. One of another question, other code, another torch, number of ranks or kind of
processor is not used, for its steps would be other steps.
"""

import hashlib
import json
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import safetensors.torch
import torch
from torch import Tensor

from trainer.config.config_errors import ConfigError
from trainer.contract import RunSpec, spec_hash
from trainer.distributed.world import World
from trainer.files import remove_temporaries, write_atomically
from trainer.progress import Progress
from trainer.source import trainer_source

SHA256_BYTES = 32
_HEADER_BYTES, _FACTS = 8, "facts"


class UnusableCheckpointError(ValueError):
    """This file is none that the run can go on from, and why."""


class Stopped(Exception):  # noqa: N818  (it was asked for)
    """The run was asked to end, and has ended after its next step."""


@dataclass(frozen=True, slots=True)
class State:
    """Tensors by name, and ``facts``, whatever JSON can say."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]

    def under(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with ``prefix.``, without it."""
        start = f"{prefix}."
        return {n.removeprefix(start): t for n, t in self.tensors.items() if n.startswith(start)}


@dataclass(frozen=True, slots=True)
class CheckpointSettings:
    """Where a run keeps its checkpoint, and how often, in seconds (0: after every step)."""

    path: Path
    every_s: float

    def __post_init__(self) -> None:
        if not self.every_s >= 0:
            raise ConfigError(f"--checkpoint-every-s {self.every_s:g}: give 0 or more seconds.")


@dataclass
class Checkpointer:
    """The checkpoint of one run. Every rank calls its methods, at the same steps; rank 0 writes."""

    settings: CheckpointSettings
    world: World
    identity: Mapping[str, str | int]
    progress: Progress
    _saved_s: float = field(default_factory=time.perf_counter)
    _is_asked_to_stop: bool = False

    def load(self) -> State | None:
        """What there is to go on from, or None: a line in the log says why it is not used."""
        with self.progress.during("checkpoint"):
            data = self.world.broadcast_bytes(self._read() if self.world.is_main else b"")
        self._saved_s = time.perf_counter()
        return decode(data, self.identity) if data else None

    @contextmanager
    def heeding_sigterm(self) -> Iterator[None]:
        """Inside, SIGTERM asks the run to stop at a checkpoint; outside it ends the process."""

        def ask(*_: object) -> None:
            self._is_asked_to_stop = True

        before = signal.signal(signal.SIGTERM, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)
        if self._is_asked_to_stop:  # since the last look
            signal.raise_signal(signal.SIGTERM)

    def look(self) -> tuple[bool, bool]:
        """(it is time to save, the run is to stop), on every rank alike.

        The time is rank 0's; whichever rank was asked to stop, all do.
        """
        is_due = time.perf_counter() - self._saved_s >= self.settings.every_s
        own = torch.tensor([self.world.is_main and is_due, self._is_asked_to_stop]).float()
        save, stop = self.world.largest(own.to(self.world.device)).tolist()
        return save > 0, stop > 0

    def save(self, state: State) -> None:
        """Write ``state``; if it cannot be written, say so and go on with the earlier one."""
        if self.world.is_main:
            with self.progress.during("checkpoint"):
                try:
                    write_atomically(self.settings.path, *encode(state, self.identity))
                except OSError as error:
                    self._say(f"not written: {error}")
        self._saved_s = time.perf_counter()

    def stop(self, state: State, step: int) -> NoReturn:
        """Leave ``state`` and end the run, every rank once rank 0 has written: who started the
        ranks ends them all when the first has gone."""
        self.save(state)
        self.world.sum_(torch.zeros((), device=self.world.device)).item()
        raise Stopped(f"stopped as asked, after step {step}")

    def _read(self) -> bytes:
        """The file's content if it can be used, else nothing."""
        path = self.settings.path
        try:
            remove_temporaries(path)
            data = path.read_bytes()
            decode(data, self.identity)
        except FileNotFoundError:
            return b""
        except (OSError, UnusableCheckpointError) as error:
            self._say(f"not used, the run starts from zero: {error}")
            return b""
        return data

    def _say(self, what: str) -> None:
        print(f"checkpoint {self.settings.path}: {what}", flush=True)


def identity_of(spec: RunSpec, world: World, device_name: str) -> dict[str, str | int]:
    """What must be the same for the steps to be the same."""
    return {
        "spec_hash": spec_hash(spec),
        "trainer_hash": trainer_source().sha256,
        "torch": torch.__version__,
        "world_size": world.size,
        "device": device_name,
    }


def encode(state: State, identity: Mapping[str, str | int]) -> tuple[bytes, bytes]:
    """The content of a checkpoint, and the hash that stands behind it."""
    facts = json.dumps({"identity": dict(identity), "facts": state.facts})
    tensors = {name: tensor.detach().cpu() for name, tensor in state.tensors.items()}
    content = safetensors.torch.save(tensors, metadata={_FACTS: facts})
    return content, hashlib.sha256(content).digest()


def decode(data: bytes, identity: Mapping[str, str | int]) -> State:
    """The state in ``data``; UnusableCheckpointError if it is damaged or not of ``identity``."""
    content, digest = memoryview(data)[:-SHA256_BYTES], data[-SHA256_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        raise UnusableCheckpointError(f"its {len(data)} bytes are not what was written")
    header_bytes = int.from_bytes(content[:_HEADER_BYTES], "little")
    header = json.loads(bytes(content[_HEADER_BYTES : _HEADER_BYTES + header_bytes]))
    known = json.loads(header["__metadata__"][_FACTS])
    for name in identity.keys() | known["identity"].keys():
        theirs, ours = known["identity"].get(name), identity.get(name)
        if theirs != ours:
            raise UnusableCheckpointError(f"its {name} is {theirs}, this run's is {ours}")
    return State(safetensors.torch.load(bytes(content)), known["facts"])
