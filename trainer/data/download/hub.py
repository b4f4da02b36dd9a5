"""How is a file of the published export found on the Hub, and how do its bytes get here?

The only file that speaks to huggingface_hub. Which server it asks, through which proxy, with which
token and whether it may ask at all are the library's own settings (HF_ENDPOINT, HF_TOKEN,
HF_HUB_OFFLINE, …), and it reads them itself.

Bytes come by its ``http_get``, which goes on at the length that a file has already. Its
``hf_hub_download`` would place files by itself, but forgets what it has of one when it is stopped
(version 2.4), and a shard has 200 MB.
"""

import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import HfApi, constants, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.file_download import http_get
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers, disable_progress_bars, tqdm

from trainer.config.config_errors import ConfigError

REPO = "willdepueoai/parameter-golf"
REPO_TYPE = "dataset"
LATEST = "main"

GONE = 416  # what is here of a file is more than the server has of it
OnBytes = Callable[[int], None]


class HubError(ConfigError):
    """The Hub gave no answer, or not the one that is needed. ``passing``: it may, asked again."""

    def __init__(self, message: str, *, passing: bool, status: int | None = None) -> None:
        super().__init__(message)
        self.passing = passing
        self.status = status


class StoppedError(Exception):
    """Another file, or the user, has ended it all."""


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file in a revision of the repository, and what is known of its content.

    ``digest`` is the SHA-256 (64 digits) of a large file and git's own hash of a small one (40);
    None where the server says neither.
    """

    path: str
    commit: str
    size: int
    digest: str | None

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name

    def is_content(self, content: bytes) -> bool:
        """Whether the file has that content, as far as its size and digest tell."""
        if len(content) != self.size:
            return False
        if self.digest is None:
            return True
        if len(self.digest) == 64:
            return hashlib.sha256(content).hexdigest() == self.digest
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == self.digest


@dataclass(frozen=True)
class Hub:
    """The repository of the export at ``endpoint``; None is the library's own choice."""

    endpoint: str | None = None

    @property
    def repository(self) -> str:
        return REPO

    @property
    def where(self) -> str:
        return f"{self.endpoint or constants.ENDPOINT}/datasets/{REPO}"

    def find(self, path: str) -> RemoteFile:
        """The file at ``path`` in the latest revision."""
        with self._asking(path):
            found = get_hf_file_metadata(self._url(path, LATEST))
        if found.size is None:
            raise HubError(f"{self.where} does not say how long {path} is.", passing=False)
        commit = found.commit_hash or LATEST
        return RemoteFile(path=path, commit=commit, size=found.size, digest=_digest(found.etag))

    def list_folder(self, folder: str, commit: str) -> list[RemoteFile]:
        """The files in ``folder``, not those in folders below it."""
        with self._asking(f"the list of {folder}"):
            entries = list(
                HfApi(endpoint=self.endpoint).list_repo_tree(
                    REPO, folder, revision=commit, repo_type=REPO_TYPE
                )
            )
        return [
            RemoteFile(
                path=entry.path,
                commit=commit,
                size=entry.size if entry.lfs is None else entry.lfs.size,
                digest=_digest(entry.blob_id if entry.lfs is None else entry.lfs.sha256),
            )
            for entry in entries
            if isinstance(entry, RepoFile)
        ]

    def read(self, file: RemoteFile) -> bytes:
        """The content of a small file; it is asked for twice before it is called wrong."""
        for _ in range(2):
            buffer = io.BytesIO()
            with self._asking(file.path):
                self._get(file, buffer, 0)
            if file.is_content(buffer.getvalue()):
                return buffer.getvalue()
        raise HubError(
            f"{file.path} from {self.where} is not what that server says it is (twice). Try again "
            f"later, or name another server with HF_ENDPOINT.",
            passing=False,
        )

    def download(
        self, file: RemoteFile, partial: Path, on_bytes: OnBytes, stop: threading.Event
    ) -> None:
        """Add to ``partial`` what it lacks of the file; whether it is right is for others to say.

        ``on_bytes`` hears how many came, and how many were thrown away (a negative number).
        """
        if partial.exists() and partial.stat().st_size > file.size:
            partial.unlink()
        with _CountedFile(partial, on_bytes, stop) as sink, self._asking(file.path):
            start = sink.seek(0, io.SEEK_END)
            self._get(file, sink, start)

    def _get(self, file: RemoteFile, sink: Any, start: int) -> None:
        disable_progress_bars("huggingface_hub.http_get")  # there is one bar for all, see below
        # Compressed on the way, a file could not be continued: ranges count what is sent.
        headers = build_hf_headers(headers={"Accept-Encoding": "identity"})
        url = self._url(file.path, file.commit)
        http_get(url, sink, resume_size=start, headers=headers, expected_size=file.size)

    def _url(self, path: str, commit: str) -> str:
        return hf_hub_url(REPO, path, repo_type=REPO_TYPE, revision=commit, endpoint=self.endpoint)

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """Turn what the library raises into a sentence.

        It raises its own errors, those of its transport (requests, httpx and httpx2 so far, so they
        are not named here) and OSError; one with a number is this machine's and passes.
        """
        try:
            yield
        except StoppedError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise _explained(error, f"{what} could not be fetched from {self.where}") from error


