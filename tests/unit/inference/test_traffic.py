"""Which version answers which caller of an alias with a split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.inference.serving.desired import WantedModel, WantedTraffic, WantedVersion
from modelyard.inference.serving.table import LIVE, ModelEntry, ServingTable
from modelyard.inference.serving.traffic import Split
from modelyard.inference.serving.versions import LoadedVersion

KEY = "x-user"
CALLERS = [f"caller {number}" for number in range(2_000)]
SHARES = st.dictionaries(st.integers(2, 5), st.floats(0.01, 25), max_size=4)


@dataclass
class Loaded:
    """Stands for a loaded version: nobody here looks into it."""

    wanted: WantedVersion


def version(number: int) -> WantedVersion:
    return WantedVersion("m", number, str(number), 1, (), (), 20, 10, "", "", "", "")


def loaded(number: int) -> LoadedVersion:
    return cast("LoadedVersion", Loaded(version(number)))


VERSIONS = {number: loaded(number) for number in range(1, 6)}


def choices(
    shares: Mapping[int, float], missing: frozenset[int] = frozenset(), name: str = "m/live", callers: int = 200
) -> dict[str, int]:
    """The version of each caller when version 1 has the rest."""
    there = {number: one for number, one in VERSIONS.items() if number not in missing}
    split = Split.of(name, 1, VERSIONS[1], WantedTraffic(tuple(shares.items()), KEY), there)
    return {caller: split.choose({KEY: caller}).wanted.number for caller in CALLERS[:callers]}


@given(SHARES)
def test_any_pod_gives_a_caller_the_same_version(shares: dict[int, float]) -> None:
    assert choices(shares) == choices(dict(reversed(shares.items())))


def test_each_version_gets_its_share_of_the_callers() -> None:
    counts = Counter(choices({2: 10, 3: 30}, callers=len(CALLERS)).values())
    # Four standard deviations of a draw of 2,000.
    assert counts[2] == pytest.approx(200, abs=54)
    assert counts[3] == pytest.approx(600, abs=82)
    assert set(counts) == {1, 2, 3}


def test_without_the_key_callers_are_shared_out_by_chance() -> None:
    split = Split.of("m/live", 1, VERSIONS[1], WantedTraffic(((2, 25.0),), KEY), VERSIONS)
    counts = Counter(split.choose({"x-other": "a"}).wanted.number for _ in range(2_000))
    assert counts[2] == pytest.approx(500, abs=110)  # more than five standard deviations


@given(SHARES, st.integers(2, 5), st.floats(0.01, 25))
def test_a_growing_share_moves_callers_only_to_it_or_from_the_alias_s_own(
    shares: dict[int, float], changed: int, share: float
) -> None:
    smaller, larger = sorted([share, shares.get(changed, 0.0)])
    before, after = choices({**shares, changed: smaller}), choices({**shares, changed: larger})
    moved = {(before[caller], after[caller]) for caller in before if before[caller] != after[caller]}
    assert all(origin == 1 or target == changed for origin, target in moved)
    if set(shares) <= {changed}:
        assert moved <= {(1, changed)}


@given(SHARES, st.sets(st.integers(2, 5)))
def test_what_is_not_loaded_is_answered_by_the_alias_s_own_version(shares: dict[int, float], missing: set[int]) -> None:
    whole, part = choices(shares), choices(shares, frozenset(missing))
    assert part == {caller: 1 if number in missing else number for caller, number in whole.items()}


def test_canaries_of_two_models_have_different_callers() -> None:
    one, other = choices({2: 50}), choices({2: 50}, name="other/live")
    assert 0.35 < sum(one[caller] == other[caller] for caller in one) / len(one) < 0.65


def test_a_value_may_be_bytes_and_a_whole_split_leaves_nothing_to_the_alias_s_own() -> None:
    split = Split.of("m/live", 1, VERSIONS[1], WantedTraffic(((2, 60.0), (3, 40.0)), KEY), VERSIONS)
    assert split.choose({KEY: b"caller 1"}) is split.choose({KEY: "caller 1"})
    assert {split.choose({KEY: caller}).wanted.number for caller in CALLERS} == {2, 3}


class TestTable:
    """The table sends callers where the traffic says, as far as versions are loaded."""

    @pytest.fixture
    def entry(self) -> ModelEntry:
        traffic = {LIVE: WantedTraffic(((2, 50.0),), KEY, shadow=(3, 100.0))}
        wanted = WantedModel("m", {number: version(number) for number in (1, 2, 3)}, {LIVE: 1}, traffic=traffic)
        return ModelEntry("m", wanted)

    def table(self, entry: ModelEntry) -> ServingTable:
        table = ServingTable()
        table.models["m"] = entry
        table.known = table.confirmed = True
        entry.switch()
        table.publish()
        return table

    def answering(self, table: ServingTable, name: str) -> set[int]:
        return {table.choose("m", name, {KEY: caller}).wanted.number for caller in CALLERS[:50]}

    def test_the_default_and_the_alias_are_split_and_numbers_are_not(self, entry: ModelEntry) -> None:
        entry.loaded.update({1: loaded(1), 2: loaded(2)})
        table = self.table(entry)
        assert self.answering(table, "") == self.answering(table, "live") == {1, 2}
        assert self.answering(table, "1") == {1}
        assert table.resolve("m", "").wanted.number == 1  # what is asked about the model is the alias's own

    def test_a_canary_gets_traffic_from_the_moment_it_is_loaded(self, entry: ModelEntry) -> None:
        entry.loaded[1] = loaded(1)
        assert self.answering(self.table(entry), "") == {1}
        entry.loaded[2] = loaded(2)
        assert self.answering(self.table(entry), "") == {1, 2}

    def test_a_shadow_is_known_by_every_name_of_its_alias_once_loaded(self, entry: ModelEntry) -> None:
        entry.loaded[1] = loaded(1)
        assert not self.table(entry).shadows
        entry.loaded[3] = loaded(3)
        shadows = self.table(entry).shadows
        assert {name: route.version.wanted.number for name, route in shadows.items()} == {("m", ""): 3, ("m", LIVE): 3}
        assert self.answering(self.table(entry), "live") == {1}

    def test_traffic_of_the_registry_ends_with_the_model(self, entry: ModelEntry) -> None:
        entry.loaded.update({number: loaded(number) for number in (1, 2, 3)})
        entry.unloaded = True
        table = self.table(entry)
        assert (dict(table.shadows), table.ready("m", "live")) == ({}, False)
