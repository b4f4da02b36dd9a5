"""Execute every notebook on one sweep, each from a fresh kernel.

The committed notebooks are jupytext pairs without outputs. The cell tagged ``parameters`` holds the
values for whoever opens one by hand; here a cell that is inserted after it says which sweep.
"""

import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from traitlets.config import Config

from analysis.rows.read import parts_of, succeeded
from analysis.study import read_study
from sweep.store.files import open_files
from trainer.config.config_errors import ConfigError

NOTEBOOKS = Path(__file__).parent / "notebooks"
TIMEOUT_S = 300


def run_notebooks(place: str | Path) -> list[str]:
    """Execute every notebook on the sweep in ``place``; the paths of the executed copies."""
    succeeded(read_study(place).cells)  # the user's mistakes, told before a kernel starts
    files, names = open_files(place), []
    for source in sorted(NOTEBOOKS.glob("*.py")):
        names.append(f"notebooks/{source.stem}.ipynb")
        files.replace(names[-1], nbformat.writes(executed(source, place)).encode())
    return [files.where(name) for name in names]


def with_parameters(notebook: NotebookNode, place: str | Path) -> NotebookNode:
    """A copy of ``notebook`` with a cell that sets RESULTS and SWEEP after its parameters cell."""
    copy = nbformat.from_dict(notebook)
    tagged = [
        i for i, cell in enumerate(copy.cells) if "parameters" in cell.metadata.get("tags", [])
    ]
    if not tagged:
        raise ConfigError('the notebook has no cell tagged "parameters"; tag the one with SWEEP.')
    # The kernel has another working directory.
    absolute = str(place) if "://" in str(place) else str(Path(place).resolve())
    results, sweep = parts_of(absolute)
    values = f"RESULTS = {results!r}\nSWEEP = {sweep!r}"
    injected = nbformat.v4.new_code_cell(values, metadata={"tags": ["injected-parameters"]})
    copy.cells.insert(tagged[0] + 1, injected)
    return copy


def executed(source: Path, place: str | Path) -> NotebookNode:
    """The notebook ``source`` with what its cells show for the sweep in ``place``."""
    notebook = with_parameters(jupytext.read(source), place)
    # The kernel imports analysis from the checkout, so it starts there.
    resources = {"metadata": {"path": str(NOTEBOOKS.parent.parent)}}
    # Sockets are files of this user, not ports that every user of the machine can read.
    with tempfile.TemporaryDirectory() as sockets:
        kernel = {"transport": "ipc", "ip": f"{sockets}/kernel"}
        client = NotebookClient(
            notebook,
            timeout=TIMEOUT_S,
            kernel_name="python3",
            resources=resources,
            config=Config({"AsyncKernelManager": kernel}),
        )
        try:
            client.execute()
        except CellExecutionError as error:
            reason = error.evalue if error.ename == ConfigError.__name__ else str(error)
            raise ConfigError(f"notebook {source.name} failed on {place}: {reason}") from None
    return notebook
