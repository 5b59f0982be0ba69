"""Different requests with their answers: with one and the same, an answer to somebody else's would go unnoticed."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime

from benchmarks.load import WrongAnswer
from benchmarks.models import sample_inputs
from benchmarks.signature import read
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.service import method_path
from modelyard.oip.tensors import add_input, output_arrays

_TIMEOUT_S = 30.0
_COUNT = 256


def write_samples(path: Path, address: str, metadata: tuple[tuple[str, str], ...], name: str, model: Path) -> int:
    """Asks the server once for each sample and writes the file that the soak program reads.

    Answers how many floats end each answer. Raises WrongAnswer if ONNX Runtime here computes something else.
    """
    signature = read(model)
    if len(signature.outputs) != 1 or signature.outputs[0].datatype != "FP32":
        raise ValueError(f"{name}: expected one output of FP32")
    rows = sample_inputs(signature, _COUNT)
    right = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"]).run(None, rows)[0]
    with grpc.insecure_channel(address) as channel, path.open("wb") as file:
        ask: Any = channel.unary_unary(method_path("ModelInfer"))
        for index in range(_COUNT):
            request = pb.ModelInferRequest(model_name=name)
            for tensor, array in rows.items():
                add_input(request, tensor, array[index : index + 1])
            message = request.SerializeToString()
            answer: bytes = ask(message, timeout=_TIMEOUT_S, metadata=metadata)
            (given,) = output_arrays(pb.ModelInferResponse.FromString(answer)).values()
            if not np.allclose(given, right[index : index + 1], rtol=1e-3, atol=1e-4):
                raise WrongAnswer(f"{name}: sample {index} is answered {given}, not {right[index]}")
            for part in (message, answer):
                file.write(struct.pack("<I", len(part)) + part)
    return int(right[0].size)
