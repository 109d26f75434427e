"""What may be written over what: the same for every store, decided while it holds the rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hmac import compare_digest

from computeswarm.core.crypto import same_address
from computeswarm.core.errors import Conflict
from computeswarm.core.jobs import MarketJob
from computeswarm.core.states import JobState
from computeswarm.market.rows import NodeRow
from computeswarm.market.stores.protocol import JobTotals


@dataclass(slots=True)
class Known:
    """What a store reads of a node before it judges a write to it."""

    number: int
    node_id: str
    wallet: str
    seq: int
    session_key: bytes
    call_counter: int
    """Of the newest call that was stored in this session; heartbeats don't count."""
    registered_at: float
    succeeded: int
    failed: int
    gone: bool
    alive_seconds: float


def registered(known: Known | None, row: NodeRow) -> NodeRow:
    """The row to store for a registration.

    Raises:
        Conflict: another wallet's, or ``seq`` is not higher (then with ``seq`` in extra).
    """
    if known is None:
        return row
    if not same_address(known.wallet, row.wallet):
        # ids are short enough to be looked for: whoever has one keeps it
        raise Conflict("Another wallet has a node of this id; choose another name.")
    if row.seq <= known.seq:
        sentence = f"A record with seq {known.seq} is known; sign a higher one."
        raise Conflict(sentence, seq=known.seq)
    alive = max(known.alive_seconds, row.lease.alive_seconds)
    return replace(
        row,
        number=known.number,
        registered_at=known.registered_at,
        succeeded=known.succeeded,
        failed=known.failed,
        lease=replace(row.lease, alive_seconds=alive),
    )


def may_call(known: Known | None, session_key: bytes, counter: int) -> bool:
    """Whether a call under this session, with this counter, may still change something."""
    return (
        known is not None
        and not known.gone
        and bool(session_key)
        and compare_digest(known.session_key, session_key)
        and counter > known.call_counter
    )


@dataclass(frozen=True, slots=True)
class Sum:
    """What is kept of all jobs in one state, or what a step adds to it."""

    state: str
    jobs: int
    settled: int
    metered_ms: int
    paid: int


def difference(old: MarketJob | None, new: MarketJob) -> list[Sum]:
    """What a job's step adds to the sums."""
    steps = [_sum(new, 1)]
    if old is not None:
        steps.append(_sum(old, -1))
    return steps


def _sum(job: MarketJob, sign: int) -> Sum:
    kept = job.paid - job.refunded
    return Sum(str(job.state), sign, sign * (kept > 0), sign * job.metered_ms, sign * kept)


def totals(sums: list[Sum]) -> JobTotals:
    """All sums together."""
    ended = [s for s in sums if JobState(s.state).terminal]
    return JobTotals(
        by_state={s.state: s.jobs for s in sums if s.jobs},
        ended=sum(s.jobs for s in ended),
        settled=sum(s.settled for s in ended),
        metered_ms=sum(s.metered_ms for s in ended),
        paid=sum(s.paid for s in sums),
    )
