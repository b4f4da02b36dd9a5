"""Write rows as a Parquet file with declared columns, atomically."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trainer.files import write_atomically

CURVE_TYPES = (*[pa.int64()] * 2, *[pa.float64()] * 5)
"""Of ``trainer.contract.CURVE_COLUMNS``."""


def write_rows(
    path: Path,
    names: Sequence[str],
    types: Sequence[pa.DataType],
    rows: Sequence[tuple[Any, ...]],
) -> None:
    """``rows`` in columns of these names and types; None is null."""
    columns = [pa.array([row[i] for row in rows], type=t) for i, t in enumerate(types)]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(dict(zip(names, columns, strict=True))), sink)
    write_atomically(path, sink.getvalue().to_pybytes())
