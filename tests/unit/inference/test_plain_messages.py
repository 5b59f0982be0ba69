"""Messages whose form is known are read and answered without being parsed, to the same effect."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.inference.execution.batches import Computed, OutputContents
from modelyard.inference.execution.signature import Signature, TensorInfo
from modelyard.inference.observation.statistics import Execution
from modelyard.inference.protocol.plain import FORMS_KEPT, PlainRequests
from modelyard.oip import open_inference_pb2 as pb
from modelyard.oip.datatypes import DATATYPES
from modelyard.oip.tensors import add_input
from support.plain_messages import plain_message

TENSORS = [TensorInfo("f", DATATYPES["FP32"], (-1, 2)), TensorInfo("n", DATATYPES["INT8"], (-1, 3, 1))]


def requests() -> PlainRequests:
    return PlainRequests("m", "1", Signature.of(TENSORS, TENSORS), 300)


def request(rows: int = 2, identifier: str = "", seed: int = 0) -> pb.ModelInferRequest:
    numbers = np.random.default_rng(seed)
    made = pb.ModelInferRequest(model_name="m", model_version="live", id=identifier)
    add_input(made, "f", numbers.random((rows, 2), np.float32))
    add_input(made, "n", numbers.integers(-128, 128, (rows, 3, 1), np.int8))
    return made


def learned(rows: int = 2) -> PlainRequests:
    """Knows the form of requests with so many rows."""
    known, first = requests(), request(rows)
    feeds = known.read(first)
    assert feeds is not None
    known.learn(plain_message(first), feeds)
    return known


@given(st.sampled_from([1, 2, 17, 300]), st.text(st.characters(max_codepoint=127), max_size=120), st.integers(0, 99))
def test_a_message_is_read_as_its_request_is(rows: int, identifier: str, seed: int) -> None:
    known, sent = learned(rows), request(rows, identifier, seed)
    assert known.read_message(plain_message(sent)) == known.read(sent)


@given(st.sampled_from([1, 300]), st.text(st.characters(max_codepoint=127), max_size=120))
def test_the_answer_is_that_of_its_request(rows: int, identifier: str) -> None:
    known, sent = learned(rows), request(rows, identifier)
    contents = [OutputContents((rows, 2), bytes(range(8)) * rows), OutputContents((rows, 3, 1), b"abc" * rows)]
    computed = Computed(contents, 0, Execution(1, rows, 0, 0, 0))
    answer = known.answer_message(plain_message(sent), computed)
    assert pb.ModelInferResponse.FromString(answer) == known.answer(sent, computed)
    assert answer == known.answer(sent, computed).SerializeToString(deterministic=True)


def test_another_form_is_not_known() -> None:
    known = learned()
    other_version = request()
    other_version.model_version = "2"
    for sent in (request(3), other_version):
        assert known.read_message(plain_message(sent)) is None


@pytest.mark.parametrize("size", [0, 15, 17, 1000])
def test_contents_of_another_size_are_not_plain(size: int) -> None:
    sent = request()
    sent.raw_input_contents[0] = bytes(size)
    assert learned().read_message(plain_message(sent)) is None


def test_contents_too_many_or_cut_are_not_plain() -> None:
    known, sent = learned(), request()
    assert known.read_message(plain_message(sent, more=b"\x3a\x00")) is None
    whole = plain_message(sent)
    whole.message = whole.message[:-1]
    assert known.read_message(whole) is None


def test_a_length_may_be_written_in_more_bytes_than_needed_but_is_not_plain() -> None:
    known, sent = learned(), request()
    plain = plain_message(sent)
    at = plain.raw_at
    assert plain.message[at : at + 2] == b"\x3a\x10"
    plain.message = plain.message[:at] + b"\x3a\x90\x00" + plain.message[at + 2 :]
    assert pb.ModelInferRequest.FromString(plain.message) == sent
    assert known.read_message(plain) is None


@pytest.mark.parametrize("field", [b"\x1a\x02\xff\xfe", "\x1a\x02ä".encode(), b"\x9a\x00\x01x"])
def test_an_id_that_protobuf_should_look_at_is_not_plain(field: bytes) -> None:
    assert learned().read_message(plain_message(request(), id_field=field)) is None


def test_memory_of_message_forms_is_bounded() -> None:
    known = requests()
    for number in range(3 * FORMS_KEPT):
        sent = request()
        sent.model_name = f"m{number}"
        feeds = known.read(sent)
        assert feeds is not None
        known.learn(plain_message(sent), feeds)
        assert known.read_message(plain_message(sent)) is not None
    assert len(known._messages) <= FORMS_KEPT


def test_what_answers_to_calls_together_begin_with_is_the_same_as_alone() -> None:
    known, sent = learned(), request()
    run = Execution(3, 6, 0, 0, 0)
    together = Computed([OutputContents((6, 2), bytes(48)), OutputContents((6, 3, 1), bytes(18))], 0, run)
    alone = Computed([OutputContents((2, 2), bytes(16)), OutputContents((2, 3, 1), bytes(6))], 0, run)
    assert known.answer_message(plain_message(sent), alone).startswith(known.answer_head(together, 3))
