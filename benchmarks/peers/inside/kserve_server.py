"""Runs in KServe's environment: its server with ONNX graphs as models."""

import argparse
import asyncio
import json
import logging

import onnxruntime
from kserve import InferOutput, InferResponse, Model, ModelServer, model_server


class OnnxModel(Model):
    """A graph; `settings` as the launcher describes it."""

    def __init__(self, settings):
        super().__init__(settings["name"])
        self._beside_the_loop = settings["beside_the_loop"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = settings["graph_threads"]
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(settings["path"], options, providers=["CPUExecutionProvider"])
        self._outputs = self._session.get_outputs()
        self.ready = True

    async def get_input_types(self):
        """For the model's metadata."""
        return [self._described(value) for value in self._session.get_inputs()]

    async def get_output_types(self):
        """For the model's metadata."""
        return [self._described(value) for value in self._outputs]

    @staticmethod
    def _described(value):
        shape = [size if isinstance(size, int) else -1 for size in value.shape]
        return {"name": value.name, "datatype": _DATATYPES.get(value.type, "FP32"), "shape": shape}

    async def predict(self, payload, headers=None, response_headers=None):  # noqa: ARG002 - as its base class has it
        """One run, in the event loop or beside it."""
        feeds = {tensor.name: tensor.as_numpy() for tensor in payload.inputs}
        names = [value.name for value in self._outputs]
        if self._beside_the_loop:
            answer = await asyncio.to_thread(self._session.run, names, feeds)
        else:
            answer = self._session.run(names, feeds)
        outputs = []
        for value, array in zip(self._outputs, answer, strict=True):
            output = InferOutput(value.name, list(array.shape), _DATATYPES.get(value.type, "FP32"))
            output.set_data_from_numpy(array, binary_data=True)
            outputs.append(output)
        return InferResponse(payload.id, self.name, outputs)


_DATATYPES = {"tensor(float)": "FP32", "tensor(double)": "FP64", "tensor(int64)": "INT64", "tensor(int32)": "INT32"}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(parents=[model_server.parser])
    parser.add_argument("--graph", action="append", type=json.loads, required=True)
    arguments = parser.parse_args()
    server = ModelServer(workers=arguments.workers)
    logging.getLogger("kserve").setLevel(logging.WARNING)  # else it writes a line per request, which costs it speed
    server.start([OnnxModel(graph) for graph in arguments.graph])
