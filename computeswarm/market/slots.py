"""Which node is where in the columns, what is kept of it, and how nodes come and go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from sys import getsizeof
from typing import Any

import numpy as np
import numpy.typing as npt

from computeswarm.core.crypto import to_checksum
from computeswarm.core.logs import get_logger
from computeswarm.core.query import squeeze
from computeswarm.market import derived
from computeswarm.market.columns import ABSENT, Array, Columns, Hot
from computeswarm.market.dictionary import Dictionary
from computeswarm.market.facts import BETWEEN, FACTS, ITEMS, current, repack
from computeswarm.market.rows import LEASE, NodeColumns, NodeRow
from computeswarm.market.texts import Texts
from computeswarm.market.touches import Touches

_FIRST_ROOM = 64
_FEW_NAMED = 64
"""Names of one node in so many are few."""
_NOTHING = np.zeros((), FACTS).tobytes()
_NO_WORDS = BETWEEN * 5
_FACT_COLUMNS = tuple(n for n in FACTS.names or () if n not in ("version", "wallet"))
_SHARED = ("gpu", "region", "images", "cpu")
"""Columns of entries in dictionaries, in the order of ``NodeRow.words``."""
_LEASE_COLUMNS = LEASE.names or ()
_log = get_logger("market")


class Slots:
    """Nodes by dense slots. A slot keeps its node until ``remove``, and is used again then."""

    def __init__(self) -> None:
        self.columns = Columns(_FIRST_ROOM)
        self.hot = Hot(self.columns)
        """For one slot at a time; made anew when the table grows."""
        self.size = 0
        """Slots ever used."""
        self.version = 0
        """Rises with every change that a search could see."""
        self.touches = Touches()
        self.gpus = Dictionary(_models)
        self.regions = Dictionary(str.lower)
        self.imagesets = Dictionary(str)
        self.cpus = Dictionary(str)
        self.names = Texts()
        """Squeezed; entries are those of ``lower_names``."""
        self.lower_names = Texts()
        self._owners = np.zeros(_FIRST_ROOM, np.int32)
        """Slots by their names' entries; that of an entry no longer used is of no meaning."""
        self._slots: dict[str, int] = {}
        self._free: list[int] = []
        # an object array, since the garbage collector would walk a list of a million each time
        self._records: npt.NDArray[Any] = np.full(_FIRST_ROOM, b"", object)
        self._record_bytes = 0
        self._by_number = np.full(_FIRST_ROOM, -1, np.int32)
        self._gone = 0

    # -- what is there

    def slot(self, node_id: str) -> int | None:
        """Where a node is; a node that left may still have its place, see ``gone``."""
        return self._slots.get(node_id)

    def slot_of(self, number: int) -> int | None:
        """Where the node of a store's number is."""
        slot = int(self.slots_of(np.array([number]))[0])
        return slot if slot >= 0 else None

    def slots_of(self, numbers: Array) -> Array:
        """Slots by the store's numbers; -1 for those that are not here."""
        known = (numbers > 0) & (numbers < len(self._by_number))
        return np.where(known, self._by_number[np.where(known, numbers, 0)], -1)

    def gone(self, slot: int) -> bool:
        """Whether the node left or was revoked."""
        return self.hot.status[slot] == ABSENT

    def live(self) -> int:
        """How many nodes did not leave, offline ones among them."""
        return len(self._slots) - self._gone

    def node_id(self, slot: int) -> str:
        """The id of the node there."""
        return f"nd-{self.hot.id[slot]:012x}"

    def wallet(self, slot: int) -> str:
        """The seller's address, checksummed."""
        columns = self.columns
        parts = (int(c[slot]) for c in (columns.wallet_a, columns.wallet_b, columns.wallet_c))
        return to_checksum("0x{:016x}{:016x}{:08x}".format(*parts))

    def named(self, entries: Array) -> Array | None:
        """Slots, in order, of the names for which a mask over ``names`` is true; None: many."""
        found = np.flatnonzero(entries)
        if len(found) * _FEW_NAMED > self.size:
            return None
        slots = self._owners[found]
        return np.sort(slots[self.columns.name[slots] == found])

    def model(self, slot: int) -> str:
        """Model of the first GPU; ``cpu`` for a node without one."""
        return self.gpus.label(int(self.columns.gpu[slot])).partition(ITEMS)[0] or "cpu"

    def record(self, slot: int) -> bytes:
        """The signed record as JSON; empty for a node that left."""
        record: bytes = self._records[slot]
        return record

    def session_key(self, slot: int) -> bytes:
        """32 bytes, or none after a revocation."""
        key = self.columns.session_key[slot].tobytes()
        return key if any(key) else b""

    @property
    def dictionaries(self) -> tuple[Dictionary, ...]:
        """Of GPUs, regions, images and processors."""
        return self.gpus, self.regions, self.imagesets, self.cpus

    @property
    def memory_bytes(self) -> int:
        """Columns, texts, records and the map of ids; without what searches add."""
        texts = self.names.nbytes + self.lower_names.nbytes
        texts += sum(dictionary.texts.nbytes for dictionary in self.dictionaries)
        ids = getsizeof(self._slots) + 96 * len(self._slots)  # texts and numbers in the map
        fixed = int(self._records.nbytes + self._by_number.nbytes + self._owners.nbytes)
        return self.columns.nbytes + texts + ids + fixed + self._record_bytes

    # -- coming and going

    def put(self, row: NodeRow) -> int:
        """Take a node in, or replace it; returns its slot. ``put_many`` says the rest."""
        return int(self.put_many((row,))[0])

    def put_many(self, rows: Sequence[NodeRow]) -> Array:
        """Take nodes in, the last row of each; returns their slots. See ``put_columns``."""
        return self.put_columns(NodeColumns.of(list({row.node_id: row for row in rows}.values())))

    def put_columns(self, nodes: NodeColumns) -> Array:
        """Take nodes in, each once; returns their slots. One that left keeps its place, but no
        record; so does one whose record an earlier version took and this one can't read, since it
        must not keep all others from being listed.

        Raises:
            ValueError: an id is no node's.
        """
        gone = np.array(nodes.gone, np.bool_)
        facts_, words, records = list(nodes.facts), list(nodes.words), list(nodes.record)
        for i, packed in enumerate(facts_):
            if not current(packed) and not gone[i]:
                try:
                    facts_[i], words[i] = repack(nodes.node_id[i], records[i])
                except ValueError:
                    _log.warning("record_unreadable", node_id=nodes.node_id[i])
                    gone[i] = True
        for i in np.flatnonzero(gone).tolist():
            facts_[i], words[i], records[i] = _NOTHING, _NO_WORDS, b""
        slots = self._places(nodes.node_id)
        self._put_facts(slots, facts_)
        self._put_identity(slots, nodes)
        self._put_leases(slots, nodes.leases, gone)
        self._put_words(slots, words)
        self._keep_records(slots, records)
        self._gone += int(np.count_nonzero(gone))
        derived.reckon(self.columns, slots, self.columns.last_seen[slots])
        self.touches.records.add_many(slots)
        self.version += 1
        return slots

    def remove(self, slot: int) -> None:
        """Forget a node altogether."""
        self._let_go(slot)
        del self._slots[self.node_id(slot)]
        number = self.hot.number[slot]
        if 0 < number < len(self._by_number):
            self._by_number[number] = -1
        self.columns.clear(slot)
        self._keep_records(np.array([slot]), [b""])
        self._free.append(slot)
        self.touches.records.add(slot)
        self.version += 1

    # -- inside

    def _places(self, node_ids: Iterable[str]) -> Array:
        """Slots for nodes, new ones where they have none; what they had there is let go."""
        slots = []
        for node_id in node_ids:
            slot = self._slots.get(node_id)
            if slot is None:
                if self._free:
                    slot = self._free.pop()
                else:
                    slot = self.size
                    self.size += 1
                self._slots[node_id] = slot
            else:
                self._let_go(slot)
            slots.append(slot)
        self._make_room()
        return np.array(slots, np.int64)

    def _make_room(self) -> None:
        if self.size > len(self.columns):
            length = max(self.size, 2 * len(self.columns))
            self.columns = Columns(length, self.columns)
            self.hot = Hot(self.columns)
            records = np.full(length, b"", object)
            records[: len(self._records)] = self._records
            self._records = records

    def _let_go(self, slot: int) -> None:
        """Give back what a slot holds of others' texts."""
        columns = self.columns
        if self.hot.status[slot] == ABSENT:
            self._gone -= 1
        for name, dictionary in zip(_SHARED, self.dictionaries, strict=True):
            dictionary.drop(int(getattr(columns, name)[slot]))
        self.names.drop()

    def _put_facts(self, slots: Array, facts_: Sequence[bytes]) -> None:
        packed = np.frombuffer(b"".join(facts_), FACTS)
        for name in _FACT_COLUMNS:
            getattr(self.columns, name)[slots] = packed[name]

    def _put_identity(self, slots: Array, nodes: NodeColumns) -> None:
        columns = self.columns
        columns.id[slots] = [int(node_id[3:], 16) for node_id in nodes.node_id]
        wallets = np.frombuffer(
            bytes.fromhex("".join([wallet[2:] for wallet in nodes.wallet])),
            np.dtype([("a", ">u8"), ("b", ">u8"), ("c", ">u4")]),
        )
        columns.wallet_a[slots] = wallets["a"]
        columns.wallet_b[slots] = wallets["b"]
        columns.wallet_c[slots] = wallets["c"]
        keys = b"".join([key.ljust(32, b"\0") for key in nodes.session_key])
        columns.session_key[slots] = np.frombuffer(keys, np.uint8).reshape(-1, 32)
        for name in ("session_until", "registered_at", "succeeded", "failed"):
            getattr(columns, name)[slots] = getattr(nodes, name)
        columns.seq[slots] = nodes.leases["seq"]
        columns.number[slots] = nodes.leases["number"]
        numbers = columns.number[slots]
        if (highest := int(numbers.max(initial=0))) >= len(self._by_number):
            grown = np.full(max(highest + 1, 2 * len(self._by_number)), -1, np.int32)
            grown[: len(self._by_number)] = self._by_number
            self._by_number = grown
        self._by_number[numbers[numbers > 0]] = slots[numbers > 0]

    def _put_leases(self, slots: Array, leases: Array, gone: Array) -> None:
        columns = self.columns
        for name in _LEASE_COLUMNS[2:]:
            getattr(columns, name)[slots] = leases[name]
        columns.status[slots[gone]] = ABSENT

    def _put_words(self, slots: Array, words: Sequence[str]) -> None:
        columns = self.columns
        parts = [text.rsplit(BETWEEN, 2) for text in words]
        # machines are of few kinds: what one has in common with others is looked up once
        kinds = Counter([part[0] for part in parts])
        entries_of = {
            kind: [
                dictionary.add(label, users)
                for dictionary, label in zip(self.dictionaries, kind.split(BETWEEN), strict=True)
            ]
            for kind, users in kinds.items()
        }
        shared = np.array([entries_of[part[0]] for part in parts], np.int32).reshape(-1, 4)
        for place, name in enumerate(_SHARED):
            getattr(columns, name)[slots] = shared[:, place]
        entries = self.names.extend([part[1].encode("utf-8", "surrogatepass") for part in parts])
        self.lower_names.extend([part[2].encode("utf-8", "surrogatepass") for part in parts])
        columns.name[slots] = entries
        if entries.stop > len(self._owners):
            grown = np.zeros(max(entries.stop, 2 * len(self._owners)), np.int32)
            grown[: len(self._owners)] = self._owners
            self._owners = grown
        self._owners[entries.start : entries.stop] = slots
        self._compact()

    def _compact(self) -> None:
        """Move texts together where most are of nodes that left or were renamed."""
        if self.names.wasteful:
            free = np.zeros(self.size, np.bool_)
            free[self._free] = True
            used = np.flatnonzero(~free)
            entries = self.columns.name[used].astype(np.int64)
            self.names.compact(entries)
            self.lower_names.compact(entries)
            self.columns.name[used] = np.arange(len(used))
            self._owners = used.astype(np.int32)
        for name, dictionary in zip(_SHARED, self.dictionaries, strict=True):
            if dictionary.texts.wasteful:
                dictionary.compact(getattr(self.columns, name))

    def _keep_records(self, slots: Array, records: Sequence[bytes]) -> None:
        kept = self._records
        self._record_bytes -= sum(map(getsizeof, kept[slots].tolist()))
        self._record_bytes += sum(map(getsizeof, records))
        for slot, record in zip(slots.tolist(), records, strict=True):
            kept[slot] = record


def _models(label: str) -> str:
    """As ``Facts.gpu``."""
    return "|".join(dict.fromkeys(map(squeeze, label.split(ITEMS))))
