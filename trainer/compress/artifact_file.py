"""Write the artifact's file, which has its name only once it is known to hold what is scored."""

import time
from dataclasses import dataclass
from pathlib import Path

from trainer.compress.artifact import Packed, artifact_of
from trainer.compress.containers import decompress
from trainer.config import Quantization
from trainer.files import fsync_folder, temporary_file


@dataclass(frozen=True, slots=True)
class ArtifactFile:
    """How large the file is, and how long it took to read it back."""

    num_bytes: int
    read_s: float


def write_artifact(packed: Packed, config: Quantization, path: Path) -> ArtifactFile:
    """``packed`` compressed into ``path``; an error if the file gives another container.

    The weights that are scored are read from the container, so equal bytes are equal weights.
    """
    data = artifact_of(packed, config)
    with temporary_file(path, data) as temporary:
        start_s = time.perf_counter()
        found = temporary.read_bytes()
        if found != data or decompress(found, config) != packed.plain:
            raise RuntimeError(
                f"{path}: what was written is not what is scored: {len(data)} bytes went in and "
                f"{len(found)} came back, which must be equal and give a container of "
                f"{len(packed.plain)} bytes. The file was removed. Run the cell again; if this "
                f"node says so again, look at its memory and its disk."
            )
        read_s = time.perf_counter() - start_s
        temporary.replace(path)
    fsync_folder(path.parent)
    return ArtifactFile(len(data), read_s)
