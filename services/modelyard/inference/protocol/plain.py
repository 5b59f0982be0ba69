"""The short way for plain requests, which are nearly all: a batch of raw contents, no parameters, every output.

It takes a request only if everything about it is right and ordinary. Whatever else comes, wrong or merely unusual, is
left to `requests` and `responses`, which know all of the protocol and name every mistake. A test holds the two ways'
answers equal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from modelyard.inference.execution.batches import Computed
from modelyard.inference.execution.feeds import Feeds
from modelyard.inference.execution.signature import Signature, TensorInfo
from modelyard.oip import open_inference_pb2 as pb

_RAW_CONTENTS = b"\x3a"
"""The tag of `raw_input_contents` (field 7) in front of a length."""
_RAW_OUTPUT_CONTENTS = b"\x32"
"""The tag of `raw_output_contents` (field 6)."""

FORMS_KEPT = 256
"""So many different forms of an input, and of answers, are remembered."""


class PlainMessage:
    """A serialized ModelInferRequest whose fields are in the order of their numbers, with raw contents last."""

    __slots__ = ("form", "id", "message", "raw_at")

    def __init__(self, message: bytes, id_at: int, id_size: int, raw_at: int) -> None:
        """Where the field `id` is, 0 bytes long if it is not there, and where the first raw contents begin."""
        self.message = message
        self.raw_at = raw_at
        self.id = message[id_at : id_at + id_size]
        """The field with its tag, which is the same in the answer."""
        self.form = message[:raw_at] if not id_size else message[:id_at] + message[id_at + id_size : raw_at]
        """All but the id and the raw contents: two messages with the same form ask for the same, of other numbers."""


class _MessageForm(NamedTuple):
    """What the messages of one form have in common."""

    rows: int
    raws: Sequence[tuple[bytes, int]]
    """What precedes each of the raw contents, and how many bytes they have."""


class _AnswerForm(NamedTuple):
    """Everything of answers with the same shapes that does not change from one to the next, serialized."""

    before_id: bytes
    behind_id: bytes


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
        self._messages: dict[bytes, _MessageForm] = {}
        self._answers: dict[tuple[tuple[int, ...], ...], _AnswerForm] = {}

    def read_message(self, plain: PlainMessage) -> Feeds | None:
        """The inputs of a message whose form is known; None for any other, and if something about it is not right."""
        form = self._messages.get(plain.form)
        if form is None or not plain.id.isascii():
            return None
        message, at = plain.message, plain.raw_at
        raws = []
        for prefix, size in form.raws:
            begin = at + len(prefix)
            at = begin + size
            if not message.startswith(prefix, begin - len(prefix)):
                return None
            raws.append(message[begin:at])
        if at != len(message):
            return None
        return Feeds(self._outputs, form.rows, self._key, (), raws, self._tails)

    def learn(self, plain: PlainMessage, feeds: Feeds) -> None:
        """Keeps the form of a message that was read as `feeds`."""
        if len(self._messages) >= FORMS_KEPT:
            self._messages.clear()
        raws = [(_RAW_CONTENTS + _varint(len(raw)), len(raw)) for raw in feeds.raws]
        self._messages[plain.form] = _MessageForm(feeds.rows, raws)

    def answer_head(self, computed: Computed, calls: int) -> bytes:
        """What is the same in all answers to messages without an id that were computed as one: all but the raw contents
        of the outputs, which go behind it."""
        shapes = tuple([(contents.shape[0] // calls, *contents.shape[1:]) for contents in computed.outputs])
        return b"".join(self._answer_form(shapes))

    def answer_message(self, plain: PlainMessage, computed: Computed) -> bytes:
        """The serialized answer to a message."""
        form = self._answer_form(_shapes(computed))
        parts = [form.before_id, plain.id, form.behind_id]
        for contents in computed.outputs:
            parts += _RAW_OUTPUT_CONTENTS, _varint(len(contents.raw)), contents.raw
        return b"".join(parts)

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
        form = self._answer_form(_shapes(computed))
        response = pb.ModelInferResponse.FromString(form.before_id + form.behind_id)
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

    def _answer_form(self, shapes: tuple[tuple[int, ...], ...]) -> _AnswerForm:
        form = self._answers.get(shapes)
        if form is None:
            if len(self._answers) >= FORMS_KEPT:
                self._answers.clear()
            outputs = pb.ModelInferResponse()
            for tensor, shape in zip(self._signature.outputs, shapes, strict=True):
                outputs.outputs.add(name=tensor.name, datatype=tensor.datatype.name, shape=shape)
            named = pb.ModelInferResponse(model_name=self._model, model_version=self._number_text)
            form = self._answers[shapes] = _AnswerForm(named.SerializeToString(), outputs.SerializeToString())
        return form


def _shapes(computed: Computed) -> tuple[tuple[int, ...], ...]:
    return tuple([contents.shape for contents in computed.outputs])


@lru_cache
def _varint(value: int) -> bytes:
    """A number as Protocol Buffers write it: seven bits in a byte, the lowest first."""
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def _is_plain(tensor: TensorInfo) -> bool:
    """Whether the raw contents of an input need no look at their elements, and say how many rows they are."""
    fixed = tensor.shape[1:]
    return bool(tensor.datatype.itemsize) and tensor.datatype.name != "BOOL" and min(fixed, default=1) > 0
