"""The table of quantizers, each of which states an error bound that the tests prove.

``QUANTIZERS`` are those that need the weights alone. :func:`gptq` needs a Hessian besides.
"""

from collections.abc import Callable

from torch import Tensor

from trainer.compress.gptq import gptq
from trainer.compress.int6_row import int6_row
from trainer.compress.int8_row import int8_row
from trainer.compress.row_codes import Quantized, dequantize
from trainer.config import Quantization

Quantizer = Callable[[Tensor, Quantization], Quantized]

QUANTIZERS: dict[str, Quantizer] = {"int6_row": int6_row, "int8_row": int8_row}

__all__ = ["QUANTIZERS", "Quantized", "Quantizer", "dequantize", "gptq"]
