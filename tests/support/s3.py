"""A real S3 API on loopback: moto behind a socket, with its requests made one at a time.

S3 decides on a condition and stores the object in one step; moto looks first and stores then, so
two threads of it could both be told that they were first.
"""

import contextlib
import secrets
import threading
from collections.abc import Iterator
from typing import Any

import fsspec
import pytest
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class Quiet(WSGIRequestHandler):
    """Without a line for every request."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


class OneAtATime:
    """A WSGI application, one request at a time; ``refuse`` may answer in its place."""

    def __init__(self, application: Any) -> None:
        self.application = application
        self.refuse: Any = None
        self._turn = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        with self._turn:
            refused = self.refuse(environ, start_response) if self.refuse else None
            if refused is not None:
                return refused
            return list(self.application(environ, start_response))


class Service:
    """A running S3 service: ``endpoint`` and the means to make it misbehave."""

    def __init__(self, endpoint: str, application: OneAtATime) -> None:
        self.endpoint = endpoint
        self.application = application

    def bucket(self) -> str:
        """A new, empty bucket."""
        name = f"bucket-{secrets.token_hex(4)}"
        fsspec.filesystem("s3").mkdir(name)
        return name


@contextlib.contextmanager
def s3_service() -> Iterator[Service]:
    """Serve until the end of the block, and point this process and its children to it."""
    application = OneAtATime(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": endpoint}.items():
            patch.setenv(name, value)
        forget_clients()
        try:
            yield Service(endpoint, application)
        finally:
            forget_clients()
            server.shutdown()
            thread.join()
            server.server_close()


def forget_clients() -> None:
    """The next client reads the environment anew."""
    fsspec.get_filesystem_class("s3").clear_instance_cache()
