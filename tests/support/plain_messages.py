"""Serialized requests, taken apart as the native libraries take them apart."""

from __future__ import annotations

from modelyard.inference.protocol.plain import PlainMessage
from modelyard.oip import open_inference_pb2 as pb


def plain_message(request: pb.ModelInferRequest, *, id_field: bytes | None = None, more: bytes = b"") -> PlainMessage:
    """A request's message. `id_field`: instead of the request's own, serialized. `more`: behind the message's end."""
    named = pb.ModelInferRequest(model_name=request.model_name, model_version=request.model_version)
    inputs = pb.ModelInferRequest(inputs=request.inputs, outputs=request.outputs)
    raws = pb.ModelInferRequest(raw_input_contents=request.raw_input_contents)
    field = pb.ModelInferRequest(id=request.id).SerializeToString() if id_field is None else id_field
    before, between, behind = (part.SerializeToString() for part in (named, inputs, raws))
    message = before + field + between + behind
    assert id_field is not None or message == request.SerializeToString()
    return PlainMessage(message + more, len(before) if field else 0, len(field), len(before + field + between))
