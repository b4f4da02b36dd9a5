"""Classify a failed attempt: whose fault was it, the cell's, the node's, memory's or nobody's?

Pure: exit statuses and logs in, state, class, reason and signature out. The class decides how often
a cell is tried again, so what may come of the node must not count as the cell's own error, and the
other way round. One rank that ends takes all others with it; the culprit is the one that did not
merely notice that another had gone.
"""

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from sweep.node.error_signature import (
    MAX_CHARS,
    LoggedError,
    crash_frame,
    logged_error,
    without_variables,
)
from trainer.contract import EXIT_BAD_INPUT, EXIT_OUT_OF_MEMORY, EXIT_STOPPED

CRASH_TAIL_CHARS = 8192
LAST_LINES = 10

PEER_GONE = re.compile(
    r"Connection (?:reset|closed) by peer|Broken pipe|Socket closed|caused pair closure"
    r"|Timed out waiting .* for (?:recv|send)|ncclRemoteError|remote process exit"
    r"|NCCL communicator was aborted"
)
FAULTS = {
    "of the network": re.compile(
        PEER_GONE.pattern
        + r"|Connection refused|Connection timed out|Network is unreachable|No route to host"
        + r"|Address already in use"
    ),
    "of NCCL": re.compile(
        r"\bnccl\w+Error|ncclInvalid\w+|NCCL (?:error|Error|failure|WARN)"
        r"|ProcessGroupNCCL.*(?:timeout|exception)"
        r"|collective operation timeout|DistBackendError"
    ),
    "of the GPU or its driver": re.compile(
        r"unspecified launch failure|\bECC\b|\bXid\b|device-side lost|GPU (?:is lost|has fallen)"
        r"|(?:CUDA|driver)[^\n]*\binitiali[sz](?:ation|ed)|NVML|nvml[A-Z]\w+|driver shutting down"
        r"|CUDA error: unknown error|devices? (?:is|are) busy or unavailable|Cuda failure"
        r"|no CUDA-capable device|torch sees no CUDA device|CUDA error: hardware"
    ),
    "of the disk": re.compile(
        r"No space left on device|Read-only file system|Stale file handle|Input/output error"
        r"|Disk quota exceeded"
    ),
}
OUT_OF_MEMORY = re.compile(r"OutOfMemoryError|out of memory|^MemoryError", re.MULTILINE)
FROM_OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}


