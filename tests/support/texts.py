"""Text as people have it: made-up documents, and the kinds of file that hold them."""

import json
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def some_texts(count: int, seed: int = 5) -> list[str]:
    """Documents of a few lines of made-up words, some with what is rare in text."""
    draw = random.Random(seed)
    words = ["".join(draw.choices("aeioubcdfgkmnst", k=draw.randint(1, 8))) for _ in range(300)]
    rare = ["é", "中文", "🙂", "\t", "  two", "\r\n", "\x00", "\ufffd", "\u200b", "ﬁ"]
    texts = []
    for index in range(count):
        lines = [" ".join(draw.choices(words, k=draw.randint(3, 12))) for _ in range(8)]
        texts.append("\n".join([f"{index}", *lines, draw.choice(rare)]))
    return texts


def write_json_lines(path: Path, texts: Sequence[str]) -> Path:
    lines = [json.dumps({"id": index, "text": text}) for index, text in enumerate(texts)]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def write_parquet(path: Path, texts: Sequence[str], rows_in_group: int = 7) -> Path:
    table = pa.table({"id": list(range(len(texts))), "text": pa.array(texts, pa.string())})
    pq.write_table(table, path, row_group_size=rows_in_group)
    return path


def write_plain(folder: Path, texts: Sequence[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, text in enumerate(texts):
        (folder / f"{index:04d}.txt").write_bytes(text.encode())
    return folder


class Dying:
    """Ends the process that it is sent to, as a machine that runs out of memory does."""

    def __reduce__(self) -> tuple[Any, tuple[int]]:
        return os._exit, (9,)
