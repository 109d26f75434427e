"""Any order of calls, in any company, against a model of a few lines."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from postgres_server import ask
from store_hands import all_nodes, job, job_id, leases, node_id, row

from computeswarm.core.errors import Conflict
from computeswarm.core.jobs import MarketJob
from computeswarm.core.states import JobState
from computeswarm.market.rows import Lease, NodeRow
from computeswarm.market.stores import open_store
from computeswarm.market.stores.protocol import Store

NODES = st.integers(1, 3)
JOBS = st.integers(1, 3)
COUNTERS = st.integers(1, 6)
WALLETS = ("0x" + "11" * 20, "0x" + "22" * 20)


@dataclass(frozen=True)
class Step:
    """One call; ``n`` names the node, ``a`` and ``b`` mean what the call makes of them."""

    call: str
    n: int
    a: int
    b: int


STEPS = st.builds(
    Step,
    st.sampled_from(("save", "save", "remove", "revoke", "touch", "add", "change", "change")),
    NODES,
    COUNTERS,
    st.integers(0, 2),
)


def key(seq: int) -> bytes:
    return bytes([seq]) * 32


class Model:
    """What a store must do, in dicts."""

    def __init__(self) -> None:
        self.nodes: dict[int, NodeRow] = {}
        self.calls: dict[int, int] = {}
        self.jobs: dict[int, MarketJob] = {}

    def may(self, n: int, session_key: bytes, counter: int) -> bool:
        node = self.nodes.get(n)
        good = node is not None and not node.gone and node.session_key == session_key
        return good and counter > self.calls[n]

    def save(self, n: int, seq: int, wallet: str) -> NodeRow | None:
        old = self.nodes.get(n)
        if old is not None and (old.wallet != wallet or seq <= old.seq):
            return None
        new = row(n, seq=seq, wallet=wallet, session_key=key(seq))
        if old is not None:
            alive = replace(new.lease, alive_seconds=old.lease.alive_seconds)
            new = replace(new, succeeded=old.succeeded, failed=old.failed, lease=alive)
        self.nodes[n] = new
        self.calls[n] = 0
        return new

    def remove(self, n: int, session_key: bytes, counter: int) -> bool:
        good = self.may(n, session_key, counter)
        if good:
            self.nodes[n] = replace(self.nodes[n], gone=True)
            self.calls[n] = counter
        return good

    def revoke(self, n: int, seq: int) -> bool:
        node = self.nodes.get(n)
        if node is None or seq < node.seq:
            return False
        self.nodes[n] = replace(node, gone=True, session_key=b"", seq=seq)
        return True

    def touch(self, n: int, seq: int, counter: int) -> None:
        node = self.nodes.get(n)
        if node is not None and node.seq == seq and node.session_key:
            old, seen = node.lease, 1_000.0 + counter
            new = Lease(
                max(old.counter, counter),
                max(old.last_seen, seen),
                max(old.lease_until, seen + 90),
                max(old.alive_seconds, seen - 1_000),
                queued=counter if seen >= old.last_seen else old.queued,
            )
            self.nodes[n] = replace(node, lease=new)

    def change(self, n: int, state: JobState, session_key: bytes, counter: int) -> bool:
        good = n in self.jobs and self.may(n, session_key, counter)
        if good:
            self.jobs[n] = self.jobs[n].model_copy(update={"state": state, "paid": counter})
            node = self.nodes[n]
            self.nodes[n] = replace(node, succeeded=node.succeeded + 1)
            self.calls[n] = counter
        return good

    def stored(self, n: int) -> NodeRow:
        node = self.nodes[n]
        lease = replace(node.lease, counter=max(node.lease.counter, self.calls[n]))
        return replace(node, lease=lease, number=0)


async def run(store: Store, model: Model, step: Step) -> None:
    """One call on both; they must agree."""
    n, session = step.n, key(step.b + 1)
    if step.call == "save":
        wallet = WALLETS[step.b == 2]
        wanted = model.save(n, step.a, wallet)
        given_row = row(n, seq=step.a, wallet=wallet, session_key=key(step.a))
        try:
            got: NodeRow | None = replace(await store.save_node(given_row), number=0)
        except Conflict:
            got = None
        assert got == wanted
    elif step.call == "remove":
        got_bool = await store.remove_node(node_id(n), session_key=session, counter=step.a)
        assert got_bool == model.remove(n, session, step.a)
    elif step.call == "revoke":
        assert await store.revoke_node(node_id(n), seq=step.a) == model.revoke(n, step.a)
    elif step.call == "touch":
        known = await store.node(node_id(n))
        if known is not None:
            seq = step.b + 1
            store.touch(leases((known.number, seq, step.a, 1_000.0 + step.a), queued=step.a))
            await store.flush()
            model.touch(n, seq, step.a)
    elif step.call == "add":
        _, _, new = await store.add_job(job(n, node=n), "{}")
        assert new == (n not in model.jobs)
        model.jobs.setdefault(n, job(n, node=n))
    else:
        await change(store, model, step, session)


async def change(store: Store, model: Model, step: Step, session: bytes) -> None:
    state = (JobState.QUEUED, JobState.RUNNING, JobState.SUCCEEDED)[step.b]
    old = model.jobs.get(step.n, job(step.n, node=step.n))
    new = old.model_copy(update={"state": state, "paid": step.a})
    got = await store.change_job(
        old, new, session_key=session, counter=step.a, succeeded=1, failed=0
    )
    assert got == model.change(step.n, state, session, step.a)


async def agree(store: Store, model: Model) -> None:
    """All that can be read is as in the model."""
    loaded = await all_nodes(store)
    assert {n: replace(r, number=0) for n, r in loaded.items()} == {
        node_id(n): model.stored(n) for n in model.nodes
    }
    for n, wanted in model.jobs.items():
        assert await store.job(job_id(n)) == (wanted, "{}")
    totals = await store.job_totals()
    assert sum(totals.by_state.values()) == len(model.jobs)
    assert totals.paid == sum(j.paid for j in model.jobs.values())


async def both(where: Any, steps: list[Step], reopen: int) -> None:
    store, model = open_store(where), Model()
    await store.open()
    for at, step in enumerate(steps):
        if at == reopen:
            await store.close()
            store = open_store(where)
            await store.open()
        await run(store, model, step)
    await agree(store, model)
    await store.close()


SOME = settings(
    max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None
)


@SOME
@given(st.lists(STEPS, max_size=25), st.integers(0, 25))
def test_sqlite_does_what_the_model_does(steps: list[Step], reopen: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(both(Path(folder) / "market.db", steps, reopen))


@settings(SOME, max_examples=12)
@given(st.lists(STEPS, max_size=25), st.integers(0, 25))
def test_postgres_does_what_the_model_does(
    postgres_server: str, steps: list[Step], reopen: int
) -> None:
    async def in_a_fresh_database() -> None:
        name = f"market_{secrets.token_hex(6)}"
        await ask(postgres_server, f"CREATE DATABASE {name}")
        try:
            await both(postgres_server.rpartition("/")[0] + f"/{name}", steps, reopen)
        finally:
            await ask(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")

    asyncio.run(in_a_fresh_database())


@pytest.mark.parametrize("kind", ["added", "renewed"])
async def test_one_batch_judges_its_writes_in_their_order(store: Store, kind: str) -> None:
    if kind == "renewed":
        await store.save_node(row(1, seq=1, session_key=key(9)))
        await store.save_node(row(1, seq=2, session_key=key(9)))
    seq = 3
    results = await asyncio.gather(
        store.save_node(row(1, seq=seq)),
        store.add_job(job(1), "{}"),
        store.change_job(
            job(1),
            job(1, state=JobState.SUCCEEDED),
            session_key=row(1).session_key,
            counter=1,
            succeeded=1,
            failed=0,
        ),
        store.save_node(row(1, seq=seq + 1, session_key=key(7))),
        store.remove_node(node_id(1), session_key=row(1).session_key, counter=9),
        store.remove_node(node_id(1), session_key=key(7), counter=1),
        store.revoke_node(node_id(1), seq=seq),
    )
    assert [r if isinstance(r, bool) else True for r in results] == [
        *(True, True, True, True, False, True, False)
    ]
    kept = await store.node(node_id(1))
    assert kept is not None
    assert (kept.seq, kept.gone, kept.succeeded, kept.lease.counter) == (seq + 1, True, 1, 1)
