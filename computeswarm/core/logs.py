"""Named events with fields, through the standard library's logging; who shows them is set above.

An event's fields are ids, amounts, states and times: never a key, a token, a secret or what a job
printed.
"""

from __future__ import annotations

import logging
from typing import Any

ROOT = "computeswarm"


class EventLogger:
    """Logs named events with fields: ``log.info("node_registered", node_id=…)``."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def debug(self, event: str, **fields: Any) -> None:
        self._emit(logging.DEBUG, event, None, fields)

    def info(self, event: str, **fields: Any) -> None:
        self._emit(logging.INFO, event, None, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._emit(logging.WARNING, event, None, fields)

    def error(self, event: str, *, exc: BaseException | None = None, **fields: Any) -> None:
        """An event somebody should look at; ``exc`` adds its traceback."""
        self._emit(logging.ERROR, event, exc, fields)

    def _emit(
        self, level: int, event: str, exc: BaseException | None, fields: dict[str, Any]
    ) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, exc_info=exc, extra={"fields": fields})


def get_logger(name: str) -> EventLogger:
    """The logger of a part of the house, such as ``market``."""
    return EventLogger(logging.getLogger(f"{ROOT}.{name}"))
