"""The reading process: one request on standard input, one answer on standard output, both JSON, then the end.
An empty line before the answer says that the request has been taken.

Started ahead of time by `sandbox`. While it waits for its request it imports everything that any request may need;
when the request is there already, only what that one needs.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import resource
import select
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modelyard.core.errors import MalformedContent, ModelyardError, TooLarge

from .limits import ExternalFile, GraphLimits, TableLimits

_READERS = {
    "onnx": ("graphs", "read_graph"),
    "csv": ("csv_tables", "read_csv"),
    "parquet": ("parquet_tables", "read_parquet"),
    "npz": ("npz_tables", "read_npz"),
}
"""Module and function for each format."""

_STATM = Path("/proc/self/statm")
_OPEN_FILES = 64
_NICENESS = 5  # predictions and metadata come first


def main() -> None:
    """Answers one request; an empty one means that nobody wants anything any more."""
    for content in _READERS:
        if not select.select([sys.stdin], [], [], 0)[0]:
            _reader(content)
    line = sys.stdin.readline()
    if not line:
        return
    print(flush=True)  # the request is taken: what goes wrong from here on is the content's doing
    request = json.loads(line)
    _reader(request["format"])  # what the libraries themselves take is not the content's fault
    _confine(request["memory_bytes"], request["cpu_s"])
    json.dump(_answer(request), sys.stdout)
    sys.stdout.flush()
    os._exit(0)  # nothing is left to tidy up, and the libraries take a tenth of a second to do it


def _confine(memory_bytes: int, cpu_s: int) -> None:
    """Bounds what this process may use from now on; it may not write files at all."""
    os.nice(_NICENESS)
    present = int(_STATM.read_text().split()[0]) * resource.getpagesize() if _STATM.exists() else 0
    for kind, amount in (
        (resource.RLIMIT_AS, present + memory_bytes),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
    ):
        _soft, hard = resource.getrlimit(kind)
        wanted = amount if hard == resource.RLIM_INFINITY else min(amount, hard)
        resource.setrlimit(kind, (wanted, wanted))


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"facts": dataclasses.asdict(_read(request))}
    except MemoryError:
        limit = request["memory_bytes"]
        message = f"reading the content takes more than {limit} bytes of memory"
        return _refusal(TooLarge(message, metadata={"limit_bytes": str(limit)}))
    except (MalformedContent, TooLarge) as error:
        return _refusal(error)


def _read(request: dict[str, Any]) -> Any:
    limits = request["limits"]
    if request["format"] == "onnx":
        external = ExternalFile(**limits["external"]) if limits["external"] else None
        bounds: GraphLimits | TableLimits = GraphLimits(
            **limits | {"domains": tuple(limits["domains"]), "external": external}
        )
    else:
        bounds = TableLimits(**limits)
    return _reader(request["format"])(Path(request["path"]), bounds)


def _reader(content: str) -> Callable[[Path, Any], Any]:
    module, function = _READERS[content]
    reader: Callable[[Path, Any], Any] = getattr(importlib.import_module(f".{module}", __package__), function)
    return reader


def _refusal(error: ModelyardError) -> dict[str, Any]:
    return {"refusal": type(error).__name__, "message": error.message, "metadata": error.metadata}


if __name__ == "__main__":
    main()
