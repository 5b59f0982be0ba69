"""The reading process: one request on standard input, one answer on standard output, both JSON, then the end.

Started ahead of time by `sandbox`, so everything heavy is imported before the request is waited for.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

from modelyard.core.errors import MalformedContent, ModelyardError, TooLarge

from .csv_tables import read_csv
from .graphs import read_graph
from .limits import GraphLimits, TableLimits
from .npz_tables import read_npz
from .parquet_tables import read_parquet

_READERS = {"csv": read_csv, "parquet": read_parquet, "npz": read_npz}
_STATM = Path("/proc/self/statm")
_OPEN_FILES = 64
_NICENESS = 5  # predictions and metadata come first


def main() -> None:
    """Answers one request; an empty one means that nobody wants anything any more."""
    line = sys.stdin.readline()
    if not line:
        return
    request = json.loads(line)
    _confine(request["memory_bytes"], request["cpu_s"])
    json.dump(_answer(request), sys.stdout)


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
    path = Path(request["path"])
    if request["format"] == "onnx":
        limits = request["limits"]
        return read_graph(path, GraphLimits(**limits | {"domains": tuple(limits["domains"])}))
    return _READERS[request["format"]](path, TableLimits(**request["limits"]))


def _refusal(error: ModelyardError) -> dict[str, Any]:
    return {"refusal": type(error).__name__, "message": error.message, "metadata": error.metadata}


if __name__ == "__main__":
    main()
