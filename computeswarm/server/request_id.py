"""Which request the running code works for, so that events and answers can name it.

An id is made only where somebody asks for it: most requests go by unnamed, and cost nothing.
"""

from __future__ import annotations

import re
import secrets
from contextvars import ContextVar

HEADER = "X-Request-Id"
_GOOD = re.compile(r"[A-Za-z0-9._-]{1,64}\Z", re.ASCII)


class RequestName:
    """The id of one request: the client's own where it is a decent one, else made when asked."""

    __slots__ = ("_given", "_made")

    def __init__(self, given: str | None) -> None:
        self._given = given
        self._made = ""

    @property
    def known(self) -> bool:
        """Whether anybody has seen it: the client who sent it, or a line of the log."""
        return self._given is not None or bool(self._made)

    def __str__(self) -> str:
        if not self._made:
            given = self._given
            good = given is not None and _GOOD.match(given)
            self._made = given if good and given is not None else secrets.token_hex(8)
        return self._made


current: ContextVar[RequestName | None] = ContextVar("request", default=None)
"""Set while a request is handled, and in the tasks that its handler starts."""
