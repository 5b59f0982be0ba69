"""A real S3 server (moto's) on a loopback port."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .required import missing


@dataclass(frozen=True)
class S3Server:
    """A running server. It takes any credentials."""

    endpoint: str

    def new_bucket(self, name: str) -> None:
        """Creates a bucket."""
        request = urllib.request.Request(f"{self.endpoint}/{name}", method="PUT")
        with urllib.request.urlopen(request) as response:
            assert response.status == 200

    def uploads_in_progress(self, bucket: str) -> int:
        """How many multipart uploads were begun and neither completed nor aborted: they cost storage, unseen."""
        with urllib.request.urlopen(f"{self.endpoint}/{bucket}?uploads") as response:
            return int(response.read().count(b"<UploadId>"))


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """A server for the length of a `with`; skips the test (or fails it, in CI) if moto is not installed."""
    if importlib.util.find_spec("moto") is None or importlib.util.find_spec("flask") is None:
        missing("moto[server]", "MODELYARD_TEST_S3")
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    # It writes a line for each call, and would hang as soon as nobody had read for some hundred of them.
    reader = threading.Thread(target=process.stderr.read, daemon=True)
    try:
        server = S3Server(_endpoint(iter(process.stderr.readline, "")))
        reader.start()
        yield server
    finally:
        process.kill()
        process.wait()
        if reader.ident is not None:
            reader.join()
        process.stderr.close()


def _endpoint(lines: Iterator[str]) -> str:
    for line in lines:
        found = re.search(r"Running on (http://127\.0\.0\.1:\d+)", line)
        if found:
            return found[1]
    raise AssertionError("moto ended without saying where it listens")
