"""The extension ``payment-identifier``: a client names its payment, and may then repeat it safely.

Source: the x402 specification's payment_identifier. The same id with the same payment gets the
first reply; with another payment it is refused (409) before any money moves.

A signature of EIP-3009 can be read off the chain, and a repeated payment is answered as the first
was, secrets included. So the 402 also says an ``echo``, random for each answer, among what clients
have to send back (section 5.1.2 of the specification). Neither it nor an id ever comes on the
chain: who only reads the chain can't repeat a payment that came with one. Version 1 has no place
for either, so its clients should name an access key of their own.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from computeswarm.core.errors import BadRequest, Conflict
from computeswarm.core.x402 import HEADER_PAYMENT_V2, decode_header
from computeswarm.payments.storage import connect, transaction

PAYMENT_IDENTIFIER = "payment-identifier"
_ID = re.compile(r"[a-zA-Z0-9_-]{16,128}")
_MAX_ECHO = 128
_KEEP_SECONDS = 30 * 86_400
_PRUNE_EVERY = 256
_SCHEMA = """
CREATE TABLE IF NOT EXISTS marks (
    payment TEXT PRIMARY KEY,
    payer TEXT NOT NULL,
    id TEXT NOT NULL,
    mark BLOB NOT NULL,
    subject TEXT NOT NULL,
    at REAL NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS marks_by_id ON marks (payer, id) WHERE id != '';
CREATE INDEX IF NOT EXISTS marks_by_time ON marks (at);
"""
_ID_SCHEMA = {"type": "string", "minLength": 16, "maxLength": 128, "pattern": "^[a-zA-Z0-9_-]+$"}


def declaration() -> dict[str, Any]:
    """What a 402 says under the extension's name, with a fresh echo."""
    return {
        "info": {"required": False, "echo": secrets.token_hex(16)},
        "schema": {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {
                "required": {"type": "boolean"},
                "id": _ID_SCHEMA,
                "echo": {"type": "string"},
            },
            "required": ["required"],
        },
    }


@dataclass(frozen=True, slots=True)
class Mark:
    """What a payment carries that never comes on the chain; either may be empty."""

    id: str = ""
    echo: str = ""

    @property
    def digest(self) -> bytes:
        """What is kept of it."""
        return hashlib.sha256(f"{self.id}|{self.echo}".encode()).digest()


def read_mark(headers: Mapping[str, str]) -> Mark:
    """The id and the echo of a presented payment (version 1 has none).

    Raises:
        BadRequest: an id that is none by the standard.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    header = lower.get(HEADER_PAYMENT_V2.lower())
    extensions = decode_header(header).get("extensions") if header else None
    extension = extensions.get(PAYMENT_IDENTIFIER) if isinstance(extensions, dict) else None
    info = extension.get("info") if isinstance(extension, dict) else None
    if not isinstance(info, dict):
        return Mark()
    found, echo = info.get("id"), info.get("echo")
    if found is not None and not (isinstance(found, str) and _ID.fullmatch(found)):
        raise BadRequest(
            "The payment's id is not of 16 to 128 letters, digits, hyphens and underscores."
        )
    told = isinstance(echo, str) and echo.isascii() and len(echo) <= _MAX_ECHO
    return Mark(str(found or ""), str(echo) if told else "")


def identified(extensions: Mapping[str, Any] | None, name: str) -> dict[str, Any]:
    """What a client sends back: all that the server said, and ``name`` where it takes ids."""
    found = dict(extensions or {})
    offered = found.get(PAYMENT_IDENTIFIER)
    if isinstance(offered, dict):
        info = offered.get("info")
        given = info if isinstance(info, dict) else {}
        found[PAYMENT_IDENTIFIER] = offered | {"info": given | {"id": name}}
    return found


@dataclass(frozen=True, slots=True)
class Holder:
    """The payment (``payer:nonce``) that an id belongs to, and what it pays for."""

    payment: str
    subject: str


Failed = Callable[[Holder], bool]
"""Whether a payment has surely not paid, and so gives up its id."""


class Marks:
    """Which mark each payment first came with; kept for thirty days.

    Only payments with a good signature are written down, so nobody uses up another's ids, and each
    row has cost its payer a payment.
    """

    def __init__(self, path: Path) -> None:
        self._db = connect(path, _SCHEMA)
        self._added = 0

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def check(self, payer: str, payment: str, mark: Mark, *, failed: Failed) -> None:
        """Whether a payment may come with this mark.

        Raises:
            Conflict: the id belongs to another payment, or the payment came with another mark.
        """
        payment = payment.lower()
        row = self._one("payment = ?", payment)
        if row is not None and row["mark"] != mark.digest:
            raise Conflict("This payment came with another id or echo; repeat it as it was.")
        holder = self._one("payer = ? AND id = ?", payer.lower(), mark.id) if mark.id else None
        if holder is None or holder["payment"] == payment:
            return
        if not failed(Holder(holder["payment"], holder["subject"])):
            raise Conflict("This id belongs to another payment; take a new id for a new payment.")

    def keep(
        self,
        payer: str,
        payment: str,
        mark: Mark,
        subject: str,
        *,
        now: float,
        failed: Failed,
        synced: bool = True,
    ) -> None:
        """Write down the mark of a payment whose signature is good, before money moves.

        Args:
            synced: it survives a power cut as well, not only the end of this process. Only where
                the mark guards a secret is that worth a wait for the disk.

        Raises:
            Conflict: as ``check``; another request was faster.
        """
        self.check(payer, payment, mark, failed=failed)
        self._db.execute(f"PRAGMA synchronous={'FULL' if synced else 'NORMAL'}")
        with transaction(self._db) as db:
            db.execute(  # replaces a failed payment that had the id, too
                "INSERT OR REPLACE INTO marks VALUES (?, ?, ?, ?, ?, ?)",
                (payment.lower(), payer.lower(), mark.id, mark.digest, subject, now),
            )
            self._added += 1
            if self._added % _PRUNE_EVERY == 0:
                db.execute("DELETE FROM marks WHERE at < ?", (now - _KEEP_SECONDS,))

    def _one(self, where: str, *values: object) -> Any:
        query = f"SELECT * FROM marks WHERE {where}"  # noqa: S608 - our own words
        return self._db.execute(query, values).fetchone()