@dataclass(frozen=True, slots=True, kw_only=True)
class RankEnd:
    """A rank as it was when the first one had failed.

    ``code`` is None if it still ran, negative if a signal ended it; ``wrote_at`` is when its log
    last grew.
    """

    code: int | None
    log: str
    wrote_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The columns state, failure, reason and failure_signature of an attempt that failed."""

    state: str
    failure: str
    reason: str
    signature: str | None


def classify(
    ends: Sequence[RankEnd], *, killed_by_kernel: bool = False, memory: str = ""
) -> Failure:
    """What to make of ranks of which at least one ended badly.

    ``killed_by_kernel``: the kernel has killed for memory meanwhile; ``memory``: the numbers that
    are told with it.
    """
    ranks = [_Rank(index, end, logged_error(end.log)) for index, end in enumerate(ends)]
    for rank in ranks:
        by_kernel = killed_by_kernel and rank.signal == signal.SIGKILL
        if by_kernel or rank.is_out_of_memory:
            return _out_of_memory(rank, by_kernel, memory)
        if rank.end.code == EXIT_STOPPED:
            return _warned(rank)
    culprit = _culprit(ranks)
    reason, fault = culprit.ending, culprit.fault
    if culprit.signal in FROM_OUTSIDE:
        return _failed("infrastructure", f"{reason} from outside", culprit)
    if fault is not None:
        return _failed("infrastructure", f"{reason}, a fault {fault}", culprit)
    return _failed("cell", reason, culprit)


def hung(phase: str, stalled_s: float) -> Failure:
    """No rank has made progress for ``stalled_s`` seconds."""
    return Failure(
        state="hung",
        failure="hang",
        reason=f"no progress for {stalled_s:.0f} s in phase {phase}; killed",
        signature=f"no progress in phase {phase}",
    )


STOPPED = Failure(
    state="interrupted",
    failure="user",
    reason="stopped by the user before it ended",
    signature=None,
)
PREEMPTED = Failure(
    state="interrupted",
    failure="preemption",
    reason="its node is being taken away; stopped before it ended",
    signature=None,
)


def unreported(what: str) -> Failure:
    """Every rank ended well, but the answer is not there."""
    reason = f"the trainer ended with status 0 and left no {what}"
    return Failure(state="failed", failure="cell", reason=reason, signature=f"left no {what}")


def unable(reason: str) -> Failure:
    """The node, or the agent on it, could not make the attempt."""
    return Failure(
        state="failed",
        failure="infrastructure",
        reason=reason,
        signature=without_variables(reason)[:MAX_CHARS],
    )


@dataclass(frozen=True, slots=True)
class _Rank:
    index: int
    end: RankEnd
    error: LoggedError | None

    @property
    def signal(self) -> signal.Signals | None:
        code = self.end.code
        return signal.Signals(-code) if code is not None and code < 0 else None

    @property
    def is_dead(self) -> bool:
        return self.end.code not in (None, 0)

    @property
    def is_out_of_memory(self) -> bool:
        if self.end.code == EXIT_OUT_OF_MEMORY:
            return True
        raised = self.is_dead and self.signal is None and self.error is not None
        return raised and OUT_OF_MEMORY.search(self.evidence) is not None

    @property
    def evidence(self) -> str:
        """What of the log bears on the end: not all of it, which may tell of what was survived."""
        if self.signal is not None:
            return self.end.log[-CRASH_TAIL_CHARS:]
        if self.error is not None:
            return self.error.text
        return "\n".join(self.end.log.splitlines()[-LAST_LINES:])

    @property
    def is_follower(self) -> bool:
        """It only noticed that another rank had gone."""
        by_itself = self.signal is not None and self.signal != signal.SIGABRT
        return not by_itself and PEER_GONE.search(self.evidence) is not None

    @property
    def fault(self) -> str | None:
        found = (name for name, pattern in FAULTS.items() if pattern.search(self.evidence))
        return next(found, None)

    @property
    def ending(self) -> str:
        code, last = self.end.code, self.last_line
        if self.signal is not None:
            return f"rank {self.index} was killed by {self.signal.name}"
        if code == EXIT_BAD_INPUT:
            text = f"rank {self.index} refused its input"
        elif code is None or code == 0:
            text = f"rank {self.index} failed"
        else:
            text = f"rank {self.index} ended with status {code}"
        return f"{text}: {last.removeprefix('error: ')}" if last else text

    @property
    def last_line(self) -> str:
        if self.error is not None:
            return self.error.line[:300]
        lines = [line.strip() for line in self.end.log.splitlines() if line.strip()]
        return lines[-1][:300] if lines else ""

    @property
    def signature(self) -> str:
        if self.signal is not None:
            frame = crash_frame(self.end.log)
            return f"signal {self.signal.name}" + (f" at {frame}" if frame else "")
        if self.error is not None:
            return self.error.signature
        text = f"exit status {self.end.code}"
        if self.end.code == EXIT_BAD_INPUT and self.last_line:
            text += f": {without_variables(self.last_line)}"
        return text[:MAX_CHARS]


def _culprit(ranks: Sequence[_Rank]) -> _Rank:
    """The rank whose end explains the others.

    One that is still running counts where all that have ended only followed: taking down a rank
    that has raised can take longer than its peers need to notice.
    """
    own = [rank for rank in ranks if not rank.is_follower]
    dead = [rank for rank in own if rank.is_dead]
    choices = (
        [rank for rank in dead if rank.signal is not None],
        [rank for rank in dead if rank.error is not None],
        dead,
        [rank for rank in own if rank.error is not None],
        [rank for rank in ranks if rank.is_dead],
    )
    return min(next(filter(None, choices)), key=lambda rank: rank.end.wrote_at)


def _failed(failure: str, reason: str, culprit: _Rank) -> Failure:
    return Failure(state="failed", failure=failure, reason=reason, signature=culprit.signature)


def _warned(rank: _Rank) -> Failure:
    reason = f"rank {rank.index} was warned (SIGTERM from outside) and stopped"
    return Failure(state="interrupted", failure="preemption", reason=reason, signature=None)


def _out_of_memory(rank: _Rank, by_kernel: bool, memory: str) -> Failure:
    if by_kernel:
        reason = f"rank {rank.index} was killed by the kernel, which was out of memory"
    else:
        lines = [line for line in rank.end.log.splitlines() if OUT_OF_MEMORY.search(line)]
        detail = f": {lines[-1].strip()[:300]}" if lines else ""
        reason = f"rank {rank.index} ran out of memory{detail}"
    return Failure(
        state="oom",
        failure="memory",
        reason=f"{reason} ({memory})" if memory else reason,
        signature=rank.error.signature if rank.error and not by_kernel else "out of memory",
    )
