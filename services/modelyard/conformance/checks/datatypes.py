"""Every datatype through its identity model: raw and typed, with the values at its ends."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import numpy as np

from modelyard.conformance.answers import INVALID_ARGUMENT, OK
from modelyard.conformance.probe import Probe
from modelyard.conformance.reference import identity_name
from modelyard.conformance.registry import Check, Level, check, register
from modelyard.conformance.subject import arrays_of
from modelyard.conformance.synthesis import Tensor
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.datatypes import DATATYPES, Datatype
from modelyard.oip.tensors import Array

_TRITON_ONLY: Final = frozenset({"BF16"})
"""Datatypes that Triton added to the protocol's."""
_BITS: Final = {"FP16": "<u2", "FP32": "<u4", "FP64": "<u8", "BF16": "<u2"}


def extremes(datatype: Datatype) -> Array:
    """One row with the values at the type's ends, -0.0 and infinities included."""
    if datatype.name == "BYTES":
        row: Any = np.empty((1, 4), dtype=object)
        row[0] = [b"", b"\0", "größer".encode(), b"x" * 300]
        return row  # type: ignore[no-any-return]
    if datatype.name == "BOOL":
        return np.array([[True, False, False, True]])
    if datatype.name == "BF16":  # 1, -0, the largest number, infinity
        return np.array([[0x3F80, 0x8000, 0x7F7F, 0x7F80]], dtype="<u2")
    if datatype.dtype.kind == "f":
        info = np.finfo(datatype.dtype)
        return np.array([[info.max, -0.0, info.smallest_normal, -np.inf]], dtype=datatype.dtype)
    limits = np.iinfo(datatype.dtype)
    return np.array([[limits.min, limits.max, 0, 1]], dtype=datatype.dtype)


def _identity(probe: Probe, datatype: Datatype, *, typed: bool) -> None:
    """Sends the extremes and expects them back, bit for bit."""
    model = probe.reference(identity_name(datatype.name))
    tensor = Tensor("x", datatype, extremes(datatype))
    request = model.request_of([tensor])
    if typed:
        del request.raw_input_contents[:]
        request.inputs[0].contents.CopyFrom(tensor.typed())
    answer = arrays_of(probe.infer(request).ok(pb.ModelInferResponse), probe.notes)["y"]
    bits = _BITS.get(datatype.name, "")
    sent, got = (
        array.view(bits) if bits and array.dtype == datatype.dtype else array for array in (tensor.array, answer)
    )
    equal = sent.shape == got.shape and bool(np.array_equal(sent, got))
    probe.notes.expect(equal, f"{tensor.array.tolist()} back", answer.tolist())


def _register_identities() -> None:
    """One check for each datatype and form."""
    for datatype in DATATYPES.values():
        _register_identity(datatype, "raw", "raw contents, to the ends of its range")
        if datatype.contents is not None:
            _register_identity(datatype, "typed", f"`{datatype.contents}`")


def _register_identity(datatype: Datatype, form: str, where: str) -> None:
    name = datatype.name
    owner = "Triton" if name in _TRITON_ONLY else "Protocol"
    register(
        Check(
            f"datatypes.{name.lower()}_{form}",
            Level.TRITON if name in _TRITON_ONLY else Level.REQUIRED,
            f"{name} goes through an identity in {where}. ({owner}: tensor data; model `{identity_name(name)}`.)",
            partial(_identity, datatype=datatype, typed=form == "typed"),
        )
    )


_register_identities()


def _narrow(probe: Probe, name: str, field: str, wrong: int) -> None:
    request = probe.reference(identity_name(name)).with_arrays(x=np.array([[1, 2]]))
    del request.raw_input_contents[:]
    getattr(request.inputs[0].contents, field).extend([1, wrong])
    probe.infer(request).refused()


@check("datatypes.int8_range", Level.RECOMMENDED)
def int8_range(probe: Probe) -> None:
    """300 in the `int_contents` of an INT8 is refused, not wrapped. (Triton wraps it to 44.)"""
    _narrow(probe, "INT8", "int_contents", 300)


@check("datatypes.uint16_range", Level.RECOMMENDED)
def uint16_range(probe: Probe) -> None:
    """70000 in the `uint_contents` of a UINT16 is refused, not wrapped. (Triton wraps it to 4464.)"""
    _narrow(probe, "UINT16", "uint_contents", 70_000)


@check("datatypes.fp16_is_raw_only", Level.REQUIRED)
def fp16_is_raw_only(probe: Probe) -> None:
    """FP16 in `fp32_contents` is refused. (Protocol: there are no typed contents for FP16.)"""
    request = probe.reference("identity_fp16").with_arrays(x=np.zeros((1, 2), "f2"))
    del request.raw_input_contents[:]
    request.inputs[0].contents.fp32_contents.extend([1, 2])
    probe.infer(request).refused()


@check("datatypes.bytes_are_bytes", Level.TRITON)
def bytes_are_bytes(probe: Probe) -> None:
    """BYTES that are no UTF-8 come back unchanged, or are INVALID_ARGUMENT for a model of text; never altered.

    (Triton passes them on; the strings of ONNX are UTF-8.)
    """
    elements: Any = np.empty((1, 2), dtype=object)
    elements[0] = [b"\xff\xfe", b"\x80"]
    answer = probe.infer(probe.reference("identity_bytes").with_arrays(x=elements))
    answer.has_code(OK, INVALID_ARGUMENT)
    if answer.code is OK:
        got = arrays_of(answer.ok(pb.ModelInferResponse), probe.notes)["y"]
        probe.notes.expect(got.tolist() == elements.tolist(), str(elements.tolist()), got.tolist())
