"""The reference models for MLServer: `model-settings.json` for each, and the runtime that they name.

The runtime computes with MLServer's own classes, so that what is checked is MLServer's reading and writing of tensors.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from modelyard.conformance.reference import MODELS, ReferenceModel, ReferenceTensor

_RUNTIME: Final = '''\
"""Reference models of the conformance suite for MLServer: `mlserver start FOLDER` with FOLDER on PYTHONPATH."""

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse, ResponseOutput


class Reference(MLModel):
    """Written by `modelyard conformance models`: what it computes is told by its inputs."""

    async def predict(self, payload):
        outputs = self._compute({tensor.name: tensor for tensor in payload.inputs})
        wanted = [output.name for output in payload.outputs or []]
        outputs = [output for output in outputs if not wanted or output.name in wanted]
        return InferenceResponse(model_name=self.name, model_version=self.version, id=payload.id, outputs=outputs)

    def _compute(self, tensors):
        if set(tensors) == {"a", "b"}:
            a, b = NumpyCodec.decode_input(tensors["a"]), NumpyCodec.decode_input(tensors["b"])
            return [NumpyCodec.encode_output("sum", a + b), NumpyCodec.encode_output("difference", a - b)]
        x = tensors["x"]
        if self.name.endswith("unbatched"):
            array = NumpyCodec.decode_input(x)
            return [NumpyCodec.encode_output("y", array + array)]
        return [ResponseOutput(name="y", shape=x.shape, datatype=x.datatype, data=x.data)]
'''


def write_mlserver_folder(folder: Path) -> None:
    """A folder for `mlserver start`: settings, one folder for each model, the runtime."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "conformance_runtime.py").write_text(_RUNTIME)
    settings = {"parallel_workers": 0, "grpc_max_message_length": 256 * 2**20}
    (folder / "settings.json").write_text(json.dumps(settings, indent=2) + "\n")
    for model in MODELS:
        own = folder / model.full_name
        own.mkdir(exist_ok=True)
        (own / "model-settings.json").write_text(json.dumps(_settings(model), indent=2) + "\n")


def _settings(model: ReferenceModel) -> dict[str, Any]:
    return {
        "name": model.full_name,
        "implementation": "conformance_runtime.Reference",
        "platform": "conformance",
        "parameters": {"version": "1"},
        "inputs": [_tensor(tensor) for tensor in model.inputs],
        "outputs": [_tensor(tensor) for tensor in model.outputs],
    }


def _tensor(tensor: ReferenceTensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
