"""A model under test: its signature, and requests that fit it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.datatypes import DATATYPES
from modelyard.oip.errors import TensorError
from modelyard.oip.tensors import Array, decode_contents, decode_raw

from .synthesis import Plan, Tensor
from .verdicts import NotApplicable, Notes


@dataclass(frozen=True)
class Subject:
    """A model by its metadata."""

    name: str
    version: str
    metadata: pb.ModelMetadataResponse
    plan: Plan

    @classmethod
    def read(cls, name: str, version: str, payload: bytes, plan: Plan) -> Subject | None:
        """From the bytes of a ModelMetadataResponse; None if no request could be made from it."""
        try:
            metadata = pb.ModelMetadataResponse.FromString(payload)
        except DecodeError:
            return None
        known = all(tensor.datatype in DATATYPES for tensor in metadata.inputs)
        return cls(name, version, metadata, plan) if metadata.inputs and known else None

    @property
    def batched(self) -> bool:
        """Whether every input and output has a free first dimension, so that requests may have any number of rows."""
        tensors = [*self.metadata.inputs, *self.metadata.outputs]
        return all(tensor.shape and tensor.shape[0] == -1 for tensor in tensors)

    def tensors(self, rows: int = 1, seed: int = 0) -> list[Tensor]:
        """One tensor for each input, no two with the same values: mixed-up inputs show."""
        return [self.plan.tensor(tensor, rows, seed + index) for index, tensor in enumerate(self.metadata.inputs)]

    def request(self, rows: int = 1, seed: int = 0) -> pb.ModelInferRequest:
        """A valid request with raw contents."""
        return self.request_of(self.tensors(rows, seed))

    def typed_request(self, rows: int = 1, seed: int = 0) -> pb.ModelInferRequest:
        """A valid request with typed contents; NotApplicable if an input's datatype has none."""
        tensors = self.tensors(rows, seed)
        raw_only = {tensor.datatype.name for tensor in tensors if tensor.datatype.contents is None}
        if raw_only:
            raise NotApplicable(f"{', '.join(sorted(raw_only))} travels raw only")
        request = self.request_of(tensors)
        del request.raw_input_contents[:]
        for sent, tensor in zip(request.inputs, tensors, strict=True):
            sent.contents.CopyFrom(tensor.typed())
        return request

    def request_of(self, tensors: Iterable[Tensor]) -> pb.ModelInferRequest:
        """A request with raw contents of these tensors."""
        request = pb.ModelInferRequest(model_name=self.name, model_version=self.version)
        for tensor in tensors:
            request.inputs.add(name=tensor.name, datatype=tensor.datatype.name, shape=tensor.array.shape)
            request.raw_input_contents.append(tensor.raw)
        return request

    def with_arrays(self, **arrays: Any) -> pb.ModelInferRequest:
        """A request with these arrays by input name."""
        kinds = {tensor.name: DATATYPES[tensor.datatype] for tensor in self.metadata.inputs}
        return self.request_of(Tensor(name, kinds[name], np.asarray(array)) for name, array in arrays.items())


def arrays_of(response: pb.ModelInferResponse, notes: Notes) -> dict[str, Array]:
    """The outputs by name, raw or typed, BF16 as its bits; the check fails if the contents do not fit the shapes."""
    arrays: dict[str, Array] = {}
    for index, output in enumerate(response.outputs):
        notes.expect(output.datatype in DATATYPES, "a datatype of the protocol", output.datatype)
        try:
            arrays[output.name] = _array(response, index)
        except (TensorError, IndexError) as error:
            notes.expect(False, f"contents of {output.name} that fit its datatype and shape", error)
    return arrays


def _array(response: pb.ModelInferResponse, index: int) -> Array:
    output = response.outputs[index]
    datatype = DATATYPES[output.datatype]
    if response.raw_output_contents:
        return decode_raw(response.raw_output_contents[index], datatype, output.shape)
    return decode_contents(output.contents, datatype, output.shape)


def same(first: Mapping[str, Array], second: Mapping[str, Array]) -> bool:
    """Whether two answers agree: floats within rounding, everything else exactly."""
    return first.keys() == second.keys() and all(_same(first[name], second[name]) for name in first)


def _same(first: Array, second: Array) -> bool:
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    if first.dtype.kind == "f":
        return bool(np.allclose(first, second, rtol=1e-3, atol=1e-5, equal_nan=True))
    return bool(np.array_equal(first, second))
