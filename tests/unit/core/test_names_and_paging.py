"""Ids, resource names, page tokens: what passes and what is refused, never a path."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core import names, paging
from modelyard.core.errors import InvalidFields


def test_a_version_is_named_by_number_or_alias() -> None:
    assert names.MODEL_VERSION.parse("models/a-b/versions/12", "name") == {"model": "a-b", "version": "12"}
    assert names.MODEL_VERSION.parse("models/a/versions/live", "name")["version"] == "live"


@pytest.mark.parametrize(
    "name",
    [
        "models/../versions/1",
        "models/a/versions/0",
        "models/a/b/versions/1",
        "/models/a/versions/1",
        "models/a/versions/1\n",
        "models/A/versions/1",
    ],
)
def test_a_path_is_no_name(name: str) -> None:
    with pytest.raises(InvalidFields) as raised:
        names.MODEL_VERSION.parse(name, "name")
    assert raised.value.violations[0].field == "name"


@given(st.text(max_size=80))
def test_an_accepted_id_is_harmless_in_a_path_or_a_url(text: str) -> None:
    try:
        names.check_id(text, "id")
    except InvalidFields:
        return
    assert all(character.isascii() and (character.isalnum() or character in "-_") for character in text)
    assert 1 <= len(text) <= 63


@given(st.integers(), st.text(max_size=20))
def test_page_tokens_come_back_as_they_were(number: int, text: str) -> None:
    token = paging.encode_token(number, text)
    assert paging.decode_token(token, int, str) == [number, text]


@given(st.text(min_size=1, max_size=40))
def test_no_other_text_is_a_page_token(text: str) -> None:
    with pytest.raises(InvalidFields):
        paging.decode_token(text, int, str, int)


def test_page_sizes_have_a_default_and_a_maximum() -> None:
    assert (paging.page_size(0), paging.page_size(7), paging.page_size(10**9)) == (50, 7, 1000)
    with pytest.raises(InvalidFields):
        paging.page_size(-1)
