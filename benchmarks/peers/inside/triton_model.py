"""Runs in Triton's Python backend: an ONNX graph; the requests that Triton gathered are computed as one batch."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """The class that the backend looks for."""

    def initialize(self, args):
        """Loads the graph from beside this file."""
        config = json.loads(args["model_config"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(config["parameters"]["graph_threads"]["string_value"])
        options.inter_op_num_threads = 1
        graph = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self._session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        self._inputs = [value.name for value in self._session.get_inputs()]
        self._outputs = [value.name for value in self._session.get_outputs()]
        self._batches = config["max_batch_size"] > 0

    def execute(self, requests):
        """One response per request, in their order."""
        if len(requests) == 1 or not self._batches:
            return [self._respond(self._session.run(self._outputs, self._tensors(request))) for request in requests]
        parts = [self._tensors(request) for request in requests]
        whole = {name: np.concatenate([part[name] for part in parts]) for name in self._inputs}
        cuts = np.cumsum([len(part[self._inputs[0]]) for part in parts])[:-1]
        pieces = [np.split(output, cuts) for output in self._session.run(self._outputs, whole)]
        return [self._respond(answer) for answer in zip(*pieces, strict=True)]

    def _tensors(self, request):
        return {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs}

    def _respond(self, answer):
        tensors = [pb_utils.Tensor(name, array) for name, array in zip(self._outputs, answer, strict=True)]
        return pb_utils.InferenceResponse(tensors)
