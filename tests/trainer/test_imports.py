"""A sweep can be planned where torch is not installed."""

import subprocess
import sys

TORCH_FREE = "trainer.activations, trainer.budget, trainer.contract, trainer.config"


def test_importing_the_torch_free_side_imports_no_torch():
    code = f"import sys, {TORCH_FREE}; print([m for m in sys.modules if m.startswith('torch')])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stderr == ""
    assert answer.stdout.strip() == "[]"
