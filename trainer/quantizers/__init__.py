"""Which quantizers exist? One table; the tests prove each one's stated error bound."""

from collections.abc import Callable

from torch import Tensor

from trainer.quantizers.int6_row import int6_row
from trainer.quantizers.int8_row import int8_row
from trainer.quantizers.rows import Quantized, dequantize

Quantizer = Callable[[Tensor, float | None], Quantized]

QUANTIZERS: dict[str, Quantizer] = {"int6_row": int6_row, "int8_row": int8_row}

__all__ = ["QUANTIZERS", "Quantized", "Quantizer", "dequantize"]
