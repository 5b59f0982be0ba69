"""The short way for plain requests, which are nearly all: a batch of raw contents, no parameters, every output.

It takes a request only if everything about it is right and ordinary. Whatever else comes, wrong or merely unusual, is
left to `requests` and `responses`, which know all of the protocol and name every mistake. A test holds the two ways'
answers equal.
"""

from __future__ import annotations

import math

from modelyard.inference.execution.batches import Computed
from modelyard.inference.execution.feeds import Feeds
from modelyard.inference.execution.signature import Signature, TensorInfo
from modelyard.oip import open_inference_pb2 as pb

FORMS_KEPT = 256
"""So many different forms of an input, and of answers, are remembered."""


class PlainRequests:
    """Reads and answers the plain requests of one version, whose model and number go by these names.

    Requests come in few forms: the same name, datatype and shape again and again. Each form is looked at once.
    """

    def __init__(self, model: str, number_text: str, signature: Signature, max_batch_size: int) -> None:
        self._model = model
        self._number_text = number_text
        self._signature = signature
        self._max_rows = max_batch_size
        self._outputs = [tensor.name for tensor in signature.outputs]
        self._plain = signature.batched and all(map(_is_plain, signature.inputs))
        self._count = len(signature.inputs)
        self._tails = [tensor.shape[1:] for tensor in signature.inputs]
        self._key = (tuple(self._outputs), *self._tails)
        self._input_forms: list[dict[bytes, tuple[int, int]]] = [{} for _ in signature.inputs]
        """By input: what precedes its raw contents, serialized, with the rows and the bytes that it announces."""
        self._forms: dict[tuple[tuple[int, ...], ...], bytes] = {}

    def read(self, request: pb.ModelInferRequest) -> Feeds | None:
        """The inputs of a plain request; None for any other."""
        inputs, raw_contents = request.inputs, request.raw_input_contents
        if not self._plain or len(raw_contents) != self._count or len(inputs) != self._count:
            return None
        if len(request.parameters) or (len(request.outputs) and not self._asks_for_all(request)):
            return None
        rows = 0
        raws = []
        for index, forms in enumerate(self._input_forms):
            header = inputs[index].SerializeToString()
            form = forms.get(header) or self._form_of_input(index, inputs[index], header)
            raw = raw_contents[index]
            if form is None or len(raw) != form[1] or (rows and form[0] != rows):
                return None
            rows = form[0]
            raws.append(raw)
        return Feeds(self._outputs, rows, self._key, (), raws, self._tails)

    def answer(self, request: pb.ModelInferRequest, computed: Computed) -> pb.ModelInferResponse:
        """The answer to a plain request."""
        key = tuple([contents.shape for contents in computed.outputs])
        form = self._forms.get(key)
        if form is None:
            form = self._form(key)
        response = pb.ModelInferResponse.FromString(form)
        response.id = request.id
        response.raw_output_contents.extend([contents.raw for contents in computed.outputs])
        return response

    def _asks_for_all(self, request: pb.ModelInferRequest) -> bool:
        """Whether it names every output, in order, and nothing else about them."""
        asked = request.outputs
        return [output.name for output in asked] == self._outputs and not any(
            len(output.parameters) for output in asked
        )

    def _form_of_input(
        self, index: int, tensor: pb.ModelInferRequest.InferInputTensor, header: bytes
    ) -> tuple[int, int] | None:
        """How many rows and bytes an input announces; None if it is not plain, or wrong."""
        expected = self._signature.inputs[index]
        shape = tensor.shape
        rows = shape[0] if len(shape) else 0
        is_expected = tensor.name == expected.name and tensor.datatype == expected.datatype.name
        if (
            not is_expected
            or shape != [rows, *expected.shape[1:]]
            or len(tensor.parameters)
            or tensor.HasField("contents")
            or not 1 <= rows <= self._max_rows
        ):
            return None
        forms = self._input_forms[index]
        if len(forms) >= FORMS_KEPT:
            forms.clear()
        form = forms[header] = rows, rows * math.prod(expected.shape[1:]) * expected.datatype.itemsize
        return form

    def _form(self, shapes: tuple[tuple[int, ...], ...]) -> bytes:
        """Everything of an answer with these shapes that does not change from one to the next."""
        response = pb.ModelInferResponse(model_name=self._model, model_version=self._number_text)
        for tensor, shape in zip(self._signature.outputs, shapes, strict=True):
            response.outputs.add(name=tensor.name, datatype=tensor.datatype.name, shape=shape)
        if len(self._forms) >= FORMS_KEPT:
            self._forms.clear()
        form = self._forms[shapes] = response.SerializeToString()
        return form


def _is_plain(tensor: TensorInfo) -> bool:
    """Whether the raw contents of an input need no look at their elements, and say how many rows they are."""
    fixed = tensor.shape[1:]
    return bool(tensor.datatype.itemsize) and tensor.datatype.name != "BOOL" and min(fixed, default=1) > 0
