"""ModelInfer: good requests and what every answer has."""

from __future__ import annotations

import numpy as np

from modelyard.conformance.probe import Probe
from modelyard.conformance.registry import Level, check
from modelyard.conformance.subject import arrays_of, same
from modelyard.conformance.synthesis import floats
from modelyard.conformance.verdicts import NotApplicable
from modelyard.oip import open_inference_pb2 as pb

from .model import served_version


@check("infer.answers", Level.REQUIRED)
def answers(probe: Probe) -> None:
    """A valid request is answered with every output that ModelMetadata lists, of its datatype and shape.

    (Protocol: inference.)
    """
    answer = probe.infer(probe.subject.request()).ok(pb.ModelInferResponse)
    outputs = {output.name: output for output in answer.outputs}
    expected = {tensor.name: tensor for tensor in probe.subject.metadata.outputs}
    probe.notes.expect(outputs.keys() == expected.keys(), f"outputs {sorted(expected)}", sorted(outputs))
    for name, tensor in expected.items():
        got = outputs[name]
        probe.notes.expect(got.datatype == tensor.datatype, f"{name} {tensor.datatype}", got.datatype)
        fits = len(got.shape) == len(tensor.shape) and all(
            wanted in (-1, size) for wanted, size in zip(tensor.shape, got.shape, strict=True)
        )
        probe.notes.expect(fits, f"{name} of shape {list(tensor.shape)}", list(got.shape))


@check("infer.contents_fit", Level.REQUIRED)
def contents_fit(probe: Probe) -> None:
    """The contents of every output have the size that its datatype and shape say. (Protocol: tensor data.)"""
    answer = probe.infer(probe.subject.request()).ok(pb.ModelInferResponse)
    arrays = arrays_of(answer, probe.notes)
    probe.notes.expect(bool(arrays), "outputs with contents", f"{len(arrays)} outputs")


@check("infer.values", Level.REQUIRED)
def values(probe: Probe) -> None:
    """Two tensors in, two out: each output is computed from the right inputs. (Reference model `add`.)"""
    add = probe.reference("add")
    a, b = floats([[1, 2], [3, 4]]), floats([[10, 20], [30, 40]])
    arrays = arrays_of(probe.infer(add.with_arrays(a=a, b=b)).ok(pb.ModelInferResponse), probe.notes)
    right = same(arrays, {"sum": a + b, "difference": a - b})
    probe.notes.expect(right, "a + b and a - b", arrays)


@check("infer.input_order", Level.REQUIRED)
def input_order(probe: Probe) -> None:
    """Inputs go by name: their order in the request does not matter. (Protocol; reference model `add`.)"""
    add = probe.reference("add")
    a, b = floats([[1, 2]]), floats([[10, 20]])
    arrays = arrays_of(probe.infer(add.with_arrays(b=b, a=a)).ok(pb.ModelInferResponse), probe.notes)
    probe.notes.expect(same(arrays, {"sum": a + b, "difference": a - b}), "a + b and a - b", arrays)


@check("infer.rows", Level.REQUIRED)
def rows(probe: Probe) -> None:
    """A batch of three rows has three rows of answers. (Protocol: shapes carry the batch.)"""
    if not probe.subject.batched:
        raise NotApplicable(f"{probe.subject.name} has no free batch dimension")
    answer = probe.infer(probe.subject.request(rows=3)).ok(pb.ModelInferResponse)
    sizes = [output.shape[0] if output.shape else 0 for output in answer.outputs]
    probe.notes.expect(set(sizes) == {3}, "3 rows in every output", sizes)


@check("infer.unbatched", Level.REQUIRED)
def unbatched(probe: Probe) -> None:
    """A model without a batch dimension takes and gives its exact shape. (Reference model `unbatched`.)"""
    model = probe.reference("unbatched")
    x = floats([1, 2, 3])
    arrays = arrays_of(probe.infer(model.with_arrays(x=x)).ok(pb.ModelInferResponse), probe.notes)
    probe.notes.expect(same(arrays, {"y": x + x}), "x + x of shape [3]", arrays)


@check("infer.model_name", Level.REQUIRED)
def model_name(probe: Probe) -> None:
    """The answer carries the model's name. (Protocol: ModelInferResponse.model_name.)"""
    answer = probe.infer(probe.subject.request()).ok(pb.ModelInferResponse)
    probe.notes.expect(answer.model_name == probe.subject.name, probe.subject.name, repr(answer.model_name))


@check("infer.id", Level.REQUIRED)
def request_id(probe: Probe) -> None:
    """The answer carries the request's id. (Protocol: ModelInferResponse.id.)"""
    request = probe.subject.request()
    request.id = "conformance-1"
    answer = probe.infer(request).ok(pb.ModelInferResponse)
    probe.notes.expect(answer.id == request.id, repr(request.id), repr(answer.id))


@check("infer.id_utf8", Level.REQUIRED)
def request_id_utf8(probe: Probe) -> None:
    """Any text may be an id, not only ASCII. (Protobuf: strings are UTF-8.)"""
    request = probe.subject.request()
    request.id = "größer – 大"
    answer = probe.infer(request).ok(pb.ModelInferResponse)
    probe.notes.expect(answer.id == request.id, repr(request.id), repr(answer.id))


@check("infer.no_id", Level.TRITON)
def no_id(probe: Probe) -> None:
    """Without an id in the request there is none in the answer. (Triton; protocol: the id, if one was given.)"""
    answer = probe.infer(probe.subject.request()).ok(pb.ModelInferResponse)
    probe.notes.expect(not answer.id, "no id", repr(answer.id))


@check("infer.model_version", Level.TRITON)
def model_version(probe: Probe) -> None:
    """The answer names the version that was used, one of ModelMetadata, also if none was asked for. (Triton.)"""
    versions = list(probe.subject.metadata.versions)
    answer = probe.infer(probe.subject.request()).ok(pb.ModelInferResponse)
    probe.notes.expect(
        answer.model_version in (versions or [answer.model_version]) and bool(answer.model_version),
        f"one of {versions}" if versions else "a version",
        repr(answer.model_version),
    )


@check("infer.explicit_version", Level.REQUIRED)
def explicit_version(probe: Probe) -> None:
    """A version that ModelMetadata lists may be asked for and is the one that answers. (Protocol: model_version.)"""
    request = probe.subject.request()
    request.model_version = served_version(probe)
    answer = probe.infer(request).ok(pb.ModelInferResponse)
    probe.notes.expect(answer.model_version == request.model_version, request.model_version, answer.model_version)


@check("infer.empty_tensor", Level.RECOMMENDED)
def empty_tensor(probe: Probe) -> None:
    """A tensor with a dimension of 0 goes through as such. (Triton does; reference model `identity_fp32`.)"""
    model = probe.reference("identity_fp32")
    arrays = arrays_of(probe.infer(model.with_arrays(x=np.zeros((1, 0), "f4"))).ok(pb.ModelInferResponse), probe.notes)
    probe.notes.expect(arrays["y"].shape == (1, 0), "shape (1, 0)", arrays["y"].shape)
