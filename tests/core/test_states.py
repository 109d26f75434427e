from __future__ import annotations

import pytest

from computeswarm.core.errors import InvalidTransition
from computeswarm.core.states import (
    TRANSITIONS,
    JobState,
    check_progress,
    check_recovery,
    check_transition,
    reachable,
)


def test_every_state_stands_in_the_table_and_is_reachable() -> None:
    assert set(TRANSITIONS) == set(JobState)
    for state in set(JobState) - {JobState.CREATED}:
        assert reachable(JobState.CREATED, state)


def test_ends_are_ends_and_nothing_returns() -> None:
    ends = {s for s in JobState if s.terminal}
    assert ends == {
        JobState.SUCCEEDED,
        JobState.FAILED,
        JobState.CANCELLED,
        JobState.TIMED_OUT,
        JobState.OUT_OF_FUNDS,
        JobState.SELLER_LOST,
    }
    for state in JobState:
        assert not reachable(state, state)


def test_a_seller_can_be_lost_from_every_living_state() -> None:
    for state in JobState:
        if not state.terminal:
            check_transition(state, JobState.SELLER_LOST)


@pytest.mark.parametrize("old", list(JobState))
@pytest.mark.parametrize("new", list(JobState))
def test_only_the_tables_steps_are_allowed(old: JobState, new: JobState) -> None:
    if new in TRANSITIONS[old]:
        check_transition(old, new)
        check_progress(old, new)
    else:
        with pytest.raises(InvalidTransition):
            check_transition(old, new)


def test_an_observer_may_miss_steps_but_not_go_back() -> None:
    check_progress(JobState.CREATED, JobState.RUNNING)
    check_progress(JobState.CREATED, JobState.OUT_OF_FUNDS)
    with pytest.raises(InvalidTransition):
        check_progress(JobState.RUNNING, JobState.QUEUED)
    with pytest.raises(InvalidTransition):
        check_progress(JobState.SUCCEEDED, JobState.FAILED)
    with pytest.raises(InvalidTransition):
        check_progress(JobState.QUEUED, JobState.QUEUED)


def test_nothing_runs_before_it_is_paid() -> None:
    assert JobState.STARTING not in TRANSITIONS[JobState.CREATED]
    assert JobState.STARTING not in TRANSITIONS[JobState.AWAITING_PAYMENT]


def test_only_a_recovery_puts_a_starting_job_back() -> None:
    check_recovery(JobState.STARTING, JobState.QUEUED)
    with pytest.raises(InvalidTransition):
        check_transition(JobState.STARTING, JobState.QUEUED)
    for state in set(JobState) - {JobState.STARTING}:
        with pytest.raises(InvalidTransition):
            check_recovery(state, JobState.QUEUED)
    # whoever looks on from outside may see it, and only it
    check_progress(JobState.STARTING, JobState.QUEUED)
    with pytest.raises(InvalidTransition):
        check_progress(JobState.RUNNING, JobState.STARTING)
