"""Split a span of targets into scoring windows so that every target is scored exactly once.

Target t is token t + 1, predicted from tokens up to t. A window reads inputs [start, end) and
scores the targets [first_scored, end). Contiguous scoring is stride = seq_len. One plan breaks the
promise, and only where the recipe says so: ``tail = "published"``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

Tail = Literal["once", "published"]


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """``padding`` inputs that are no text (token 0) follow ``end``: a model whose positions depend
    on the length of its input must see the full length.
    """

    start: int
    first_scored: int
    end: int
    padding: int = 0

    @property
    def length(self) -> int:
        """Inputs that are text."""
        return self.end - self.start

    @property
    def num_scored(self) -> int:
        return self.end - self.first_scored


def windows(num_targets: int, seq_len: int, stride: int, tail: Tail = "once") -> list[Window]:
    """Windows of ``seq_len`` every ``stride`` targets; each scores what is new to it.

    With ``tail = "published"`` the stream's last stride is scored again in every window that
    begins before its end, in ever less context: seq_len / stride times in all (parameter-golf PR
    #549). Contiguous windows have no such tail.

    >>> windows(10, seq_len=4, stride=2)[1]
    Window(start=2, first_scored=4, end=6, padding=0)
    >>> sum(w.num_scored for w in windows(10, seq_len=4, stride=2))
    10
    >>> windows(10, seq_len=4, stride=2, tail="published")[-1]
    Window(start=8, first_scored=8, end=10, padding=2)
    """
    if tail == "published" and stride < seq_len:
        return list(_with_repeated_tail(num_targets, seq_len, stride))
    first = Window(0, 0, min(seq_len, num_targets))
    overlap = seq_len - stride
    later = (
        Window(start, start + overlap, min(start + seq_len, num_targets))
        for start in range(stride, num_targets - overlap, stride)
    )
    return [first, *later]


def _with_repeated_tail(num_targets: int, seq_len: int, stride: int) -> Iterator[Window]:
    for start in range(0, num_targets, stride):
        end = min(start + seq_len, num_targets)
        first_scored = max(end - stride, start) if start else 0
        yield Window(start, first_scored, end, padding=start + seq_len - end)


def batches(plan: Sequence[Window], batch_seqs: int) -> list[list[Window]]:
    """Consecutive windows of one shape, at most ``batch_seqs`` together; order is kept.

    Of one shape are windows with as many inputs and as many scored targets, all padded or none.
    """
    result: list[list[Window]] = []
    for _, group in groupby(plan, key=_shape):
        same = list(group)
        result += [same[i : i + batch_seqs] for i in range(0, len(same), batch_seqs)]
    return result


def _shape(window: Window) -> tuple[int, int, bool]:
    return window.length + window.padding, window.num_scored, window.padding > 0


def by_chunk(plan: Sequence[Window], chunk_tokens: int) -> list[list[Window]]:
    """The windows of each chunk of ``chunk_tokens`` targets, by where their scored part begins."""
    chunks: list[list[Window]] = []
    for _, group in groupby(plan, key=lambda w: w.first_scored // chunk_tokens):
        chunks.append(list(group))
    return chunks
