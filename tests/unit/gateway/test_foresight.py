"""Playing a queue forward."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelyard.gateway.foresight import MAX_STARTS, Line, Outlook, Scene, foresee
from modelyard.gateway.turns import Candidate


def line(tenant: str, waiting: int, *, weight: float = 1.0, running: int = 0, room: int | None = None) -> Line:
    """A tenant's waiting jobs."""
    return Line(Candidate(tenant, weight, running, 0.0), waiting, room)


def test_one_worker_takes_one_job_after_the_other() -> None:
    scene = Scene([line("a", 3)], 0.0, [(5.0, "a")], 0, 10.0)
    assert foresee(scene, "a", 2) == Outlook(2, 2, 25.0)


def test_free_workers_start_what_they_can_at_once() -> None:
    scene = Scene([line("a", 3)], 0.0, [], 2, 10.0)
    assert foresee(scene, "a", 1) == Outlook(1, 1, 0.0)


def test_a_tenant_at_its_limit_waits_for_its_own_jobs() -> None:
    scene = Scene([line("a", 1, running=1, room=0)], 0.0, [(30.0, "a"), (1.0, "b")], 1, 10.0)
    assert foresee(scene, "a", 0) == Outlook(0, 0, 30.0)


def test_a_job_that_never_starts_has_no_time() -> None:
    scene = Scene([line("a", 2, room=0), line("b", 1)], 0.0, [], 1, 10.0)
    assert foresee(scene, "a", 0) == Outlook(1, 0, None)


def test_a_very_long_queue_is_played_only_so_far() -> None:
    scene = Scene([line("a", 3 * MAX_STARTS)], 0.0, [], 1, 1.0)
    assert foresee(scene, "a", 2 * MAX_STARTS) == Outlook(MAX_STARTS, MAX_STARTS, None)


@given(
    waiting=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    workers=st.integers(1, 5),
    weights=st.lists(st.sampled_from([0.5, 1.0, 2.0]), min_size=4, max_size=4),
)
def test_every_waiting_job_has_a_place_of_its_own(waiting: list[int], workers: int, weights: list[float]) -> None:
    def outlook(tenant: int, place: int) -> Outlook:
        lines = [line(str(i), count, weight=weights[i]) for i, count in enumerate(waiting)]
        return foresee(Scene(lines, 0.0, [], workers, 1.0), str(tenant), place)

    found = [outlook(tenant, place) for tenant, count in enumerate(waiting) for place in range(count)]
    assert sorted(one.ahead for one in found) == list(range(sum(waiting)))
    for one in found:
        assert one.starts_in_s == one.ahead // workers
