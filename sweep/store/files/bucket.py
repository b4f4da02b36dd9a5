"""Files in a bucket on S3 or GCS, created by one writer only.

Creation is a put on the condition that nothing is there (``If-None-Match: *``, on GCS
``ifGenerationMatch=0``). A service that ignores the condition is found out by
``sweep.store.drivers``.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import fsspec

from sweep.store.files.store_error import StoreError

DEADLINE_S = 60.0
LISTING_DEADLINE_S = 600.0  # 200,000 names come in 200 pages
CONFLICT_PAUSES_S = (0.1, 0.2, 0.4, 0.8, 1.6)
PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "memory": "fsspec"}


class RemoteFiles:
    """A prefix of a bucket. A put is atomic there, so nothing is ever half-written."""

    readers = at_once = 16  # to read and to write; each answer takes some 20 to 60 ms
    tell_every_s, ask_every_s = 60.0, 15.0  # each put and each look costs money

    def __init__(self, uri: str, *, deadline_s: float = DEADLINE_S) -> None:
        self._uri = uri.rstrip("/")
        self._fs = _filesystem(uri)
        self._root = self._fs._strip_protocol(self._uri)
        self._deadline_s = deadline_s

    @property
    def place(self) -> str:
        return self._uri

    def where(self, name: str) -> str:
        return f"{self._uri}/{name}"

    def create(self, name: str, data: bytes) -> bool:
        """A conditional put. 409 says that another one to this name is under way: ask again."""
        pauses_s = iter(CONFLICT_PAUSES_S)
        while True:
            try:
                self._fs.pipe_file(self._path(name), data, mode="create", **self._limit())
                return True
            except Exception as error:  # whatever the client and its transport raise
                status = _status(error)
                if isinstance(error, FileExistsError) or status == 412:
                    return False
                pause_s = next(pauses_s, None)
                if status != 409 or pause_s is None:
                    raise self._explain(error, name, "kept") from error
                time.sleep(pause_s)

    def replace(self, name: str, data: bytes) -> None:
        self._ask("kept", name, self._fs.pipe_file, data)

    def read(self, name: str) -> bytes:
        data: bytes = self._ask("read", name, self._fs.cat_file, missing_is_normal=True)
        return data

    def exists(self, name: str) -> bool:
        return bool(self._ask("read", name, self._fs.exists))

    def modified_at(self, name: str) -> datetime:
        with self._explained("read", name, missing_is_normal=True):
            at: datetime = self._fs.modified(self._path(name))
        return at

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._ask("removed", name, self._fs.rm_file, missing_is_normal=True)

    def names(self, folder: str) -> list[str]:
        return [name for name, kind in self._entries(folder) if kind == "file"]

    def folders(self) -> list[str]:
        return [name for name, kind in self._entries("") if kind == "directory"]

    def remove_temporaries(self) -> None:
        pass

    def _entries(self, folder: str) -> list[tuple[str, str]]:
        path = self._path(folder)
        try:
            with self._explained("listed", folder, missing_is_normal=True):
                found = self._fs.ls(path, detail=True, **self._limit(LISTING_DEADLINE_S))
        except FileNotFoundError:
            return []
        paths = [(entry["name"].rstrip("/"), entry["type"]) for entry in found]
        # Some consoles mark a "folder" by an object of its own name.
        return sorted((name.rpartition("/")[2], kind) for name, kind in paths if name != path)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}".rstrip("/")

    def _limit(self, deadline_s: float | None = None) -> dict[str, float]:
        return {"timeout": deadline_s or self._deadline_s} if self._fs.async_impl else {}

    def _ask(
        self,
        done: str,
        name: str,
        function: Callable[..., Any],
        *arguments: object,
        missing_is_normal: bool = False,
    ) -> Any:
        with self._explained(done, name, missing_is_normal=missing_is_normal):
            return function(self._path(name), *arguments, **self._limit())

    @contextlib.contextmanager
    def _explained(self, done: str, name: str, *, missing_is_normal: bool) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever the client and its transport raise
            missing = isinstance(error, FileNotFoundError) and _code(error) != "NoSuchBucket"
            if missing and missing_is_normal:
                raise
            raise self._explain(error, name, done) from error

    def _explain(self, error: Exception, name: str, done: str) -> StoreError:
        where = self.where(name) if name else self._uri
        if isinstance(error, TimeoutError):
            reason, remedy = "no answer in time", "See whether the service can be reached"
        elif isinstance(error, FileNotFoundError):
            reason, remedy = "there is no such bucket", "Create it, or correct RESULTS="
        elif isinstance(error, PermissionError) or "Credentials" in type(error).__name__:
            reason = str(error)
            remedy = "See whether this machine has credentials for it, and what they allow"
        else:
            reason = str(error) or type(error).__name__
            remedy = "See whether the service can be reached, and RESULTS="
        return StoreError(f"{where}: this cannot be {done} there ({reason.strip()}). {remedy}.")


def _filesystem(uri: str) -> Any:
    """The client, with listings that are never remembered and requests that end."""
    scheme = uri.partition("://")[0]
    options: dict[str, Any] = {"use_listings_cache": False}
    if scheme == "s3":
        # A lost connection is tried again for some seconds; DEADLINE_S ends it all the same.
        options["config_kwargs"] = {
            "connect_timeout": 5,
            "read_timeout": 15,
            "max_pool_connections": 32,
            "retries": {"mode": "standard", "total_max_attempts": 4},
        }
        options["max_concurrency"] = 1  # more would ask for a file's size before reading it
    try:
        return fsspec.filesystem(scheme, **options)
    except ImportError:
        package = PACKAGES[scheme]
        raise StoreError(
            f"{uri}: {package} is needed to keep results there, and it is not installed. "
            f"`pip install {package}` in the driver's environment installs it."
        ) from None
    except Exception as error:  # gcsfs looks for credentials at once, in many ways
        raise StoreError(f"{uri}: no connection can be made ({error}).") from error


def _response(error: BaseException) -> dict[str, Any]:
    """What S3 answered, where it did: s3fs keeps botocore's error as the cause."""
    response: dict[str, Any] = getattr(error.__cause__, "response", None) or {}
    return response


def _code(error: BaseException) -> str | None:
    code: str | None = _response(error).get("Error", {}).get("Code")
    return code


def _status(error: BaseException) -> int | None:
    status: int | None = _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status
