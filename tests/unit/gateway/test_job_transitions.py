"""The table of moves between states."""

from __future__ import annotations

import pytest

from modelyard.core.errors import WrongState
from modelyard.gateway.jobs import HELD, STOPPING, TERMINAL, TRANSITIONS, FailureReason, State, check_transition
from modelyard.v1.training_job_pb2 import TrainingJob


def test_the_table_names_every_state() -> None:
    assert set(TRANSITIONS) == set(State)


def test_nothing_leaves_a_terminal_state() -> None:
    assert {state for state, after in TRANSITIONS.items() if not after} == TERMINAL


def test_every_state_can_be_reached_and_left_for_an_end() -> None:
    assert set().union(*TRANSITIONS.values()) == set(State)
    for state in State:
        reached = {state}
        while True:
            grown = reached.union(*(TRANSITIONS[each] for each in reached))
            if grown == reached:
                break
            reached = grown
        assert reached & TERMINAL


def test_only_publishing_succeeds() -> None:
    assert [state for state, after in TRANSITIONS.items() if State.SUCCEEDED in after] == [State.PUBLISHING]


def test_only_queued_jobs_are_leased() -> None:
    assert [state for state, after in TRANSITIONS.items() if State.LEASED in after] == [State.QUEUED]


def test_a_cancelled_job_has_published_nothing() -> None:
    assert TRANSITIONS[State.CANCELLING] == {State.CANCELLED}


@pytest.mark.parametrize("state", sorted(HELD - STOPPING))
def test_every_working_state_can_be_taken_back_stopped_and_failed(state: State) -> None:
    assert TRANSITIONS[state] >= {State.QUEUED, State.FAILED, *STOPPING}


def test_cancel_wins_over_pause() -> None:
    assert State.CANCELLING in TRANSITIONS[State.PAUSING]
    assert State.PAUSING not in TRANSITIONS[State.CANCELLING]


def test_a_paused_job_goes_on_only_through_the_queue() -> None:
    assert TRANSITIONS[State.PAUSED] == {State.QUEUED, State.CANCELLED}


def test_a_move_outside_the_table_names_the_state() -> None:
    with pytest.raises(WrongState) as caught:
        check_transition(State.SUCCEEDED, State.RUNNING)
    assert caught.value.metadata == {"state": "SUCCEEDED"}


def test_states_and_reasons_are_those_of_the_api() -> None:
    states = {name.removeprefix("STATE_") for name in TrainingJob.State.keys()}  # noqa: SIM118 - a protobuf enum
    reasons = {name.removeprefix("FAILURE_REASON_") for name in TrainingJob.FailureReason.keys()}  # noqa: SIM118
    assert states - {"UNSPECIFIED"} == set(State)
    assert reasons - {"UNSPECIFIED"} == set(FailureReason)
