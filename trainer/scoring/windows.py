"""Split a span of targets into scoring windows so that every target is scored exactly once.

Target t is token t + 1, predicted from tokens up to t. A window reads inputs [start, end) and
scores the targets [first_scored, end). Contiguous scoring is stride = seq_len.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True, slots=True, order=True)
class Window:
    start: int
    first_scored: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.start

    @property
    def num_scored(self) -> int:
        return self.end - self.first_scored


def windows(num_targets: int, seq_len: int, stride: int) -> list[Window]:
    """Windows of ``seq_len`` every ``stride`` targets; each scores what is new to it.

    >>> windows(10, seq_len=4, stride=2)[:2]
    [Window(start=0, first_scored=0, end=4), Window(start=2, first_scored=4, end=6)]
    >>> sum(w.num_scored for w in windows(10, seq_len=4, stride=2))
    10
    """
    first = Window(0, 0, min(seq_len, num_targets))
    overlap = seq_len - stride
    later = (
        Window(start, start + overlap, min(start + seq_len, num_targets))
        for start in range(stride, num_targets - overlap, stride)
    )
    return [first, *later]


def batches(plan: Sequence[Window], batch_seqs: int) -> list[list[Window]]:
    """Consecutive windows of one shape, at most ``batch_seqs`` together; order is kept."""
    result: list[list[Window]] = []
    for _, group in groupby(plan, key=lambda w: (w.length, w.num_scored)):
        same = list(group)
        result += [same[i : i + batch_seqs] for i in range(0, len(same), batch_seqs)]
    return result


def by_chunk(plan: Sequence[Window], chunk_tokens: int) -> list[list[Window]]:
    """The windows of each chunk of ``chunk_tokens`` targets, by where their scored part begins."""
    chunks: list[list[Window]] = []
    for _, group in groupby(plan, key=lambda w: w.first_scored // chunk_tokens):
        chunks.append(list(group))
    return chunks
