"""Plain float32 reference of three published training recipes.

They are parameter-golf PR #1035 (recipe A), PR #549 (B) and PR #1176 (C); the GPTQ options are
those of PR #1135 (calibrated on training batches) and PR #1019 (on generated sequences). One
process on the CPU, per-layer modules, no compilation and no bfloat16 anywhere: written to be
compared with, number for number, and not for speed.
"""

from .config import Published
from .run import run_published

__all__ = ["Published", "run_published"]
