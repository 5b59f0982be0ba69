"""A predictor with one loaded version whose outputs equal its inputs, without a transport; and what it must answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from modelyard.core.errors import DeadlineExceeded, InvalidFields, NotFound
from modelyard.inference.calls import PredictionCall
from modelyard.inference.execution.plan import ExecutionPlan
from modelyard.inference.execution.sessions import GraphSession, RuntimeOptions
from modelyard.inference.prediction import Predictor
from modelyard.inference.protocol.shared_memory import SharedMemory
from modelyard.inference.serving.desired import WantedModel, WantedVersion
from modelyard.inference.serving.table import ModelEntry, ServingTable
from modelyard.inference.serving.versions import LoadedVersion
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.datatypes import DATATYPES
from modelyard.oip.tensors import add_input, decode_contents, decode_raw, encode_raw

from . import graphs

FLOATS = np.array([[1, 2], [3, 4]], np.float32)
NUMBERS = np.array([[5], [6]], np.int8)
WORDS = np.array([["a"], ["é"]], dtype=object)

REGION = "region"
REGION_BYTES = 256
OUTPUTS = ("f_out", "n_out", "t_out")


def good_request() -> pb.ModelInferRequest:
    """Every input in raw contents."""
    request = pb.ModelInferRequest(model_name="m", id="1")
    add_input(request, "f", FLOATS)
    add_input(request, "n", NUMBERS)
    add_input(request, "t", WORDS)
    return request


def three_inputs() -> bytes:
    """Outputs equal inputs; float [batch, 2], int8 [batch, n], text [batch, 1]."""
    kinds = {
        "f": (TensorProto.FLOAT, ("batch", 2)),
        "n": (TensorProto.INT8, ("batch", "n")),
        "t": (TensorProto.STRING, ("batch", 1)),
    }
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in kinds]
    return graphs.graph(nodes, kinds, {f"{name}_out": kind for name, kind in kinds.items()})


class PredictionBench:
    """A predictor with the version 1 of the model `m`, and the loop it lives in."""

    def __init__(self, runner: asyncio.Runner, folder: Path) -> None:
        self._runner = runner
        path = folder / "model.onnx"
        path.write_bytes(three_inputs())
        self.object = folder / "object"
        """Behind the region: the inputs of a good request one after the other, then room."""
        self.refill()
        runner.run(self._open(path))

    async def _open(self, path: Path) -> None:
        wanted = WantedVersion("m", 1, "digest", 1, (), (), 20, 10, "", "", "", "")
        session = GraphSession(path, RuntimeOptions())
        self.version = LoadedVersion(wanted, session, ExecutionPlan(max_batch_size=8, queue_size=10))
        table = ServingTable()
        model = WantedModel("m", {1: wanted}, {"live": 1})
        table.models["m"] = ModelEntry("m", model, loaded={1: self.version})
        table.models["m"].switch()
        table.known = table.confirmed = True
        table.publish()
        self._memory = SharedMemory(most_bytes=1 << 20, folder=self.object.parent)
        self._memory.register("", REGION, "object", 0, REGION_BYTES)
        self._predictor = Predictor(table, memory=self._memory)

    def refill(self) -> None:
        """Makes the region what it was at first."""
        contents = b"".join(good_request().raw_input_contents)
        self.object.write_bytes(contents.ljust(REGION_BYTES, b"\0"))

    def predict(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        """The answer; raises what the predictor raises, and TimeoutError if that takes half a minute."""
        return self._runner.run(asyncio.wait_for(self._predictor.predict(request, PredictionCall()), 30))

    def close(self) -> None:
        """Frees the version and the region."""
        self._memory.unregister("")
        self._runner.run(self.version.retire())

    def check(self, request: pb.ModelInferRequest) -> bool:
        """Predicts; an answer must be right, a refusal must say what is wrong. Answers whether there was an answer."""
        statistics = self.version.statistics
        before = statistics.success.count + statistics.fail.count
        memory = self.object.read_bytes()
        response: pb.ModelInferResponse | None = None
        try:
            response = self.predict(request)
        except InvalidFields as error:
            check_refusal(error)
        except NotFound:
            assert not _names_all(request)
        except DeadlineExceeded:
            assert "timeout" in request.parameters
        else:
            self._check_answer(request, response, memory)
        assert statistics.success.count + statistics.fail.count - before in (0, 1)
        assert self.version._users == 0
        return response is not None

    def _check_answer(self, request: pb.ModelInferRequest, response: pb.ModelInferResponse, memory: bytes) -> None:
        """Each output is the input of its name, byte for byte, wherever it was asked to be."""
        contents = _raw_contents(request, memory)
        asked = _asked(request)
        assert [output.name for output in response.outputs] == list(asked or OUTPUTS)
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
            name = output.name.removesuffix("_out")
            tensor = next(tensor for tensor in request.inputs if tensor.name == name)
            parameters = asked[output.name] if asked else {}
            if "shared_memory_region" in parameters:
                assert raw == b""
                # Outputs that overlap overwrite one another: then the last one is right.
                if sum("shared_memory_region" in other.parameters for other in request.outputs) == 1:
                    start = (
                        parameters["shared_memory_offset"].int64_param if "shared_memory_offset" in parameters else 0
                    )
                    assert self.object.read_bytes()[start : start + len(contents[name])] == contents[name]
            elif "classification" in parameters:
                assert (output.datatype, list(output.shape)[:1]) == ("BYTES", list(tensor.shape)[:1])
            else:
                assert raw == contents[name]
                assert (output.datatype, list(output.shape)) == (tensor.datatype, list(tensor.shape))


def check_refusal(error: InvalidFields) -> None:
    """Says which fields are wrong, at a length that fits into a trailer."""
    assert error.violations
    assert all(violation.field and violation.description for violation in error.violations)
    assert len(error.message) < 5_000


def _asked(request: pb.ModelInferRequest) -> dict[str, Mapping[str, pb.InferParameter]]:
    """The outputs asked for, each with the parameters that count: if asked for twice, the first that say anything."""
    asked: dict[str, Mapping[str, pb.InferParameter]] = {}
    for output in request.outputs:
        said = "shared_memory_region" in output.parameters or "classification" in output.parameters
        known = asked.setdefault(output.name, output.parameters if said else {})
        if said and not known:
            asked[output.name] = output.parameters
    return asked


def _names_all(request: pb.ModelInferRequest) -> bool:
    """Whether model, version and regions are what they should be."""
    tensors = (tensor for tensors in (request.inputs, request.outputs) for tensor in tensors)
    parameters = [tensor.parameters for tensor in tensors if "shared_memory_region" in tensor.parameters]
    regions = {given["shared_memory_region"].string_param for given in parameters}
    return request.model_name == "m" and request.model_version in ("", "1", "live") and regions <= {REGION}


def _raw_contents(request: pb.ModelInferRequest, memory: bytes) -> dict[str, bytes]:
    """The elements of each input, from wherever the request has them."""
    found: dict[str, bytes] = {}
    raws = iter(request.raw_input_contents)
    for tensor in request.inputs:
        datatype = DATATYPES[tensor.datatype]
        if "shared_memory_region" in tensor.parameters:
            given = tensor.parameters
            start = _offset(given)
            array = decode_raw(
                memory[start : start + given["shared_memory_byte_size"].int64_param], datatype, tensor.shape
            )
        elif request.raw_input_contents:
            array = decode_raw(next(raws), datatype, tensor.shape)
        else:
            array = decode_contents(tensor.contents, datatype, tensor.shape)
        found[tensor.name] = encode_raw(array, datatype)
    return found


def _offset(parameters: Mapping[str, pb.InferParameter]) -> int:
    return parameters["shared_memory_offset"].int64_param if "shared_memory_offset" in parameters else 0
