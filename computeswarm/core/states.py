"""The job state machine, as one table. Every room asks here; nobody keeps rules of his own."""

from __future__ import annotations

from enum import StrEnum

from computeswarm.core.errors import InvalidTransition


class JobState(StrEnum):
    CREATED = "created"
    AWAITING_PAYMENT = "awaiting_payment"
    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    OUT_OF_FUNDS = "out_of_funds"
    SELLER_LOST = "seller_lost"

    @property
    def terminal(self) -> bool:
        """Whether nothing follows."""
        return not TRANSITIONS[self]

    @property
    def live(self) -> bool:
        """Paid for and not ended: the seller holds a place for it."""
        return self in (JobState.QUEUED, JobState.STARTING, JobState.RUNNING)


_S = JobState
TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    _S.CREATED: frozenset({_S.AWAITING_PAYMENT, _S.QUEUED, _S.CANCELLED, _S.SELLER_LOST}),
    _S.AWAITING_PAYMENT: frozenset({_S.QUEUED, _S.FAILED, _S.CANCELLED, _S.SELLER_LOST}),
    # a job may fail or run out of its time while it waits (inputs that never came)
    _S.QUEUED: frozenset({_S.STARTING, _S.FAILED, _S.CANCELLED, _S.TIMED_OUT, _S.SELLER_LOST}),
    _S.STARTING: frozenset({_S.RUNNING, _S.FAILED, _S.CANCELLED, _S.TIMED_OUT, _S.SELLER_LOST}),
    _S.RUNNING: frozenset(
        {_S.SUCCEEDED, _S.FAILED, _S.CANCELLED, _S.TIMED_OUT, _S.OUT_OF_FUNDS, _S.SELLER_LOST}
    ),
    _S.SUCCEEDED: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELLED: frozenset(),
    _S.TIMED_OUT: frozenset(),
    _S.OUT_OF_FUNDS: frozenset(),
    _S.SELLER_LOST: frozenset(),
}

RECOVERIES: dict[JobState, frozenset[JobState]] = {_S.STARTING: frozenset({_S.QUEUED})}
"""Steps back that only a seller's recovery from a crash takes: what had printed nothing, and was
never metered, waits again at its old place."""


def check_recovery(old: JobState, new: JobState) -> None:
    """Allow exactly one step back.

    Raises:
        InvalidTransition: a crash is no reason for this one.
    """
    if new not in RECOVERIES.get(old, ()):
        raise InvalidTransition(f"A job that is {old} can't become {new}.", state=str(old))


def check_transition(old: JobState, new: JobState) -> None:
    """Allow exactly one step of the table.

    Raises:
        InvalidTransition: the table has no such step.
    """
    if new not in TRANSITIONS[old]:
        raise InvalidTransition(f"A job that is {old} can't become {new}.", state=str(old))


def check_progress(old: JobState, new: JobState) -> None:
    """Allow one or more steps at once: an observer (the market) may have missed some.

    Raises:
        InvalidTransition: the new state can't be reached from the old one.
    """
    if not reachable(old, new):
        raise InvalidTransition(f"A job that is {old} can't become {new}.", state=str(old))


def reachable(old: JobState, new: JobState) -> bool:
    """Whether some path of steps, recoveries among them, leads from ``old`` to another state."""
    seen: set[JobState] = set()
    stack = [old]
    while stack:
        state = stack.pop()
        for following in (TRANSITIONS[state] | RECOVERIES.get(state, frozenset())) - seen:
            seen.add(following)
            stack.append(following)
    return new != old and new in seen
