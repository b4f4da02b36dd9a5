"""Execute every notebook on one sweep, each from a fresh kernel.

The committed notebooks are jupytext pairs that show what they say of ``results/example``; ``python
-m analysis.run_notebooks`` writes them again. The cell tagged ``parameters`` holds the values for
whoever opens one by hand; here a cell that is inserted after it says which sweep.
"""

import base64
import io
import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from PIL import Image
from traitlets.config import Config

from analysis.rows.read import parts_of, succeeded
from analysis.study import read_study
from sweep.store.files import open_files
from trainer.config.config_errors import ConfigError

NOTEBOOKS = Path(__file__).parent / "notebooks"
EXAMPLE = NOTEBOOKS.parents[1] / "results" / "example"
TIMEOUT_S = 300
_INJECTED = "injected-parameters"


def run_notebooks(place: str | Path) -> list[str]:
    """Execute every notebook on the sweep in ``place``; the paths of the executed copies."""
    succeeded(read_study(place).cells)  # the user's mistakes, told before a kernel starts
    files, names = open_files(place), []
    for source in sorted(NOTEBOOKS.glob("*.py")):
        names.append(f"notebooks/{source.stem}.ipynb")
        files.replace(names[-1], nbformat.writes(executed(source, place)).encode())
    return [files.where(name) for name in names]


def committed(source: Path) -> NotebookNode:
    """The notebook ``source`` as it is committed: executed on the example, with nothing that names
    this machine or the time, and images of few colours.
    """
    notebook = executed(source, EXAMPLE)
    told = jupytext.read(source).metadata
    notebook.metadata = {
        "jupytext": {"formats": told["jupytext"]["formats"]},
        "kernelspec": told["kernelspec"],
    }
    notebook.cells = [cell for cell in notebook.cells if _INJECTED not in _tags(cell)]
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i}"
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = [_shown(output) for output in cell.outputs]
    return notebook


def _shown(output: NotebookNode) -> NotebookNode:
    """``output`` with its image small; of a figure the text only names an object."""
    if "image/png" in output.get("data", {}):
        output.metadata = {}
        output.data = {"image/png": _small(output.data["image/png"])}
    return output


def _small(png: str) -> str:
    """The image in base64 with 64 colours, rare ones too: a third of the bytes, and as legible."""
    content = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    few = picture.quantize(64, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(content, "png", optimize=True)
    return base64.b64encode(content.getvalue()).decode()


def with_parameters(notebook: NotebookNode, place: str | Path) -> NotebookNode:
    """A copy of ``notebook`` with a cell that sets RESULTS and SWEEP after its parameters cell."""
    copy = nbformat.from_dict(notebook)
    tagged = [i for i, cell in enumerate(copy.cells) if "parameters" in _tags(cell)]
    if not tagged:
        raise ConfigError('the notebook has no cell tagged "parameters"; tag the one with SWEEP.')
    # The kernel has another working directory.
    absolute = str(place) if "://" in str(place) else str(Path(place).resolve())
    results, sweep = parts_of(absolute)
    values = f"RESULTS = {results!r}\nSWEEP = {sweep!r}"
    injected = nbformat.v4.new_code_cell(values, metadata={"tags": [_INJECTED]})
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
            record_timing=False,
            coalesce_streams=True,  # else how a text is cut depends on how busy the machine is
            resources=resources,
            config=Config({"AsyncKernelManager": kernel}),
        )
        try:
            client.execute()
        except CellExecutionError as error:
            reason = error.evalue if error.ename == ConfigError.__name__ else str(error)
            raise ConfigError(f"notebook {source.name} failed on {place}: {reason}") from None
    return notebook


def _tags(cell: NotebookNode) -> list[str]:
    return list(cell.metadata.get("tags", []))


if __name__ == "__main__":
    for path in sorted(NOTEBOOKS.glob("*.py")):
        nbformat.write(committed(path), path.with_suffix(".ipynb"))
