"""The rule that shares a queue's workers between tenants."""

from __future__ import annotations

import heapq
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.gateway.turns import Candidate, next_queue_tag, next_tag, whose_turn


def played(weights: dict[str, float], workers: int, starts: int, *, seed: int = 1) -> tuple[Counter[str], Counter[str]]:
    """Starts by tenant, and the time that each tenant's jobs held workers, if everybody always has jobs that wait."""
    chance = random.Random(seed)
    candidates = [Candidate(tenant, weight, 0, 0.0) for tenant, weight in weights.items()]
    ends: list[tuple[float, str]] = []
    started, held, now, tag = Counter[str](), Counter[str](), 0.0, 0.0
    for _ in range(starts):
        while len(ends) >= workers:
            now, ended = heapq.heappop(ends)
            next(one for one in candidates if one.tenant == ended).running -= 1
        chosen = whose_turn(candidates, tag)
        assert chosen is not None
        chosen.tag, tag = next_tag(chosen, tag), next_queue_tag(candidates, tag)
        chosen.running += 1
        duration = chance.expovariate(1.0)
        started[chosen.tenant] += 1
        held[chosen.tenant] += duration
        heapq.heappush(ends, (now + duration, chosen.tenant))
    return started, held


@pytest.mark.parametrize("workers", [1, 2, 3, 7, 20])
@pytest.mark.parametrize(
    "weights", [{"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 5, "b": 1, "c": 1}, {"a": 0.1, "b": 0.3}]
)
def test_shares_follow_the_weights_whatever_the_number_of_workers(workers: int, weights: dict[str, float]) -> None:
    started, held = played(weights, workers, 6000)
    for tenant, weight in weights.items():
        share = weight / sum(weights.values())
        assert started[tenant] / started.total() == pytest.approx(share, rel=0.05)
        assert held[tenant] / held.total() == pytest.approx(share, rel=0.15)


CANDIDATES = st.lists(
    st.builds(
        Candidate,
        tenant=st.text("abc", min_size=1, max_size=3),
        weight=st.floats(0.01, 100),
        running=st.integers(0, 50),
        tag=st.floats(0, 1e6),
    ),
    unique_by=lambda one: one.tenant,
    max_size=6,
)


@given(candidates=CANDIDATES, tag=st.floats(0, 1e6))
def test_somebody_goes_if_anybody_wants_to_and_never_who_has_more_than_its_share(
    candidates: list[Candidate], tag: float
) -> None:
    chosen = whose_turn(candidates, tag)
    assert (chosen is None) == (not candidates)
    if chosen is not None:
        places = sum(one.running for one in candidates) + 1
        share = places * chosen.weight / sum(one.weight for one in candidates)
        assert chosen.running < share


@given(candidates=CANDIDATES.filter(bool), tag=st.floats(0, 1e6))
def test_tags_only_go_up(candidates: list[Candidate], tag: float) -> None:
    chosen = whose_turn(candidates, tag)
    assert chosen is not None
    assert next_tag(chosen, tag) > chosen.tag
    assert next_queue_tag(candidates, tag) >= tag


def test_who_comes_late_gets_the_next_free_workers_until_it_has_its_share() -> None:
    old, new = Candidate("old", 1, 9, 900.0), Candidate("new", 1, 0, 0.0)
    tag = 899.0
    for running in range(5):
        assert new.running == running
        chosen = whose_turn([old, new], tag)
        assert chosen is new
        new.running += 1
        new.tag, tag = next_tag(new, tag), next_queue_tag([old, new], tag)
        old.running -= 1  # one of its jobs ends, and a worker is free again


def test_nobody_saves_up_turns_while_it_has_no_jobs() -> None:
    busy, idle = Candidate("busy", 1, 0, 1000.0), Candidate("idle", 1, 0, 0.0)
    tag, order = 999.0, []
    for _ in range(6):
        chosen = whose_turn([busy, idle], tag)
        assert chosen is not None
        order.append(chosen.tenant)
        chosen.tag, tag = next_tag(chosen, tag), next_queue_tag([busy, idle], tag)
    assert order.count("idle") <= 4
