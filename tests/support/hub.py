"""A Hugging Face Hub on this machine: what snapshot_download asks it for, and failures on demand.

Large files are answered by a redirect to another host, as the Hub answers with its CDN. What it
does not have: tokens, Xet, branches, pages, ranges.
"""

import hashlib
import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import close_session

from trainer.data.hub import REPO

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE_BYTES = 1_000  # from here on, a file is answered as the Hub answers one that Git LFS holds


@dataclass(frozen=True)
class Fault:
    """How one answer with a file's bytes goes wrong; by default it does not."""

    status: int | None = None
    content: bytes | None = None  # instead of the file's own
    hold_after: int | None = None  # then nothing comes until the test lets go


@dataclass
class FakeHub:
    """``files`` by their paths in the repository, ``faults`` by name, one for each answer."""

    files: dict[str, bytes]
    faults: dict[str, Iterator[Fault]] = field(
        default_factory=lambda: defaultdict(lambda: iter(()))
    )
    refusal: tuple[int, str | None] | None = None  # of everything: status and X-Error-Code
    port: int = 0
    num_requests: int = 0
    served: list[str] = field(default_factory=list)  # names of files whose bytes were asked for
    holding: threading.Event = field(default_factory=threading.Event)
    let_go: threading.Event = field(default_factory=threading.Event)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def running(self) -> Iterator["FakeHub"]:
        handler = type("Handler", (_Handler,), {"hub": self})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with library_asks(self.endpoint):
                yield self
        finally:
            self.let_go.set()
            server.shutdown()
            server.server_close()
            thread.join()


@contextmanager
def library_asks(endpoint: str) -> Iterator[None]:
    """The library in this process with another server, without pauses, and no word to others."""
    with pytest.MonkeyPatch.context() as patch:
        constants = "huggingface_hub.constants"
        template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr(f"{constants}.ENDPOINT", endpoint)
        patch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(f"{constants}.HF_HUB_DISABLE_TELEMETRY", True)
        patch.setattr(f"{constants}.HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
        patch.setattr("huggingface_hub.file_download.time", SimpleNamespace(sleep=lambda _: None))
        patch.setenv("NO_PROXY", "*")
        close_session()  # it knows the proxies of when it was opened
        yield
        close_session()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # it holds a body back for 40 ms behind its headers

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.hub.num_requests += 1
        path = unquote(urlsplit(self.path).path)
        if self.hub.refusal is not None:
            status, code = self.hub.refusal
            self._send(status, headers={"X-Error-Code": code} if code else {})
        elif path == f"/api/datasets/{REPO}":
            siblings = [_entry("rfilename", "blobId", "sha256", each) for each in self._files()]
            self._send_json({"id": REPO, "sha": COMMIT, "siblings": siblings})
        elif path == f"/api/datasets/{REPO}/tree/{COMMIT}":
            entries = [_entry("path", "oid", "oid", each) for each in self._files()]
            self._send_json([entry | {"type": "file"} for entry in entries])
        elif path.startswith(f"/datasets/{REPO}/resolve/{COMMIT}/"):
            self._resolve(path.split("/", 6)[6])
        elif path.startswith("/cdn/"):
            digest = path.removeprefix("/cdn/")
            self._send_file(next(p for p, each in self._files() if sha256(each) == digest))
        else:
            self._send(404)  # such as the list by which the library tells who runs it

    def _files(self) -> list[tuple[str, bytes]]:
        return sorted(self.hub.files.items())

    def _resolve(self, path: str) -> None:
        """What there is to know of a file; a small one itself, or where the large one is."""
        content = self.hub.files.get(path)
        if content is None:
            self._send(404, headers={"X-Error-Code": "EntryNotFound"})
        elif len(content) < LARGE_BYTES:
            self._send_file(path)
        else:
            headers = {
                "X-Repo-Commit": COMMIT,
                "X-Linked-Size": str(len(content)),
                "X-Linked-Etag": f'"{sha256(content)}"',
                "Location": f"http://localhost:{self.hub.port}/cdn/{sha256(content)}",
            }
            self._send(302, headers=headers)

    def _send_json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send_file(self, path: str) -> None:
        own, name, fault = self.hub.files[path], path.rpartition("/")[2], Fault()
        if self.command == "GET":
            fault = next(self.hub.faults[name], fault)
            self.hub.served.append(name)
        if fault.status is not None:
            self._send(fault.status)
            return
        content = own if fault.content is None else fault.content
        digest = sha256(own) if len(own) >= LARGE_BYTES else git_hash(own)
        headers = {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT}
        self._send(200, content, headers, fault)

    def _send(
        self,
        status: int,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        fault: Fault | None = None,
    ) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault is not None and fault.hold_after is not None:
            self.wfile.write(body[: fault.hold_after])
            self.hub.holding.set()
            self.hub.let_go.wait()
            body = body[fault.hold_after :]
        self.wfile.write(body)

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            self.close_connection = True  # the client was killed, or has heard enough

    def log_message(self, *_args: object) -> None:
        """The tests' output is not for this."""


def _entry(name: str, git: str, lfs: str, file: tuple[str, bytes]) -> dict[str, Any]:
    """A file in a list, whose keys differ between the two lists that the Hub gives."""
    path, content = file
    entry: dict[str, Any] = {name: path, "size": len(content), git: git_hash(content)}
    if len(content) >= LARGE_BYTES:
        entry["lfs"] = {lfs: sha256(content), "size": len(content), "pointerSize": 134}
    return entry
