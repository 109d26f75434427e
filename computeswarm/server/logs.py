"""Structured events on stderr: one JSON object a line, through the standard library's logging."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, TextIO

_ROOT = "computeswarm"


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
    return EventLogger(logging.getLogger(f"{_ROOT}.{name}"))


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, event, and the event's own fields.

    JSON escapes control characters, so a stranger's text can't forge a line or reach a terminal.
    """

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry: dict[str, Any] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def setup_logging(level: str = "info", stream: TextIO | None = None) -> None:
    """Send all events to ``stream`` (stderr by default) from ``level`` on."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # other people's libraries
    logging.getLogger(_ROOT).setLevel(level.upper())
