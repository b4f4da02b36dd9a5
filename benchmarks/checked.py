"""Has a benchmark's ratio grown since it was last kept? And where is the new one kept?"""

import json
import sys
from collections.abc import Mapping
from typing import Any

from benchmarks.measured import RESULTS, keep
from benchmarks.turns import slower


def conclude(name: str, result: Mapping[str, Any], *, check: bool) -> None:
    """Keep ``result``, or compare its "ratios" with the kept ones and exit with 1 if one has grown.

    A comparison keeps nothing. Absolute times are not compared: they are another machine's.
    """
    if not check:
        keep(name, result)
        return
    path = RESULTS / f"{name}.json"
    if not path.exists():
        sys.exit(f"{path}: nothing was kept to compare with; run without --check first.")
    grown = slower(result["ratios"], json.loads(path.read_text(encoding="utf-8"))["ratios"])
    if grown:
        sys.exit("\n".join(["ratios have grown past the noise:", *grown]))
    print(f"no ratio has grown past the noise of {path.name}")
