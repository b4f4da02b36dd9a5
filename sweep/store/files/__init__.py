"""Files of a place of results: a folder, a bucket on S3 or on GCS, which do the same.

Names are relative to one place and separated by "/". A file appears whole or not at all, and
``create`` succeeds for one caller only, whatever machine it runs on. An error of the disk or of the
service is a ``StoreError``: a sentence that names the file, what failed, and what to do. A file
that is not there is a ``FileNotFoundError``. No call waits longer than its deadline.
"""

import re
from pathlib import Path

from sweep.store.files.bucket import DEADLINE_S, PACKAGES, RemoteFiles
from sweep.store.files.local import LocalFiles
from sweep.store.files.store_error import StoreError
from trainer.config.config_errors import ConfigError

__all__ = ["Files", "LocalFiles", "RemoteFiles", "StoreError", "open_files"]

Files = LocalFiles | RemoteFiles


def open_files(place: str | Path, *, deadline_s: float = DEADLINE_S) -> Files:
    """The files of a folder, or of an ``s3://`` or ``gs://`` URI."""
    scheme = re.match(r"([a-z0-9]+):(/+)", str(place))
    if scheme is None:
        return LocalFiles(Path(place))
    if scheme[1] not in PACKAGES or scheme[2] != "//":
        raise ConfigError(
            f"results {str(place)!r}: a folder, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX is needed."
        )
    return RemoteFiles(str(place), deadline_s=deadline_s)
