"""Runs in MLServer: an ONNX graph as a model."""

import asyncio

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse, MetadataTensor

DATATYPES = {"tensor(float)": "FP32", "tensor(double)": "FP64", "tensor(int64)": "INT64", "tensor(int32)": "INT32"}


class OnnxModel(MLModel):
    """The graph at `parameters.uri`. Answers in raw contents when the request had them."""

    async def load(self) -> bool:
        """Opens the session."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.settings.parameters.extra["graph_threads"]
        options.inter_op_num_threads = 1
        self._beside_the_loop = self.settings.parameters.extra["beside_the_loop"]
        uri = self.settings.parameters.uri
        self._session = onnxruntime.InferenceSession(uri, options, providers=["CPUExecutionProvider"])
        self._outputs = [value.name for value in self._session.get_outputs()]
        self.inputs = [self._described(value) for value in self._session.get_inputs()]
        self.outputs = [self._described(value) for value in self._session.get_outputs()]
        return True

    @staticmethod
    def _described(value):
        shape = [size if isinstance(size, int) else -1 for size in value.shape]
        return MetadataTensor(name=value.name, datatype=DATATYPES.get(value.type, "FP32"), shape=shape)

    async def predict(self, payload):
        """One run, in the event loop or beside it."""
        feeds = {tensor.name: NumpyCodec.decode_input(tensor) for tensor in payload.inputs}
        if self._beside_the_loop:
            answer = await asyncio.to_thread(self._session.run, self._outputs, feeds)
        else:
            answer = self._session.run(self._outputs, feeds)
        outputs = [NumpyCodec.encode_output(name, array) for name, array in zip(self._outputs, answer, strict=True)]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)
