"""Whether a server's answers are right: neither load generator looks at them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks.models import sample_inputs
from benchmarks.signature import read
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.errors import TensorError
from modelyard.oip.tensors import add_input, output_arrays

from .target import Target

_TIMEOUT_S = 30.0
_RELATIVE, _ABSOLUTE = 1e-3, 1e-4
"""Servers may batch and thread differently, which changes the last bits."""


class WrongAnswer(Exception):
    """A server answered with an error, or with something else than ONNX Runtime computes here."""


@dataclass(frozen=True)
class Answer:
    """A right answer."""

    size_bytes: int
    """Of the response message, without gRPC's prefix: every answer to this request from this server has that."""


def sample_request(model: str, path: Path, rows: int = 1) -> bytes:
    """A serialized ModelInferRequest with the model's sample inputs in raw contents."""
    request = pb.ModelInferRequest(model_name=model)
    for name, array in sample_inputs(read(path), rows).items():
        add_input(request, name, array)
    return request.SerializeToString()


def verify(target: Target, path: Path | None) -> Answer:
    """Asks once. `path`: the ONNX file whose outputs for its sample inputs are expected; None: an echo is.

    Raises WrongAnswer.
    """
    with grpc.insecure_channel(target.address, options=[("grpc.max_receive_message_length", -1)]) as channel:
        try:
            call: Any = channel.unary_unary(target.path)
            response: bytes = call(target.message, timeout=_TIMEOUT_S, metadata=target.metadata)
        except grpc.RpcError as error:
            raise WrongAnswer(f"{target.address} answered {error}") from error
    if path is None:
        if response != target.message:
            raise WrongAnswer(f"{target.address} does not echo")
    else:
        _compare(target.address, response, expected(path))
    return Answer(len(response))


@cache
def expected(path: Path) -> dict[str, NDArray[Any]]:
    """What ONNX Runtime answers to the sample inputs, by output name."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, sample_inputs(read(path))), strict=True))


def _compare(address: str, response: bytes, right: dict[str, NDArray[Any]]) -> None:
    try:
        outputs = output_arrays(pb.ModelInferResponse.FromString(response))
    except TensorError as error:
        raise WrongAnswer(f"{address} answered unreadable tensors: {error}") from error
    for name, array in right.items():
        given = outputs.get(name)
        if given is None or given.shape != array.shape:
            raise WrongAnswer(f"{address}: {name} is {None if given is None else given.shape}, not {array.shape}")
        if not np.allclose(given, array, rtol=_RELATIVE, atol=_ABSOLUTE):
            raise WrongAnswer(f"{address}: {name} differs by up to {np.abs(given - array).max():g}")
