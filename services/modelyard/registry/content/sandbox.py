"""Reads uploaded content in a process of its own: a crash, a bomb or an endless loop there is an answer here.

A process is kept ready, since importing what reads ONNX and Parquet takes longer than reading a small file. Threads
talk to it, not the event loop: uvloop has been seen to close the pipe to a process that it had just started.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from modelyard.core.errors import MalformedContent, ModelyardError, TooLarge
from modelyard.core.logs import get_logger

from .limits import GIBIBYTE, ExternalFile, GraphLimits, TableLimits
from .messages import ColumnFacts, GraphFacts, TableFacts, TensorFacts

log = get_logger()

_REFUSALS: dict[str, type[ModelyardError]] = {"MalformedContent": MalformedContent, "TooLarge": TooLarge}
# What the reader needs; above all not the credentials of database and blob store.
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV")
_Process = subprocess.Popen[bytes]
_COPIES_OF_A_GRAPH = 5
"""How often a graph may be in memory: its bytes, the parsed message, and what onnx.checker makes of it."""


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """Bounds on one reading."""

    memory_bytes: int = GIBIBYTE
    """Beside a multiple of the file's size for a graph, which cannot be read piece by piece."""
    time_s: int = 300
    processes: int = 2
    """How many readings at a time; others wait."""
    table: TableLimits = field(default_factory=TableLimits)
    graph: GraphLimits = field(default_factory=GraphLimits)


class ContentReader:
    """Reads tables and graphs from local files. An async context manager: it keeps a process ready."""

    def __init__(self, limits: SandboxLimits | None = None) -> None:
        self._limits = limits or SandboxLimits()
        self._slots = asyncio.Semaphore(self._limits.processes)
        self._ready: asyncio.Task[_Process] | None = None
        self._taking = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._ready = asyncio.create_task(asyncio.to_thread(_start))
        return self

    async def __aexit__(self, *_exception: object) -> None:
        if self._ready is not None:
            for process in await asyncio.gather(self._ready, return_exceptions=True):
                if isinstance(process, subprocess.Popen):
                    await asyncio.to_thread(_stop, process)

    async def read_table(self, path: Path, table_format: str) -> TableFacts:
        """What is in a `csv`, `parquet` or `npz` file; raises MalformedContent with the place, or TooLarge."""
        facts = await self._read(path, table_format, self._limits.table, self._limits.memory_bytes)
        columns = tuple(ColumnFacts(**column | {"shape": tuple(column["shape"])}) for column in facts["columns"])
        return TableFacts(facts["row_count"], columns)

    async def read_graph(self, path: Path, external: ExternalFile | None = None) -> GraphFacts:
        """The signature of an ONNX file; raises MalformedContent with the reason, or TooLarge.

        `external`: the file that its weights may be in, which is not read.
        """
        size = (await asyncio.to_thread(path.stat)).st_size
        memory = self._limits.memory_bytes + _COPIES_OF_A_GRAPH * size
        facts = await self._read(path, "onnx", replace(self._limits.graph, external=external), memory)
        return GraphFacts(
            _tensors(facts["inputs"]), _tensors(facts["outputs"]), facts["opset_version"], facts["ir_version"]
        )

    async def _read(self, path: Path, content: str, limits: TableLimits | GraphLimits, memory: int) -> dict[str, Any]:
        request = {
            "path": str(path), "format": content, "limits": dataclasses.asdict(limits), "memory_bytes": memory,
            "cpu_s": self._limits.time_s,
        }  # fmt: skip
        async with self._slots:
            process = await self._take()
            answer, complaint = await self._ask(process, request)
            if not answer:  # it ended before the request came: a request that is taken is answered with a line at least
                log.warning("a content reader ended while it waited", stderr=complaint[-4000:].decode(errors="replace"))
                process = await asyncio.to_thread(_start)
                answer, complaint = await self._ask(process, request)
        return self._understand(process, answer, complaint)

    async def _ask(self, process: _Process, request: dict[str, Any]) -> tuple[bytes, bytes]:
        """What it writes to its outputs; it has ended afterwards."""
        line = json.dumps(request).encode() + b"\n"
        asking = asyncio.ensure_future(asyncio.to_thread(process.communicate, line, self._limits.time_s))
        try:
            return await asyncio.shield(asking)
        except subprocess.TimeoutExpired:
            await asyncio.to_thread(_stop, process)
            raise _too_slow(self._limits.time_s) from None
        except asyncio.CancelledError:
            process.kill()
            await asyncio.wait([asking])  # the thread's wait ends with the process
            raise

    async def _take(self) -> _Process:
        """The process that is ready; the next one is started behind it."""
        async with self._taking:
            ready = self._ready
            if ready is None or (ready.done() and ready.exception() is not None):
                ready = asyncio.create_task(asyncio.to_thread(_start))
            self._ready = ready
            process = await asyncio.shield(ready)  # a caller that hangs up here leaves it to the next one
            self._ready = asyncio.create_task(asyncio.to_thread(_start))
        if process.poll() is None:
            return process
        log.warning("a content reader ended while it waited", status=process.returncode)
        await asyncio.to_thread(_stop, process)
        return await asyncio.to_thread(_start)

    def _understand(self, process: _Process, answer: bytes, complaint: bytes) -> dict[str, Any]:
        if process.returncode == 0:
            message: dict[str, Any] = json.loads(answer)
            if "refusal" in message:
                raise _REFUSALS[message["refusal"]](message["message"], metadata=message["metadata"])
            return dict(message["facts"])
        log.error(
            "the content reader failed", status=process.returncode, stderr=complaint[-4000:].decode(errors="replace")
        )
        if process.returncode in {-signal.SIGXCPU, -signal.SIGKILL}:
            raise _too_slow(self._limits.time_s)
        if process.returncode is not None and process.returncode < 0:
            raise MalformedContent("the content is broken in a way that crashes its reader")
        raise RuntimeError(f"the content reader ended with status {process.returncode}")


def _tensors(facts: list[dict[str, Any]]) -> tuple[TensorFacts, ...]:
    return tuple(TensorFacts(tensor["name"], tensor["data_type"], tuple(tensor["shape"])) for tensor in facts)


def _too_slow(limit_s: int) -> TooLarge:
    return TooLarge(f"reading the content takes longer than {limit_s} s", metadata={"limit_seconds": str(limit_s)})


def _start() -> _Process:
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    # The limit is on address space: OpenBLAS's threads and a gigabyte that Arrow's own allocator takes in advance would
    # count against it. And one reading uses one core.
    libraries = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "modelyard.registry.content"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment | libraries,
        start_new_session=True,  # an interrupt at the terminal is the service's business, not this process's
    )  # fmt: skip


def _stop(process: _Process) -> None:
    """Ends it and closes what leads to it."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None and not pipe.closed:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
