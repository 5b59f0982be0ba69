"""The reference models as a program on KServe's Python server."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from modelyard.conformance.reference import MODELS, ReferenceTensor

_PROGRAM: Final = '''\
"""Reference models of the conformance suite on KServe's Python server.

Written by `modelyard conformance models`. python serve.py --grpc_port 8081 --http_port 8080
"""

from kserve import InferOutput, InferResponse, Model, ModelServer

MODELS = {models}


class Reference(Model):
    """What it computes is told by its inputs."""

    def __init__(self, name, inputs, outputs):
        super().__init__(name)
        self._inputs, self._outputs = inputs, outputs
        self.ready = True

    def load(self):
        return self.ready

    async def get_input_types(self):
        return self._inputs

    async def get_output_types(self):
        return self._outputs

    async def predict(self, payload, headers=None, response_headers=None):
        tensors = {{tensor.name: tensor for tensor in payload.inputs}}
        outputs = self._compute(tensors)
        wanted = [output.name for output in payload.request_outputs or []]
        outputs = [output for output in outputs if not wanted or output.name in wanted]
        return InferResponse(response_id=payload.id, model_name=self.name, infer_outputs=outputs)

    def _compute(self, tensors):
        if set(tensors) == {{"a", "b"}}:
            a, b = tensors["a"].as_numpy(), tensors["b"].as_numpy()
            return [self._output("sum", a + b), self._output("difference", a - b)]
        x = tensors["x"].as_numpy()
        return [self._output("y", x + x if self.name.endswith("unbatched") else x)]

    def _output(self, name, array):
        datatype = next(one["datatype"] for one in self._outputs if one["name"] == name)
        output = InferOutput(name=name, shape=list(array.shape), datatype=datatype)
        output.set_data_from_numpy(array, binary_data=False)
        return output


if __name__ == "__main__":
    ModelServer().start([Reference(*model) for model in MODELS])
'''


def write_kserve_program(folder: Path) -> None:
    """`serve.py`, a server with every reference model."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = "\n".join(
        f"    ({model.full_name!r}, {_tensors(model.inputs)}, {_tensors(model.outputs)})," for model in MODELS
    )
    (folder / "serve.py").write_text(_PROGRAM.format(models=f"[\n{listed}\n]"))


def _tensors(tensors: tuple[ReferenceTensor, ...]) -> list[dict[str, object]]:
    return [{"name": one.name, "datatype": one.datatype, "shape": list(one.shape)} for one in tensors]