def _explained(error: Exception, what: str) -> HubError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, OfflineModeIsEnabled):
        reason, passing = "HF_HUB_OFFLINE forbids to ask. Unset it", False
    elif status in (401, 403):
        reason = (
            f"the server refuses it ({status}): there is no such repository, or it is closed to "
            f"you. The published one needs no token; check HF_ENDPOINT and HF_TOKEN, if they are "
            f"set"
        )
        passing = False
    elif status == 404:
        reason = "the server has no such file (404). Name another server with HF_ENDPOINT"
        passing = False
    elif status is not None:
        reason = f"the server answers {status}. Try again later"
        passing = status >= 500 or status == GONE
    else:
        said = (str(error).splitlines() or [""])[0].rstrip(".")
        reason = (
            f"{said or 'no answer'} ({type(error).__name__}). Check the network, or name another "
            f"server with HF_ENDPOINT"
        )
        passing = True
    return HubError(f"{what}: {reason}.", passing=passing, status=status)


def _digest(given: str | None) -> str | None:
    known = given is not None and len(given) in (40, 64) and set(given) <= set("0123456789abcdef")
    return given if known else None


class _CountedFile(io.BufferedWriter):
    """A file that is written to at its end, counts what comes, and takes no more after ``stop``."""

    def __init__(self, path: Path, on_bytes: OnBytes, stop: threading.Event) -> None:
        super().__init__(io.FileIO(path, "ab"))
        self._on_bytes = on_bytes
        self._stop = stop

    def write(self, data: Any) -> int:
        if self._stop.is_set():
            raise StoppedError
        written = super().write(data)
        self._on_bytes(written)
        return written

    def truncate(self, size: int | None = None) -> int:
        before = self.seek(0, io.SEEK_CUR) if size is None else size
        end = self.seek(0, io.SEEK_END)
        after = super().truncate(before)
        self._on_bytes(after - end)
        return after


@contextmanager
def progress_bar(name: str, total_bytes: int) -> Iterator[OnBytes]:
    """A bar on a terminal, nothing elsewhere; gives the function that moves it, from any thread."""
    lock = threading.Lock()
    arrived = 0
    bar_type: Any = tqdm  # untyped
    with bar_type(desc=name, total=total_bytes, unit="B", unit_scale=True, disable=None) as bar:

        def on_bytes(count: int) -> None:
            nonlocal arrived
            with lock:
                arrived += count
                bar.update(min(max(arrived, 0), total_bytes) - bar.n)

        yield on_bytes
