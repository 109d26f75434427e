"""How much one client may ask of the market: counted per wallet, IPv4 address and IPv6 /64.

A sliding window in two counters, as many gateways have it: what was counted in the window before
weighs as much as it still overlaps the last ``seconds``. Windows lie on the clock, so several
instances count the same ones; those that are used noticeably are added up through the store twice a
second. An instance that is asked by a client for the first time lets an eighth of a limit pass
before it asks what the others saw.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from zlib import crc32

from computeswarm.core.clock import Clock
from computeswarm.core.durations import format_duration, parse_duration
from computeswarm.core.errors import BadRequest, ComputeSwarmError, ConfigError, TooManyRequests
from computeswarm.market.stores.protocol import Count, Store

SHARE_SECONDS = 0.5
SHARED_FROM = 8
"""A counter is shared from this part (1/8) of its limit on."""
MAX_KEYS = 50_000
"""Clients counted one by one in a window; those beyond share ``_CROWD`` counters."""
MAX_SHARED = 2_000
"""Counters added up in one round, the fullest first."""
_ROUNDING = 1e-6
"""Shares of a window are no exact numbers, and whoever waited as told has to pass."""
_CROWD = 1_024
_CROWD_FACTOR = 4


class Kind(StrEnum):
    """What is counted together."""

    READ = "read"
    REGISTER = "register"
    NEW = "new"
    """Nodes that were not known before: each is kept for a week at least."""
    SUBMIT = "submit"
    AUTH = "auth"
    """Calls whose authentication failed."""
    STREAM = "stream"
    """Live streams opened; how many are open at once is another limit."""


@dataclass(frozen=True, slots=True)
class Limit:
    """At most ``amount`` in any ``seconds``."""

    amount: int
    seconds: int

    def __str__(self) -> str:
        return f"{self.amount} in {format_duration(self.seconds)}"


DEFAULTS: Mapping[Kind, Limit] = {
    Kind.READ: Limit(1_000, 10),
    # a farm of a thousand machines behind one address comes back within a minute after an outage
    Kind.REGISTER: Limit(3_000, 60),
    Kind.NEW: Limit(3_000, 86_400),
    Kind.SUBMIT: Limit(600, 60),
    # so does one that all its sessions were lost to
    Kind.AUTH: Limit(3_000, 60),
    Kind.STREAM: Limit(120, 60),
}
_ENTRY = re.compile(r"([a-z]+)=(?:([0-9]{1,9})/([0-9a-z]+)|off)\Z", re.ASCII)


def read_limits(text: str) -> dict[Kind, Limit]:
    """The limits of a setting such as ``read=1000/10s, submit=off``; the others as they are.

    Raises:
        ConfigError: says which entry can't be read.
    """
    limits = dict(DEFAULTS)
    for entry in filter(None, (part.strip().lower() for part in text.split(","))):
        found = _ENTRY.match(entry)
        if found is None or found[1] not in set(Kind):
            raise _unreadable(entry)
        kind = Kind(found[1])
        if found[2] is None:
            limits.pop(kind, None)
            continue
        try:
            limits[kind] = Limit(int(found[2]), parse_duration(found[3]))
        except BadRequest:
            raise _unreadable(entry) from None
        if limits[kind].amount == 0 or limits[kind].seconds > 86_400:
            raise _unreadable(entry)
    return limits


def _unreadable(entry: str) -> ConfigError:
    return ConfigError(
        f"The setting limits: {entry[:60]!r} can't be read; write KIND=AMOUNT/TIME (up to 24h) such"
        f" as read=1000/10s, or KIND=off. Kinds: {', '.join(Kind)}."
    )


class _Counter:
    """One client in one window. ``told`` of ``mine`` is in the store's sum already."""

    __slots__ = ("mine", "others", "told")

    def __init__(self) -> None:
        self.mine = 0
        self.told = 0
        self.others = 0


