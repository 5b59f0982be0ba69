"""Wrong requests: each is refused (the protocol), with the right code (Triton).

Both sections come from one table: what is wrong, how to make it wrong, the code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import grpc

from modelyard.conformance.answers import INVALID_ARGUMENT, NOT_FOUND
from modelyard.conformance.probe import Probe
from modelyard.conformance.registry import Check, Level, register
from modelyard.conformance.subject import Subject
from modelyard.conformance.verdicts import NotApplicable
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.datatypes import DATATYPES

from .model import NO_VERSION, UNKNOWN, UNKNOWN_VERSION

Request = pb.ModelInferRequest
Spoil = Callable[[Request, Subject], None]


@dataclass(frozen=True, slots=True)
class Refusal:
    """One way to be wrong."""

    name: str
    what: str
    """What is wrong, for people: `… is refused`."""
    spoil: Spoil
    """Makes a valid request wrong in place; NotApplicable if this model cannot show it."""
    code: grpc.StatusCode = INVALID_ARGUMENT
    typed: bool = False
    """Whether the request has typed contents to begin with."""


def _other_datatype(name: str) -> str:
    """A datatype of the same element size, so that nothing but the name is wrong."""
    size = DATATYPES[name].itemsize
    return next(other.name for other in DATATYPES.values() if other.name != name and other.itemsize in (size, 4))


def _wrong_datatype(request: Request, _: Subject) -> None:
    request.inputs[0].datatype = _other_datatype(request.inputs[0].datatype)


def _unknown_datatype(request: Request, _: Subject) -> None:
    request.inputs[0].datatype = "FP99"


def _no_datatype(request: Request, _: Subject) -> None:
    request.inputs[0].datatype = ""


def _wrong_rank(request: Request, _: Subject) -> None:
    request.inputs[0].shape.append(1)


def _no_shape(request: Request, subject: Subject) -> None:
    if not subject.metadata.inputs[0].shape:
        raise NotApplicable("the first input is a scalar")
    del request.inputs[0].shape[:]


def _wrong_size(request: Request, subject: Subject) -> None:
    """One more in a fixed dimension, contents to match, everything else right."""
    for index, tensor in enumerate(subject.metadata.inputs):
        for axis, size in enumerate(tensor.shape):
            if size > 0:
                sent = request.inputs[index]
                raw = request.raw_input_contents[index]
                request.raw_input_contents[index] = raw + raw[: len(raw) // size]
                sent.shape[axis] = size + 1
                return
    raise NotApplicable("the model has no fixed dimension")


def _negative_size(request: Request, _: Subject) -> None:
    shape = request.inputs[0].shape
    shape[:] = [-size for size in shape] or [-1]


def _huge_size(request: Request, _: Subject) -> None:
    shape = request.inputs[0].shape
    shape[:] = [2**40] * max(1, len(shape))


def _raw_long(request: Request, _: Subject) -> None:
    request.raw_input_contents[0] += b"\0\0\0\0"


def _raw_short(request: Request, _: Subject) -> None:
    request.raw_input_contents[0] = request.raw_input_contents[0][:-1]


def _raw_empty(request: Request, _: Subject) -> None:
    request.raw_input_contents[0] = b""


def _raw_missing(request: Request, _: Subject) -> None:
    if len(request.inputs) < 2:
        raise NotApplicable("the model has one input")
    del request.raw_input_contents[-1]


def _no_contents(request: Request, _: Subject) -> None:
    del request.raw_input_contents[:]


def _both_forms(request: Request, subject: Subject) -> None:
    request.inputs[0].contents.CopyFrom(subject.typed_request().inputs[0].contents)


def _mixed_forms(request: Request, subject: Subject) -> None:
    if len(request.inputs) < 2:
        raise NotApplicable("the model has one input")
    request.inputs[-1].contents.CopyFrom(subject.typed_request().inputs[-1].contents)
    del request.raw_input_contents[-1]


def _typed_long(request: Request, _: Subject) -> None:
    field = _typed_field(request)
    field.append(field[0])


def _typed_short(request: Request, _: Subject) -> None:
    _typed_field(request).pop()


def _typed_wrong_field(request: Request, _: Subject) -> None:
    name = "fp64_contents" if request.inputs[0].datatype != "FP64" else "fp32_contents"
    count = len(_typed_field(request))
    request.inputs[0].contents.Clear()
    getattr(request.inputs[0].contents, name).extend([1.0] * count)


def _typed_field(request: Request) -> list[object]:
    name = DATATYPES[request.inputs[0].datatype].contents
    return getattr(request.inputs[0].contents, str(name))  # type: ignore[no-any-return]


def _input_missing(request: Request, _: Subject) -> None:
    del request.inputs[-1], request.raw_input_contents[-1]


def _input_unknown(request: Request, _: Subject) -> None:
    request.inputs.add(name="conformance_no_such_input", datatype="FP32", shape=[1, 1])
    request.raw_input_contents.append(b"\0\0\0\0")


def _input_twice(request: Request, _: Subject) -> None:
    request.inputs.add().CopyFrom(request.inputs[0])
    request.raw_input_contents.append(request.raw_input_contents[0])


def _input_renamed(request: Request, _: Subject) -> None:
    request.inputs[0].name = "conformance_no_such_input"


def _output_unknown(request: Request, _: Subject) -> None:
    request.outputs.add(name="conformance_no_such_output")


def _rows_disagree(request: Request, subject: Subject) -> None:
    if not subject.batched or len(request.inputs) < 2:
        raise NotApplicable("the model has no two inputs with a free batch dimension")
    request.inputs[-1].CopyFrom(subject.request(rows=2).inputs[-1])
    request.raw_input_contents[-1] = subject.request(rows=2).raw_input_contents[-1]


def _model_unknown(request: Request, _: Subject) -> None:
    request.model_name = UNKNOWN


def _model_unnamed(request: Request, _: Subject) -> None:
    request.model_name = ""


def _version_unknown(request: Request, _: Subject) -> None:
    request.model_version = UNKNOWN_VERSION


def _version_impossible(request: Request, _: Subject) -> None:
    request.model_version = NO_VERSION


REFUSALS: Final = (
    Refusal("unknown_model", "a model that the server does not have", _model_unknown, NOT_FOUND),
    Refusal("no_model", "a request without a model's name", _model_unnamed, NOT_FOUND),
    Refusal("unknown_version", "a version that the model does not have", _version_unknown, NOT_FOUND),
    Refusal("impossible_version", "a version that can be none", _version_impossible),
    Refusal("missing_input", "a request without one of the inputs", _input_missing),
    Refusal("unknown_input", "an input that the model does not have", _input_unknown),
    Refusal("renamed_input", "an unknown input in the place of a known one", _input_renamed),
    Refusal("input_twice", "an input given twice", _input_twice),
    Refusal("wrong_datatype", "another datatype than the model's", _wrong_datatype),
    Refusal("unknown_datatype", "a datatype that there is not", _unknown_datatype),
    Refusal("no_datatype", "an input without a datatype", _no_datatype),
    Refusal("wrong_rank", "a shape with a dimension too many", _wrong_rank),
    Refusal("no_shape", "an input without a shape", _no_shape),
    Refusal("wrong_dimension", "another size than that of a fixed dimension", _wrong_size),
    Refusal("negative_size", "a shape with negative sizes", _negative_size),
    Refusal("huge_shape", "a shape of more elements than any machine holds", _huge_size),
    Refusal("rows_disagree", "inputs with different numbers of rows", _rows_disagree),
    Refusal("raw_too_long", "raw contents longer than the shape says", _raw_long),
    Refusal("raw_too_short", "raw contents shorter than the shape says", _raw_short),
    Refusal("raw_empty", "an empty raw entry for a tensor with elements", _raw_empty),
    Refusal("raw_missing", "fewer raw entries than inputs", _raw_missing),
    Refusal("no_contents", "a tensor without contents of either form", _no_contents),
    Refusal("both_forms", "a tensor with raw and typed contents", _both_forms),
    Refusal("mixed_forms", "one tensor in raw and one in typed contents", _mixed_forms),
    Refusal("typed_too_long", "more typed elements than the shape says", _typed_long, typed=True),
    Refusal("typed_too_short", "fewer typed elements than the shape says", _typed_short, typed=True),
    Refusal("typed_wrong_field", "typed contents in another datatype's field", _typed_wrong_field, typed=True),
    Refusal("unknown_output", "a requested output that the model does not have", _output_unknown),
)
"""Every way to be wrong that any model can show."""


def _send(probe: Probe, refusal: Refusal) -> None:
    subject = probe.subject
    request = subject.typed_request() if refusal.typed else subject.request()
    refusal.spoil(request, subject)
    answer = probe.infer(request)
    answer.refused()


def _send_and_ask_again(probe: Probe, refusal: Refusal) -> None:
    """Refused, and the next good request is answered as if nothing had happened."""
    _send(probe, refusal)
    with probe.notes.aside():
        probe.infer(probe.subject.request()).ok(pb.ModelInferResponse)


def _code(probe: Probe, refusal: Refusal) -> None:
    subject = probe.subject
    request = subject.typed_request() if refusal.typed else subject.request()
    refusal.spoil(request, subject)
    answer = probe.infer(request)
    answer.has_code(refusal.code)
    probe.notes.expect(bool(answer.text), f"{refusal.code.name} with a text that says why", answer)


def _register_refusals() -> None:
    for refusal in REFUSALS:
        what = refusal.what[0].upper() + refusal.what[1:]
        register(
            Check(
                f"refused.{refusal.name}",
                Level.REQUIRED,
                f"{what} is refused, and the next good request is answered. "
                "(Protocol: OK means success, other codes failure.)",
                partial(_send_and_ask_again, refusal=refusal),
            )
        )
        register(
            Check(
                f"code.{refusal.name}",
                Level.TRITON,
                f"{what} is {refusal.code.name}, with a text. (Triton.)",
                partial(_code, refusal=refusal),
            )
        )


_register_refusals()
