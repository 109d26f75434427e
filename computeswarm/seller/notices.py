"""What happened lately, for the owner's screen."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from computeswarm.core.clock import Clock
from computeswarm.core.logs import get_logger
from computeswarm.core.text import clean_line
from computeswarm.seller.owner import EventLevel, OwnerEvent

_KEPT = 200
_log = get_logger("seller")
_LOG: dict[EventLevel, Callable[..., None]] = {
    "info": _log.info,
    "good": _log.info,
    "warning": _log.warning,
    "error": _log.error,
}


class Notices:
    """The last 200 events. A repetition of the last one is not told again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._events: deque[OwnerEvent] = deque(maxlen=_KEPT)

    def tell(self, text: str, level: EventLevel = "info") -> None:
        """Add an event; strangers' text in it is cleaned."""
        line = clean_line(text, limit=300)
        if self._events and self._events[-1].text == line:
            return
        self._events.append(OwnerEvent(at=self._clock.now(), level=level, text=line))
        _LOG[level]("notice", text=line)

    def recent(self) -> tuple[OwnerEvent, ...]:
        """Oldest first."""
        return tuple(self._events)
