"""List and fetch the files of the published FineWeb export, by huggingface_hub.

The only file that speaks to that library, which takes a third of a second to import: import this
one where something is missing. Which server it asks, with which token and whether it may ask at all
are the library's own settings (HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, …), and it reads them itself.
"""

import contextlib
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import disable_progress_bars

from trainer.config.config_errors import ConfigError
from trainer.files import file_sha256

REPO = "willdepueoai/parameter-golf"
NUM_THREADS = 4


@dataclass(frozen=True)
class Export:
    """The files of the repository in its latest revision, by path."""

    commit: str
    files: Mapping[str, RepoSibling]

    def require(self, paths: Sequence[str]) -> None:
        """ConfigError unless the repository has all of them."""
        for path in paths:
            if path not in self.files:
                raise ConfigError(
                    f"{server()} is not complete: {path} is missing. Name another server with "
                    f"HF_ENDPOINT."
                )


def list_export() -> Export:
    """What the server has."""
    with _explained_errors(f"the list of {REPO}"):
        info = HfApi().dataset_info(REPO, files_metadata=True)
    return Export(info.sha or "main", {each.rfilename: each for each in info.siblings or ()})


def fetch(export: Export, paths: Sequence[str], local_dir: Path) -> None:
    """Have the files of all ``paths`` in ``local_dir``, with the content that the server states.

    Those that are there already are kept if they are right. ConfigError if one cannot be had, or if
    there is no room; what has come by then stays.
    """
    export.require(paths)
    files = [export.files[path] for path in paths]
    local_dir.mkdir(parents=True, exist_ok=True)
    _require_room(files, local_dir)
    if not sys.stderr.isatty():
        disable_progress_bars()
    with _explained_errors(paths[0] if len(paths) == 1 else f"one of {len(paths)} files"):
        _in_thread(
            lambda: snapshot_download(
                REPO,
                repo_type="dataset",
                revision=export.commit,
                local_dir=local_dir,
                allow_patterns=list(paths),
                max_workers=NUM_THREADS,
            )
        )
    for file in files:
        path = local_dir / file.rfilename
        if not path.exists():
            raise ConfigError(f"{file.rfilename} did not come from {server()}. Try again.")
        if file.lfs is not None and (content := file_sha256(path)) != file.lfs.sha256:
            path.unlink()
            raise ConfigError(
                f"{path.name} was wrong: found content {content[:16]}…, expected "
                f"{file.lfs.sha256[:16]}… as {server()} says. Run this again to fetch it again, "
                f"or name another server with HF_ENDPOINT."
            )


def server() -> str:
    """The address of the repository."""
    return f"{constants.ENDPOINT}/datasets/{REPO}"


def _in_thread(work: Callable[[], object]) -> None:
    """``work()``, left alone on Ctrl-C: the library would first wait for all that is on its way."""
    outcome: Future[object] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # handed on, not handled
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    outcome.result()


def _require_room(files: Sequence[RepoSibling], local_dir: Path) -> None:
    missing = sum(file.size or 0 for file in files if not (local_dir / file.rfilename).exists())
    free = shutil.disk_usage(local_dir).free
    if free < missing:
        raise ConfigError(
            f"{local_dir.parent}: {missing / 1e9:.1f} GB are still to come ({missing:,} bytes), "
            f"and {free / 1e9:.1f} GB ({free:,} bytes) are free there. Make room, fetch into "
            f"another folder (--root, or DATA= with make), or fetch less (--train-shards)."
        )


@contextlib.contextmanager
def _explained_errors(what: str) -> Iterator[None]:
    """Turn what the library raises into a sentence.

    It raises its own errors, those of its transport (requests, httpx and httpx2 so far, so they are
    not named here) and OSError; one with a number is this machine's and passes.
    """
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ConfigError(
            f"{what} could not be fetched from {server()}: {_reason(error)}."
        ) from error


def _reason(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE forbids to ask. Unset it"
    if status in (401, 403):
        return (
            f"the server refuses it ({status}): there is no such repository, or it is closed to "
            f"you. The published one needs no token; check HF_ENDPOINT and HF_TOKEN, if they are "
            f"set"
        )
    if status == 404:
        return "the server has no such file (404). Name another server with HF_ENDPOINT"
    if status is not None:
        return f"the server answers {status}. Try again later"
    message = (str(error).splitlines() or [""])[0].rstrip(".")
    return (
        f"{message or 'no answer'} ({type(error).__name__}). Check the network, or name another "
        f"server with HF_ENDPOINT"
    )
