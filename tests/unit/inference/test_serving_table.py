"""Which version answers for which name, before, during and after a swap."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import InvalidFields, NotFound, Unavailable
from modelyard.inference.serving.desired import ServingConfig, WantedModel, WantedVersion
from modelyard.inference.serving.table import Failure, ModelEntry, ServingTable
from modelyard.inference.serving.versions import LoadedVersion


@dataclass
class Loaded:
    """Stands for a loaded version: the table looks at what it is, never into it."""

    wanted: WantedVersion
    number: int = field(init=False)

    def __post_init__(self) -> None:
        self.number = self.wanted.number


def version(number: int, digest: str = "") -> WantedVersion:
    return WantedVersion("m", number, digest or str(number), 1, (), (), 20, 10, "", "", "", "")


def loaded(number: int, digest: str = "") -> LoadedVersion:
    return cast("LoadedVersion", Loaded(version(number, digest)))


def wanted(**aliases: int) -> WantedModel:
    return WantedModel("m", {number: version(number) for number in aliases.values()}, aliases)


def table_of(entry: ModelEntry) -> ServingTable:
    table = ServingTable()
    table.models[entry.name] = entry
    table.known = table.confirmed = True
    entry.switch()
    table.publish()
    return table


ALIASES = st.dictionaries(st.sampled_from(["live", "stable", "canary"]), st.integers(1, 4), max_size=3)


@given(st.lists(st.tuples(ALIASES, st.sets(st.integers(1, 4))), min_size=1, max_size=8))
def test_an_alias_that_was_answered_goes_on_being_answered(history: list[tuple[dict[str, int], set[int]]]) -> None:
    entry = ModelEntry("m")
    for aliases, arrivals in history:
        before = dict(entry.aliases)
        entry.wanted = wanted(**aliases)
        for number in arrivals & set(aliases.values()):
            entry.loaded.setdefault(number, loaded(number))
        leaving = entry.switch()
        assert set(entry.aliases) == {alias for alias in aliases if aliases[alias] in entry.loaded or alias in before}
        assert all(entry.aliases[alias] == number for alias, number in aliases.items() if number in entry.loaded)
        assert set(entry.aliases.values()) <= set(entry.loaded)
        assert not {gone.wanted.number for gone in leaving} & {*aliases.values(), *entry.aliases.values()}


def test_the_old_version_answers_until_the_new_one_is_loaded() -> None:
    entry = ModelEntry("m", wanted(live=1), loaded={1: loaded(1)})
    table = table_of(entry)
    entry.wanted = wanted(live=2)
    assert entry.switch() == []
    table.publish()
    assert table.resolve("m", "").wanted.number == 1
    assert [missing.number for missing in entry.missing()] == [2]
    entry.loaded[2] = loaded(2)
    assert [gone.wanted.number for gone in entry.switch()] == [1]
    table.publish()
    for name in ("", "live", "2"):
        assert table.resolve("m", name).wanted.number == 2
    with pytest.raises(NotFound):
        table.resolve("m", "1")


def test_the_same_number_with_another_digest_is_missing_and_still_answered() -> None:
    entry = ModelEntry("m", wanted(live=1), loaded={1: loaded(1, "other")})
    table = table_of(entry)
    assert [missing.number for missing in entry.missing()] == [1]
    assert table.ready("m")


def test_a_wanted_version_is_unavailable_until_it_is_loaded_and_says_why() -> None:
    entry = ModelEntry("m", wanted(live=1))
    table = table_of(entry)
    for name in ("", "live", "1"):
        with pytest.raises(Unavailable, match="models/m/versions/1 is being loaded") as raised:
            table.resolve("m", name)
        assert raised.value.retry_after
    entry.failures[1] = Failure("the disk is full", tries=3)
    with pytest.raises(Unavailable, match="cannot be loaded: the disk is full; it is tried again"):
        table.resolve("m", "")


@pytest.mark.parametrize(
    ("model", "name", "error"),
    [
        ("other", "", NotFound),
        ("m", "2", NotFound),
        ("m", "canary", InvalidFields),
        ("m", "0", InvalidFields),
        ("m", "01", InvalidFields),
        ("m", "-1", InvalidFields),
        ("m", "Live", InvalidFields),
        ("m", "1" * 40, InvalidFields),
        ("m", "../1", InvalidFields),
        ("m" * 10_000, "", NotFound),
    ],
)
def test_what_is_unknown_is_refused_by_kind(model: str, name: str, error: Any) -> None:
    table = table_of(ModelEntry("m", wanted(live=1), loaded={1: loaded(1)}))
    with pytest.raises(error) as raised:
        table.resolve(model, name)
    assert len(str(raised.value)) < 400


def test_what_no_alias_leads_to_is_not_said_to_be_missing() -> None:
    table = table_of(ModelEntry("m", wanted(live=1), loaded={1: loaded(1)}))
    with pytest.raises(NotFound, match="models/m/versions/2 is not served: no alias of the model leads to it"):
        table.resolve("m", "2")
    with pytest.raises(NotFound, match="models/other is not served: there is no such model, or no alias leads to"):
        table.resolve("other", "")


def test_before_anything_is_known_nothing_is_refused_for_good() -> None:
    table = ServingTable()
    with pytest.raises(Unavailable, match="does not know yet"):
        table.resolve("m", "")
    table.known = True
    with pytest.raises(Unavailable, match="the registry is away"):
        table.resolve("m", "")
    table.confirmed = True
    with pytest.raises(NotFound):
        table.resolve("m", "")


def test_an_unloaded_model_is_not_found_and_lets_everything_go() -> None:
    entry = ModelEntry("m", wanted(live=1), loaded={1: loaded(1)})
    table = table_of(entry)
    entry.unloaded = True
    assert [gone.wanted.number for gone in entry.switch()] == [1]
    table.publish()
    assert entry.missing() == []
    with pytest.raises(NotFound, match="unloaded on this pod"):
        table.resolve("m", "1")


def test_a_version_with_other_serving_settings_is_loaded_anew() -> None:
    other = replace(version(1), serving=ServingConfig(runners=2))
    entry = ModelEntry("m", WantedModel("m", {1: other}, {"live": 1}), loaded={1: loaded(1)})
    assert entry.missing() == [other]
    assert (entry.switch(), entry.aliases) == ([], {"live": 1})  # the old form answers meanwhile
    entry.loaded[1] = cast("LoadedVersion", Loaded(other))
    assert entry.missing() == []
