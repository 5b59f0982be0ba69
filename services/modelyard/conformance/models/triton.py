"""The reference models as a model repository for Triton.

For its Python backend (which every build of Triton has) or its ONNX Runtime backend.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from modelyard.conformance.reference import MAX_BATCH_SIZE, MODELS, ReferenceModel, ReferenceTensor

_PYTHON_MODEL: Final = '''\
"""A reference model of the conformance suite for Triton's Python backend: what it computes is told by its inputs."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Written by `modelyard conformance models`."""

    def initialize(self, args):
        self._name = args["model_name"]

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        inputs = {tensor.name(): tensor for tensor in request.inputs()}
        wanted = set(request.requested_output_names())
        tensors = [tensor for tensor in self._compute(inputs) if tensor.name() in wanted]
        return pb_utils.InferenceResponse(output_tensors=tensors)

    def _compute(self, inputs):
        if set(inputs) == {"a", "b"}:
            a, b = inputs["a"].as_numpy(), inputs["b"].as_numpy()
            return [pb_utils.Tensor("sum", a + b), pb_utils.Tensor("difference", a - b)]
        if self._name.endswith("unbatched"):
            x = inputs["x"].as_numpy()
            return [pb_utils.Tensor("y", x + x)]
        if self._name.endswith("bf16"):  # NumPy has no such type; DLPack hands the memory on untouched
            return [pb_utils.Tensor.from_dlpack("y", inputs["x"].to_dlpack())]
        return [pb_utils.Tensor("y", inputs["x"].as_numpy())]
'''


def write_triton_repository(folder: Path) -> None:
    """A repository for the Python backend: `<model>/config.pbtxt` and `<model>/1/model.py`."""
    for model in MODELS:
        version = _version_folder(folder, model, "python")
        (version / "model.py").write_text(_PYTHON_MODEL)


def write_triton_onnx_repository(folder: Path, graphs: Path) -> None:
    """A repository for the ONNX Runtime backend, from the files in `graphs`."""
    for model in MODELS:
        version = _version_folder(folder, model, "onnxruntime")
        (version / "model.onnx").write_bytes((graphs / f"{model.full_name}.onnx").read_bytes())


def _version_folder(folder: Path, model: ReferenceModel, backend: str) -> Path:
    """The folder of version 1, beside the model's configuration."""
    version = folder / model.full_name / "1"
    version.mkdir(parents=True, exist_ok=True)
    (version.parent / "config.pbtxt").write_text(_config(model, backend))
    return version


def _config(model: ReferenceModel, backend: str) -> str:
    lines = [
        f'name: "{model.full_name}"',
        f'backend: "{backend}"',
        f"max_batch_size: {MAX_BATCH_SIZE if model.batched else 0}",
        *(_tensor("input", tensor, model.batched) for tensor in model.inputs),
        *(_tensor("output", tensor, model.batched) for tensor in model.outputs),
        "dynamic_batching { }" if model.batched else "",
    ]
    return "\n".join(line for line in lines if line) + "\n"


def _tensor(kind: str, tensor: ReferenceTensor, batched: bool) -> str:
    datatype = "STRING" if tensor.datatype == "BYTES" else tensor.datatype
    dims = ", ".join(str(size) for size in tensor.shape[1 if batched else 0 :])
    return f'{kind} {{ name: "{tensor.name}" data_type: TYPE_{datatype} dims: [ {dims} ] }}'
