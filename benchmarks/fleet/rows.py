"""A fleet as stored rows, some thirty thousand a second: for loading a market past its sockets.

A market believes its own store, so records in it carry a signature of zeros here, and ids of a
quicker hash: signing a million would take minutes and measure nothing. What registers over HTTP is
signed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from hashlib import blake2b

import numpy as np

from benchmarks.fleet.model import Fleet, Kind, Machine
from computeswarm.core.nodes import RECORD_KIND, NodeRecord
from computeswarm.core.query import squeeze
from computeswarm.core.signing import Signed
from computeswarm.market.facts import BETWEEN, FACTS, pack
from computeswarm.market.rows import Lease, NodeRow

CHAIN_ID = 84532
_PRICE, _SEQ, _ISSUED = 7_777_777_777, 6_666_666_666, 5_555_555_555
"""Found again in a template's JSON."""
_NO_SIGNATURE = "0x" + "00" * 65


class RowMaker:
    """Makes rows as of a time (unix seconds)."""

    def __init__(self, fleet: Fleet, now: float, *, lease_seconds: float = 90.0) -> None:
        self._fleet, self._now, self._lease = fleet, now, lease_seconds
        self._address = cache(self._quick_address)
        self._template = cache(self._make_template)

    def batches(self, size: int = 10_000) -> Iterator[list[NodeRow]]:
        """All machines in order; numbers begin at 1."""
        for first in range(0, self._fleet.nodes, size):
            last = min(first + size, self._fleet.nodes)
            yield [self.row(self._fleet.machine(number)) for number in range(first, last)]

    def row(self, machine: Machine) -> NodeRow:
        """One machine, registered a while ago and alive."""
        fleet, now = self._fleet, self._now
        rng = fleet.random("row", machine.number)
        wallet, price = self._address(machine.owner), fleet.price(machine, now)
        facts, head, text = self._template(machine.kind, machine.number % 4 == 0)
        packed = facts.copy()
        packed["price"] = price
        packed["wallet"] = np.void(bytes.fromhex(wallet[2:]))
        known = rng.uniform(3_600, 60 * 86_400)
        alive = known * (1 - rng.random() ** 4 * 0.4)
        ended = int(rng.expovariate(1 / 40))
        failed = min(ended, int(ended * rng.random() ** 6))
        seen = now - rng.uniform(0, self._lease / 3)
        busy = rng.random() < 0.4
        filled = (
            text.replace('"WALLET"', f'"{wallet}"')
            .replace('"NAME"', f'"{machine.name}"')
            .replace(str(_PRICE), str(price))
            .replace(str(_SEQ), "1")
            .replace(str(_ISSUED), str(int(now - known)))
        )
        return NodeRow(
            node_id=_quick_id(wallet, machine.name),
            wallet=wallet,
            record=filled.encode(),
            facts=packed.tobytes(),
            words=BETWEEN.join([*head, squeeze(machine.name), machine.name.lower()]),
            seq=1,
            session_key=session_key(machine.number),
            session_until=now + 86_400,
            registered_at=now - known,
            lease=Lease(
                last_seen=seen,
                lease_until=seen + self._lease,
                alive_seconds=alive,
                queued=int(rng.expovariate(1)) if busy else 0,
                running=int(busy),
                status=int(busy),
            ),
            succeeded=ended - failed,
            failed=failed,
            number=machine.number + 1,
        )

    def _quick_address(self, owner: int) -> str:
        """Not that of a key, which takes long to work out."""
        return "0x" + blake2b(f"{self._fleet.seed}/{owner}".encode(), digest_size=20).hexdigest()

    def _make_template(self, kind: Kind, network: bool) -> tuple[np.ndarray, list[str], str]:
        """Facts, the first words, and the record's JSON with places to fill in."""
        record = self._fleet.record(
            Machine(0 if network else 1, kind, 0, 1.0), self._now, seq=_SEQ
        ).model_copy(update={"price_per_hour": _PRICE, "issued_at": _ISSUED})
        packed, words = pack(record.node_id, record)
        document = record.model_dump(mode="json") | {"wallet": "WALLET", "name": "NAME"}
        signed = {"kind": RECORD_KIND, "chain_id": CHAIN_ID, "document": document}
        text = json.dumps({**signed, "signature": _NO_SIGNATURE}, separators=(",", ":"))
        return np.frombuffer(packed, FACTS)[0].copy(), words.split(BETWEEN)[:4], text


def session_key(number: int) -> bytes:
    """The MAC key of the machine of a number in made-up rows."""
    return blake2b(b"%d" % number, digest_size=32).digest()


def _quick_id(wallet: str, name: str) -> str:
    return "nd-" + blake2b(f"{wallet}/{name}".encode(), digest_size=6).hexdigest()


def read(row: NodeRow) -> NodeRecord:
    """The record of a row, as a market would read it."""
    return NodeRecord.model_validate(Signed.model_validate_json(row.record).document)
