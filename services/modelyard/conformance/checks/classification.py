"""The classification extension: the best classes instead of the scores."""

from __future__ import annotations

import re
from typing import Final

from modelyard.conformance.answers import INVALID_ARGUMENT
from modelyard.conformance.probe import Probe
from modelyard.conformance.registry import Level, check
from modelyard.conformance.subject import arrays_of
from modelyard.conformance.synthesis import floats
from modelyard.oip import open_inference_pb2 as pb

EXTENSION: Final = "classification"


def _classify(probe: Probe, count: int) -> list[list[bytes]]:
    """The best `count` classes of 2 × [1, 3] and [9, 4] as `sum` of the reference model `add`."""
    request = probe.reference("add").with_arrays(a=floats([[1, 3], [9, 4]]), b=floats([[1, 3], [9, 4]]))
    request.outputs.add(name="sum").parameters["classification"].int64_param = count
    answer = probe.infer(request).ok(pb.ModelInferResponse)
    probe.notes.expect(answer.outputs[0].datatype == "BYTES", "BYTES", answer.outputs[0].datatype)
    return arrays_of(answer, probe.notes)["sum"].tolist()  # type: ignore[no-any-return]


@check("classification.best", Level.TRITON, extension=EXTENSION, only_declared=True)
def best(probe: Probe) -> None:
    """With `classification` an output is, for each row, the best class as `score:index`. (Triton; model `add`.)"""
    classes = _classify(probe, 1)
    seen = [[_parts(text) for text in row] for row in classes]
    probe.notes.expect(seen == [[(6.0, 1)], [(18.0, 0)]], "6.000000:1 and 18.000000:0", classes)


@check("classification.all", Level.TRITON, extension=EXTENSION, only_declared=True)
def all_classes(probe: Probe) -> None:
    """More classes than there are: all of them, best first. (Triton; reference model `add`.)"""
    classes = _classify(probe, 5)
    seen = [[_parts(text) for text in row] for row in classes]
    probe.notes.expect(seen == [[(6.0, 1), (2.0, 0)], [(18.0, 0), (8.0, 1)]], "both classes, best first", classes)


def _parts(text: bytes) -> tuple[float, int] | None:
    match = re.fullmatch(rb"(-?[0-9.]+(?:e[+-]?\d+)?):(\d+)(?::.*)?", text)
    return (float(match[1]), int(match[2])) if match else None


@check("classification.zero", Level.TRITON, extension=EXTENSION, only_declared=True)
def zero(probe: Probe) -> None:
    """No classes at all are INVALID_ARGUMENT. (Triton.)"""
    request = probe.subject.request()
    request.outputs.add(name=probe.subject.metadata.outputs[0].name).parameters["classification"].int64_param = 0
    probe.infer(request).has_code(INVALID_ARGUMENT)


@check("classification.as_text", Level.TRITON, extension=EXTENSION, only_declared=True)
def as_text(probe: Probe) -> None:
    """A number of classes that is text is INVALID_ARGUMENT. (Triton.)"""
    request = probe.subject.request()
    request.outputs.add(name=probe.subject.metadata.outputs[0].name).parameters["classification"].string_param = "x"
    probe.infer(request).has_code(INVALID_ARGUMENT)
