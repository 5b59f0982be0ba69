"""KServe's Python server with an ONNX Runtime model of a few lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.workshop import free_port

from .peer import INSIDE, ModelFile, Peer, Plan

_MESSAGE_BYTES = 128 * 2**20


class KServe(Peer):
    """One worker process; it does not gather requests."""

    name = "kserve"
    package = "kserve"

    def plan(self, place: Path, work: Path, port: int, models: Sequence[ModelFile]) -> Plan:
        """Our program around its server."""
        del work
        command = [
            str(place / "bin/python"),
            str(INSIDE / "kserve_server.py"),
            f"--grpc_port={port}",
            f"--http_port={free_port()}",
            "--workers=1",
            "--enable_latency_logging=false",
            f"--grpc_max_receive_message_length={_MESSAGE_BYTES}",
            f"--grpc_max_send_message_length={_MESSAGE_BYTES}",
            *(f"--graph={json.dumps(_described(model))}" for model in models),
        ]
        return Plan(command, {})


def _described(model: ModelFile) -> dict[str, object]:
    return {
        "name": model.name,
        "path": str(model.path.resolve()),
        "graph_threads": model.tuning.graph_threads,
        "beside_the_loop": model.tuning.beside_the_loop,
    }
