"""How a server's events are written to stderr: lines for people, or one JSON object a line.

Whoever runs the server keeps and rotates them (journald, a container's engine).
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, TextIO

from computeswarm.core.errors import ConfigError
from computeswarm.core.logs import ROOT, EventLogger, get_logger
from computeswarm.core.text import clean_line
from computeswarm.server.request_id import current

__all__ = ["EventLogger", "JsonFormatter", "TextFormatter", "get_logger", "setup_logging"]

_LONGEST = 2_000
"""Letters of one value."""


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, event, and the event's own fields.

    JSON escapes control characters, so a stranger's text can't forge a line or reach a terminal.
    """

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": _stamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": _cut(record.getMessage()),
            **{name: _cut(value) for name, value in _fields(record).items()},
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


class TextFormatter(logging.Formatter):
    """``time LEVEL event name=value …``; strangers' text is cleaned, and quoted where it has spaces
    or could pass for another field."""

    def format(self, record: logging.LogRecord) -> str:
        fields = [f"{name}={_quoted(value)}" for name, value in _fields(record).items()]
        event = clean_line(record.getMessage(), limit=_LONGEST)
        line = " ".join([_stamp(record), f"{record.levelname:<7}", event, *fields])
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def setup_logging(
    level: str = "info", stream: TextIO | None = None, *, log_format: str = "text"
) -> None:
    """Send all events to ``stream`` (stderr by default) from ``level`` on.

    Raises:
        ConfigError: no such format, or no such level.
    """
    formatters: dict[str, type[logging.Formatter]] = {"text": TextFormatter, "json": JsonFormatter}
    if log_format not in formatters:
        raise ConfigError(f"log_format is text or json, not {log_format[:40]!r}.")
    if level.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise ConfigError(f"log_level is debug, info, warning or error, not {level[:40]!r}.")
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(formatters[log_format]())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # other people's libraries
    logging.getLogger(ROOT).setLevel(level.upper())


def _stamp(record: logging.LogRecord) -> str:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{stamp}.{int(record.msecs):03d}Z"


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """The event's own, and which request it happened in."""
    fields: dict[str, Any] = getattr(record, "fields", {})
    request = current.get()
    return fields if request is None else {**fields, "request_id": str(request)}


def _cut(value: Any) -> Any:
    return value[:_LONGEST] if isinstance(value, str) else value


def _quoted(value: Any) -> str:
    text = clean_line(str(value), limit=_LONGEST)
    plain = text and not any(letter in text for letter in ' "=\\')
    return text if plain else json.dumps(text, ensure_ascii=False)
