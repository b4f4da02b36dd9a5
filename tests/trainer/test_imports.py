"""A sweep can be planned where torch is not installed."""

import subprocess
import sys

TORCH_FREE = "trainer.activations, trainer.budget, trainer.contract, trainer.config"


def test_the_torch_free_side_imports_neither_torch_nor_numpy():
    code = f"import sys, {TORCH_FREE}; print(sys.modules.keys() & {{'torch', 'numpy'}})"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stderr == ""
    assert answer.stdout.strip() == "set()"
