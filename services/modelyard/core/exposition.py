"""Serves metrics over HTTP at `/metrics`, in Prometheus' text format.

The HTTP server has a thread of its own and asks the event loop for the figures: only the loop knows them, and a few
milliseconds of text-making should not hold up calls more than the interpreter's lock makes unavoidable.
"""

from __future__ import annotations

import asyncio
import re
import socket
import socketserver
import threading
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, ThreadingWSGIServer, generate_latest
from prometheus_client.registry import Collector

import modelyard

from .logs import get_logger
from .metrics import MetricsSource

if TYPE_CHECKING:  # the module exists for type checkers only
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PATH = "/metrics"
_ANSWER_S = 10.0
"""An event loop that does not answer for so long makes the scrape fail, which is an alarm of its own."""
_IDLE_S = 10.0
"""A client that says nothing for so long is hung up on."""
_POLL_S = 0.05
_PLAIN_COUNTER = re.compile(rb"^(# (?:HELP|TYPE) nv_\w+)_total ", re.MULTILINE)
"""Triton's counters are named without the suffix that the library puts behind a counter's name in its header."""

log = get_logger()


class _Handler(WSGIRequestHandler):
    timeout = _IDLE_S

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """A scrape every few seconds is nothing to write about."""


class _Server(ThreadingWSGIServer):
    def server_bind(self) -> None:
        # The library's own would look the host's name up, which takes seconds where the name service is away.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Collected(Collector):
    """Families that are there already, as the library wants them."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


class MetricsEndpoint:
    """The HTTP server, from its creation in the event loop until `stop`."""

    def __init__(self, listen: str, sources: Mapping[str, MetricsSource]) -> None:
        """`listen`: `host:port`, port 0 for a free one. `sources` by a name for the log. Raises OSError."""
        self._sources = sources
        self._errors: dict[str, int] = dict.fromkeys(sources, 0)
        self._loop = asyncio.get_running_loop()
        self._process = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._process)
        host, _, port = listen.rpartition(":")
        kind = _Server6 if host.startswith("[") else _Server
        try:
            self._server = make_server(host.strip("[]"), int(port), self._answer, kind, _Handler)
        except OSError as error:
            raise OSError(f"cannot serve metrics on {listen}: {error}") from error
        self.address = f"{host}:{self._server.server_port}"
        """Where it listens, with the real port."""
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_POLL_S,), name="metrics", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Answers nobody any more."""
        await asyncio.to_thread(self._server.shutdown)
        self._server.server_close()

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """One request, in a thread of its own."""
        if environ["PATH_INFO"] != PATH:
            return _say(start_response, HTTPStatus.NOT_FOUND, f"metrics are at {PATH}\n".encode())
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _say(start_response, HTTPStatus.METHOD_NOT_ALLOWED, b"expected GET\n")
        try:
            text = self.text()
        except TimeoutError:
            return _say(start_response, HTTPStatus.SERVICE_UNAVAILABLE, b"the service does not answer\n")
        return _say(start_response, HTTPStatus.OK, text, CONTENT_TYPE_PLAIN_0_0_4)

    def text(self) -> bytes:
        """All metrics. Call it outside the event loop; raises TimeoutError if that does not answer."""
        collecting = asyncio.run_coroutine_threadsafe(self._collect(), self._loop)
        try:
            families = collecting.result(_ANSWER_S)
        except TimeoutError:
            collecting.cancel()
            raise
        plain = generate_latest(_Collected([*families, *self._process.collect()]))
        return _PLAIN_COUNTER.sub(rb"\1 ", plain)

    async def _collect(self) -> list[Metric]:
        families: list[Metric] = []
        for name, source in self._sources.items():
            try:
                families.extend(await source.metrics())
            except Exception as error:  # noqa: BLE001 - the database is away, perhaps: the other figures matter the more
                self._errors[name] += 1
                log.warning("metrics are missing", source=name, error=repr(error))
        return [*families, *self._own()]

    def _own(self) -> Iterable[Metric]:
        build = GaugeMetricFamily("modelyard_build_info", "Always 1; what runs.", labels=["version"])
        build.add_metric([modelyard.__version__], 1)
        errors = CounterMetricFamily(
            "modelyard_metrics_errors", "Times that a part of the metrics could not be told.", labels=["source"]
        )
        for name, count in self._errors.items():
            errors.add_metric([name], count)
        return build, errors


def _say(
    start_response: Callable[..., object], status: HTTPStatus, body: bytes, content_type: str = "text/plain"
) -> Iterable[bytes]:
    start_response(
        f"{status.value} {status.phrase}", [("Content-Type", content_type), ("Content-Length", str(len(body)))]
    )
    return [body]
