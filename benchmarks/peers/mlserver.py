"""MLServer 1.7.1 in one process, with an ONNX Runtime model of a few lines: it brings none of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.workshop import free_port

from .peer import INSIDE, ModelFile, Peer, Plan

_MESSAGE_BYTES = 128 * 2**20
_BATCH_WINDOW_S = 0.001


class MLServer(Peer):
    """`parallel_workers=0`: worker processes cost it more than they bring with small requests."""

    name = "mlserver"
    package = "mlserver"

    def plan(self, place: Path, work: Path, port: int, models: Sequence[ModelFile]) -> Plan:
        """Settings files as its documentation has them."""
        server = {
            "host": "127.0.0.1",
            "grpc_port": port,
            "http_port": free_port(),
            "metrics_port": free_port(),
            "metrics_dir": str(work),
            "grpc_max_message_length": _MESSAGE_BYTES,
            "parallel_workers": 0,
            "debug": False,
        }
        (work / "settings.json").write_text(json.dumps(server))
        for model in models:
            folder = work / model.name
            folder.mkdir()
            (folder / "model-settings.json").write_text(json.dumps(_settings(model)))
        return Plan([str(place / "bin/mlserver"), "start", str(work)], {"PYTHONPATH": str(INSIDE)})


def _settings(model: ModelFile) -> dict[str, object]:
    settings: dict[str, object] = {
        "name": model.name,
        "implementation": "mlserver_model.OnnxModel",
        "parameters": {
            "uri": str(model.path.resolve()),
            "version": "1",
            "extra": {
                "graph_threads": model.tuning.graph_threads,
                "beside_the_loop": model.tuning.beside_the_loop,
            },
        },
    }
    if model.tuning.max_batch_size:
        settings |= {"max_batch_size": model.tuning.max_batch_size, "max_batch_time": _BATCH_WINDOW_S}
    return settings
