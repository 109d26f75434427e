"""Data that earlier versions wrote comes through; what can't be opened is said at the start."""

from __future__ import annotations

import sqlite3
import stat
import sys
from contextlib import closing
from pathlib import Path

import pytest
from postgres_server import ask
from store_hands import all_nodes, job, job_id

from computeswarm.core.errors import ConfigError, Conflict
from computeswarm.core.money import MAX_ATOMS
from computeswarm.core.nodes import open_record
from computeswarm.core.signing import Signed
from computeswarm.core.states import JobState
from computeswarm.market.rows import Lease
from computeswarm.market.stores import open_store
from computeswarm.market.stores.migrations import scripts
from computeswarm.market.stores.protocol import Store

SCHEMAS = Path(__file__).parent / "schemas"
BUYER = "0x2B5AD5c4795c026514f8317c7a215E218DcCD6cF"


async def check(store: Store) -> None:
    """What every dump holds: four nodes and four jobs of the first one."""
    nodes = await all_nodes(store)
    assert [n.number for n in nodes.values()] == [1, 2, 3, 4]
    for i, node in enumerate(nodes.values(), 1):
        record = open_record(Signed.model_validate_json(node.record), expected_id=node.node_id)
        assert (record.name, record.wallet, record.seq) == (f"grüße-{i}", node.wallet, i)
        assert node.seq == i
        assert node.session_key == bytes([i]) * 32
        assert node.registered_at == 1_700_000_000.5 + i
        assert (node.succeeded, node.failed, node.gone) == (i + 3, i + 1, i == 4)
        seen = 1_700_000_100.25 + i
        status = (0, 1, 2, 0)[i - 1]
        assert node.lease == Lease(10 * i, seen, seen + 90, 50.5 * i, i, i - 1, status)
        assert node.session_until == seen + 86_400
    totals = await store.job_totals()
    assert totals.by_state == {"created": 1, "running": 1, "succeeded": 1, "failed": 1}
    assert (totals.ended, totals.settled) == (2, 1)
    assert (totals.metered_ms, totals.paid) == (2**53 - 1 + 10, 200 + MAX_ATOMS - 7)
    first = nodes[next(iter(nodes))]
    for wallet in (BUYER, first.wallet):
        page = await store.jobs_of(wallet, before=None, limit=9)
        assert [j.job_id for j in page] == [job_id(n) for n in (4, 3, 2, 1)]
    kept = await store.job(job_id(2))
    assert kept is not None
    running, submission = kept
    assert submission == '{"submission":2}'

    # and all of it can be written to
    with pytest.raises(Conflict):
        await store.save_node(first)
    ended = running.model_copy(update={"state": JobState.SUCCEEDED})
    call = {"session_key": first.session_key, "succeeded": 1, "failed": 0}
    assert not await store.change_job(running, ended, counter=first.lease.counter, **call)
    assert await store.change_job(running, ended, counter=first.lease.counter + 1, **call)
    assert (await store.job_totals()).by_state["succeeded"] == 2
    _, _, new = await store.add_job(job(77), "{}")
    assert new


@pytest.mark.parametrize("version", range(1, len(scripts("sqlite")) + 1))
async def test_every_sqlite_file_comes_through(version: int, tmp_path: Path) -> None:
    path = tmp_path / "market.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript((SCHEMAS / f"sqlite-{version:04}.sql").read_text(encoding="utf-8"))
    for _ in range(2):  # the second opening has nothing to do
        store = open_store(path)
        await store.open()
        await store.close()
    store = open_store(f"sqlite://{path}")
    await store.open()
    try:
        await check(store)
    finally:
        await store.close()


@pytest.mark.parametrize("version", range(1, len(scripts("postgres")) + 1))
async def test_every_postgres_database_comes_through(version: int, postgres_url: str) -> None:
    await ask(postgres_url, (SCHEMAS / f"postgres-{version:04}.sql").read_text(encoding="utf-8"))
    store = open_store(postgres_url)
    await store.open()
    try:
        await check(store)
    finally:
        await store.close()


async def test_only_its_owner_reads_a_new_file(tmp_path: Path) -> None:
    store = open_store(tmp_path / "deep" / "market.db")
    await store.open()
    await store.close()
    made = tmp_path / "deep" / "market.db"
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert stat.S_IMODE(made.parent.stat().st_mode) == 0o700


async def test_what_is_no_file_of_ours_is_refused(tmp_path: Path) -> None:
    later = tmp_path / "later.db"
    with closing(sqlite3.connect(later)) as db:
        db.execute("PRAGMA user_version=99")
    text = tmp_path / "text.db"
    text.write_text("no database, but longer than its header would be. " * 40)
    for path in (later, text, tmp_path):
        store = open_store(path)
        with pytest.raises(ConfigError) as told:
            await store.open()
        assert str(path) in told.value.detail
        await store.close()
    assert text.read_text().startswith("no database")


@pytest.mark.parametrize(
    "where",
    [
        "",
        "mysql://root:hunter2@db/market",
        "sqlite://market.db",
        "sqlite:///",
        "postgresql://market:hunter2@db:port/market",
        "postgresql://market:hunter2@[::1/market",
    ],
)
def test_a_wrong_place_is_refused_without_its_password(where: str) -> None:
    with pytest.raises(ConfigError) as told:
        open_store(where)
    assert "hunter2" not in str(told.value)


def test_without_asyncpg_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "computeswarm.market.stores.postgres.store", raising=False)
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    for name in list(sys.modules):
        if name.startswith("computeswarm.market.stores.postgres."):
            monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigError, match=r"pip install 'computeswarm\[postgres\]'"):
        open_store("postgresql://market@db/market")
