"""Who listens: grouped by what they are told, so that it is put together once for each group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from computeswarm.core.changes import Topic
from computeswarm.core.errors import TooManyRequests
from computeswarm.market.live.subscription import Subscription
from computeswarm.market.live.views import View, Views

MAX_READERS = 1_000
"""Half of the connections that a server takes: sellers need the others."""
MAX_PER_ADDRESS = 50
"""A company behind one address may watch on many screens."""
_BUSY_SECONDS = 30


@dataclass(slots=True)
class Group:
    """Readers who are told the same, but for the jobs of their wallets."""

    topics: frozenset[Topic]
    view: View | None
    """None shows all nodes."""
    members: set[Subscription] = field(default_factory=set)


class Readers:
    """All readers, overall and by address no more than the machine can serve."""

    def __init__(self, *, most: int = MAX_READERS, per_address: int = MAX_PER_ADDRESS) -> None:
        self.views = Views()
        self.turned_away = 0
        self._most, self._per_address = most, per_address
        self._groups: dict[tuple[frozenset[Topic], View | None], Group] = {}
        self._wallets: dict[str, set[Subscription]] = {}
        self._of: dict[Subscription, Group] = {}
        self._addresses: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._of)

    def __iter__(self) -> Iterator[Subscription]:
        return iter(tuple(self._of))

    def groups(self) -> list[Group]:
        return list(self._groups.values())

    def wallets(self) -> dict[str, set[Subscription]]:
        """Readers of jobs, by the wallet whose jobs they read of."""
        return self._wallets

    def check_room(self, address: str) -> None:
        """Whether one more may listen.

        Raises:
            TooManyRequests: too many do, overall or from this address.
        """
        if len(self._of) >= self._most:
            sentence = "Too many watch this market now; try again in half a minute, or search."
        elif self._addresses[address] >= self._per_address:
            sentence = f"Your address has {self._per_address} streams open; close one of them."
        else:
            return
        self.turned_away += 1
        raise TooManyRequests(sentence, retry_after=_BUSY_SECONDS, limit="stream")

    def add(self, one: Subscription) -> None:
        interest = one.interest
        view = None if interest.query is None else self.views.enter(interest.query)
        key = (interest.topics - {Topic.JOBS}, view)
        group = self._groups.setdefault(key, Group(*key))
        group.members.add(one)
        self._of[one] = group
        if interest.wallet:
            self._wallets.setdefault(interest.wallet, set()).add(one)
        self._addresses[one.address] += 1

    def remove(self, one: Subscription) -> bool:
        """False where it was not here (any more)."""
        group = self._of.pop(one, None)
        if group is None:
            return False
        group.members.discard(one)
        if not group.members:
            del self._groups[group.topics, group.view]
        if group.view is not None:
            self.views.leave(group.view)
        if wallet := one.interest.wallet:
            self._wallets[wallet].discard(one)
            if not self._wallets[wallet]:
                del self._wallets[wallet]
        self._addresses[one.address] -= 1
        if not self._addresses[one.address]:
            del self._addresses[one.address]
        return True
