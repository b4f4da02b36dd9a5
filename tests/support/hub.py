"""A Hub on this machine: the part of its protocol that fetching needs, and its failures on demand.

Large files are answered by a redirect to another host, as the Hub answers with its CDN; the tree
comes in pages; files are served in ranges. What it does not have: tokens, Xet, branches.
"""

import hashlib
import json
import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from huggingface_hub import close_session

from trainer.data.download.hub import REPO

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PAGE_ENTRIES = 3
PIECE_BYTES = 200


@dataclass(frozen=True)
class Fault:
    """How one answer with a file's bytes goes wrong; by default it does not."""

    status: int | None = None
    content: bytes | None = None  # instead of the file's own
    cut_after: int | None = None  # of the bytes that were promised
    hold_after: int | None = None  # then nothing comes until the test lets go


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    start: int | None
    authorized: bool
    encoding: str | None


@dataclass
class FakeHub:
    """``files`` by their paths in the repository, ``faults`` by name, one for each answer.

    From ``large_bytes`` on, a file is answered as the Hub answers one that Git LFS holds.
    """

    files: dict[str, bytes]
    large_bytes: int = 1_000
    commit: str = COMMIT
    faults: dict[str, Iterator[Fault]] = field(
        default_factory=lambda: defaultdict(lambda: iter(()))
    )
    refusal: tuple[int, str | None] | None = None  # of everything: status and X-Error-Code
    ignores_ranges: bool = False
    port: int = 0
    requests: list[Request] = field(default_factory=list)
    holding: threading.Event = field(default_factory=threading.Event)
    let_go: threading.Event = field(default_factory=threading.Event)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def digest(self, content: bytes) -> str:
        """The hash by which the Hub knows a file of that content."""
        return sha256(content) if len(content) >= self.large_bytes else git_hash(content)

    def served(self) -> list[tuple[str, int | None]]:
        """Names and first bytes of the large files that were asked for, in that order."""
        names = {sha256(content): path.rpartition("/")[2] for path, content in self.files.items()}
        return [
            (names[each.path.rpartition("/")[2]], each.start)
            for each in self.requests
            if each.path.startswith("/cdn/")
        ]

    @contextmanager
    def running(self) -> Iterator["FakeHub"]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        server.daemon_threads = True
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self.let_go.set()
            server.shutdown()
            server.server_close()
            thread.join()


@contextmanager
def local_library() -> Iterator[None]:
    """The library without pauses, in small pieces, and with no word to anybody but the fake."""
    with pytest.MonkeyPatch.context() as patch:
        pauseless = SimpleNamespace(sleep=lambda _: None)
        patch.setattr("huggingface_hub.file_download.time", pauseless)
        patch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", PIECE_BYTES)
        patch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY", True)
        patch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
        patch.setenv("NO_PROXY", "*")
        close_session()  # it knows the proxies of when it was opened
        yield
        close_session()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    """A handler class that answers for ``hub``: the server makes one object for a connection."""

    class Handler(_Handler):
        pass

    Handler.hub = hub
    return Handler


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # it holds a body back for 40 ms behind its headers

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        given = re.fullmatch(r"bytes=([0-9]+)-", self.headers.get("Range", ""))
        start = int(given[1]) if given else None
        authorized = "Authorization" in self.headers
        encoding = self.headers.get("Accept-Encoding")
        self.hub.requests.append(Request(self.command, path, start, authorized, encoding))
        if self.hub.refusal is not None:
            status, code = self.hub.refusal
            self._send(status, headers={"X-Error-Code": code} if code else {})
        elif path.startswith(f"/api/datasets/{REPO}/tree/"):
            self._send_tree(path.split("/", 7)[7], parse_qs(url.query))
        elif path.startswith(f"/datasets/{REPO}/resolve/"):
            self._resolve(path.split("/", 6)[6], start)
        elif path.startswith("/cdn/"):
            digest = path.removeprefix("/cdn/")
            paths = [each for each, content in self.hub.files.items() if sha256(content) == digest]
            self._send_file(paths[0], start)
        else:
            self._send(404)  # such as the list by which the library tells who runs it

    def _resolve(self, path: str, start: int | None) -> None:
        """What there is to know of a file; a small one itself, or where the large one is."""
        content = self.hub.files.get(path)
        if content is None:
            self._send(404, headers={"X-Error-Code": "EntryNotFound"})
        elif len(content) < self.hub.large_bytes:
            self._send_file(path, start)
        else:
            headers = {
                "X-Repo-Commit": self.hub.commit,
                "X-Linked-Size": str(len(content)),
                "X-Linked-Etag": f'"{sha256(content)}"',
                "Location": f"http://localhost:{self.hub.port}/cdn/{sha256(content)}",
            }
            self._send(302, headers=headers)

    def _send_tree(self, folder: str, query: dict[str, list[str]]) -> None:
        entries: list[dict[str, Any]] = []
        for path, content in sorted(self.hub.files.items()):
            if path.rpartition("/")[0] != folder:
                continue
            entry = {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
            if len(content) >= self.hub.large_bytes:
                large = {"oid": sha256(content), "size": len(content), "pointerSize": 134}
                entry["lfs"] = large
            entries.append(entry)
        if not entries:
            self._send(404, headers={"X-Error-Code": "EntryNotFound"})
            return
        first = int(query.get("cursor", ["0"])[0])
        last = first + PAGE_ENTRIES
        url = f"{self.hub.endpoint}{urlsplit(self.path).path}?cursor={last}"
        more = {"Link": f'<{url}>; rel="next"'} if last < len(entries) else {}
        body = json.dumps(entries[first:last]).encode()
        self._send(200, body, {"Content-Type": "application/json", **more})

    def _send_file(self, path: str, start: int | None) -> None:
        own = self.hub.files[path]
        is_asked = self.command == "GET"
        fault = Fault()
        if is_asked:
            fault = next(self.hub.faults[path.rpartition("/")[2]], fault)
        if fault.status is not None:
            self._send(fault.status)
            return
        content = own if fault.content is None else fault.content
        headers = {"ETag": f'"{self.hub.digest(own)}"', "X-Repo-Commit": self.hub.commit}
        if start is None or self.hub.ignores_ranges:
            self._send(200, content, headers, fault)
        elif start >= len(content):
            self._send(416, headers={"Content-Range": f"bytes */{len(content)}"})
        else:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self._send(206, content[start:], headers, fault)

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
        fault = fault or Fault()
        if fault.cut_after is not None:
            self.wfile.write(body[: fault.cut_after])
            self.close_connection = True
        elif fault.hold_after is not None:
            self.wfile.write(body[: fault.hold_after])
            self.hub.holding.set()
            self.hub.let_go.wait()
            self.wfile.write(body[fault.hold_after :])
        else:
            self.wfile.write(body)

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            self.close_connection = True  # the client was killed, or has heard enough

    def log_message(self, *_args: object) -> None:
        """The tests' output is not for this."""