class _Windows:
    """The counters of one kind: the window that runs, and the sums of the one before."""

    __slots__ = ("before", "limit", "now", "number")

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.number = -1
        self.now: dict[str, _Counter] = {}
        self.before: dict[str, int] = {}

    def at(self, moment: float) -> None:
        number = int(moment // self.limit.seconds)
        if number == self.number:
            return
        ended = self.now if number == self.number + 1 else {}
        self.before = {key: one.mine + one.others for key, one in ended.items()}
        self.now = {}
        self.number = number

    def overlap(self, moment: float) -> float:
        """The share of the window before that lies within the last ``seconds``."""
        seconds = self.limit.seconds
        return max(0.0, 1.0 - (moment - self.number * seconds) / seconds)

    def wait(self, key: str, cost: int, moment: float) -> float:
        """Seconds until ``cost`` fits, if nobody asks meanwhile."""
        seconds, amount = self.limit.seconds, self.limit.amount
        current = self.now.get(key)
        used = (current.mine + current.others if current else 0) + cost
        ends = (self.number + 1) * seconds - moment
        if used > amount:
            # the running window has to slide out as far as it is too much
            return ends + seconds * (1 - max(0, amount - cost) / max(1, used - cost))
        return max(0.0, ends - seconds * (amount - used) / max(1, self.before.get(key, 0)))


class Limits:
    """All limits of one instance. ``refused`` counts refusals by kind and whose limit it was."""

    def __init__(
        self,
        clock: Clock,
        limits: Mapping[Kind, Limit] = DEFAULTS,
        *,
        store: Store | None = None,
    ) -> None:
        self.refused: dict[str, int] = {}
        self._clock = clock
        self._kinds = {kind: _Windows(limit) for kind, limit in limits.items()}
        self._store = store
        self._task: asyncio.Task[None] | None = None

    def take(self, kind: Kind, key: str, cost: int = 1, *, whose: str = "address") -> None:
        """Count ``cost`` for a client. What is refused is not counted, so waiting always helps.

        Args:
            key: what ``address_key`` or ``wallet_key`` made.
            whose: for the answer: ``address`` or ``wallet``.

        Raises:
            TooManyRequests: with ``retry_after`` (seconds), ``limit`` (``read per address``),
                ``amount`` and ``seconds``.
        """
        windows = self._kinds.get(kind)
        if windows is None:
            return
        moment = self._clock.now()
        windows.at(moment)
        counter = windows.now.get(key)
        amount = windows.limit.amount
        if counter is None:
            if len(windows.now) >= MAX_KEYS:
                key, amount = f"~{crc32(key.encode()) % _CROWD}", amount * _CROWD_FACTOR
            counter = windows.now.setdefault(key, _Counter())
        used = counter.mine + counter.others + cost
        if windows.before and (past := windows.before.get(key)):
            used += past * windows.overlap(moment)  # type: ignore[assignment]
        if used > amount + _ROUNDING:
            self._refuse(kind, windows, key, cost, moment, whose)
        counter.mine += cost

    def limited(self, kind: Kind) -> bool:
        """Whether there is a limit on this kind."""
        return kind in self._kinds

    def spent(self, kind: Kind, key: str) -> bool:
        """Whether nothing more fits; counts nothing."""
        windows = self._kinds.get(kind)
        if windows is None:
            return False
        moment = self._clock.now()
        windows.at(moment)
        counter = windows.now.get(key)
        used = (counter.mine + counter.others if counter else 0) + 1
        return (
            used + windows.before.get(key, 0) * windows.overlap(moment)
            > windows.limit.amount + _ROUNDING
        )

    def start(self) -> None:
        """Begin to add up with the other instances, where there can be any."""
        if self._store is not None and self._store.shared:
            self._task = asyncio.create_task(self._share_forever(), name="market-limits")

    async def close(self) -> None:
        """Stop adding up."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def share(self) -> None:
        """Add up once.

        Raises:
            ComputeSwarmError: the store does not answer; nothing is forgotten meanwhile.
        """
        if self._store is None:
            return
        due: list[tuple[float, str, _Counter, Count]] = []
        moment = self._clock.now()
        for kind, windows in self._kinds.items():
            windows.at(moment)
            amount, seconds = windows.limit.amount, windows.limit.seconds
            until = float((windows.number + 2) * seconds)
            for key, counter in windows.now.items():
                if counter.mine * SHARED_FROM >= amount and not key.startswith("~"):
                    name = f"{kind}/{windows.number}/{key}"
                    count = Count(counter.mine - counter.told, until)
                    due.append((counter.mine / amount, name, counter, count))
        due.sort(key=lambda item: -item[0])
        due = due[:MAX_SHARED]
        if not due:
            return
        sums = await self._store.share({name: count for _, name, _, count in due})
        for _, name, counter, count in due:
            counter.told += count.amount
            counter.others = max(0, sums.get(name, 0) - counter.told)

    # inside

    def _refuse(
        self, kind: Kind, windows: _Windows, key: str, cost: int, moment: float, whose: str
    ) -> None:
        name = f"{kind} per {whose}"
        self.refused[name] = self.refused.get(name, 0) + 1
        wait = max(1, math.ceil(windows.wait(key, cost, moment)))
        limit = windows.limit
        raise TooManyRequests(
            f"Your {whose} has used up the market's limit on {kind} requests ({limit}); try again"
            f" in {format_duration(wait)}.",
            retry_after=wait,
            limit=name,
            amount=limit.amount,
            seconds=limit.seconds,
        )

    async def _share_forever(self) -> None:
        while True:
            await asyncio.sleep(SHARE_SECONDS)
            with suppress(ComputeSwarmError):  # each instance keeps its own count until it can
                await self.share()


def wallet_key(wallet: str) -> str:
    """A wallet, however its address is spelled."""
    return wallet.lower()
