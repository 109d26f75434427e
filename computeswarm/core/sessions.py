"""How a node's session with a market begins and ends: what the wallet signs, and the key agreed on.

A seller enrols with two statements of his wallet: the node's record, which anybody may copy and
check, and a ``NodeSession``, which names this market, this very record and a key pair made for this
session alone. The market answers with a key of its own, and both derive the MAC key of the calls
that follow (see ``core.market_auth``): ECDH on secp256k1 and HKDF-SHA256 (RFC 5869), over the node,
the number of the record and both public keys. Nothing that travels is enough to derive it, so
whoever records, copies or replays a registration gets no session, not even at the market itself.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Self

from coincurve import PrivateKey as _Secp
from coincurve import PublicKey as _SecpPublic
from pydantic import AfterValidator, Field, model_validator

from computeswarm.core.crypto import POINT_PATTERN, PrivateKey, hkdf_sha256
from computeswarm.core.errors import BadRequest, ConfigError
from computeswarm.core.ids import NodeIdText
from computeswarm.core.nodes import UNIX_SECONDS, Address, NodeRecord
from computeswarm.core.signing import Document, Signed, parse_json
from computeswarm.core.urls import server_name

SESSION_KIND = "node-session"
REVOCATION_KIND = "node-revocation"
PERMIT_KIND = "wallet-read"
PERMIT_HEADER = "ComputeSwarm-Permit"
MAX_SESSION_SECONDS = 86_400
MAX_PERMIT_SECONDS = 86_400
MAX_PERMIT_CHARS = 4_096

_LABEL = b"computeswarm node session v1"
_NO_POINT = "The session's key is no point of secp256k1; make a new key pair and register again."

ServerName = Annotated[str, Field(max_length=300), AfterValidator(server_name)]
"""A market's address in its one spelling, see ``core.urls.server_name``."""
Point = Annotated[str, Field(pattern=POINT_PATTERN)]
"""A public key: a compressed point in hex."""


def _check_span(seconds: int, most: int) -> None:
    if not 0 < seconds <= most:
        raise ValueError(f"it ends after it begins, at most {most} seconds later")


class NodeSession(Document):
    """What a wallet says of a session it begins; a later one of the same node ends it."""

    market: ServerName
    """The market it is for, as the seller calls it: at another market it is worth nothing."""
    node_id: NodeIdText
    record_hash: str = Field(pattern=r"^0x[0-9a-f]{64}$")
    """``Signed.digest`` of the record that comes with it."""
    session_key: Point
    seq: int = Field(ge=0, lt=2**53)
    """The record's own."""
    issued_at: UNIX_SECONDS
    expires_at: UNIX_SECONDS

    @model_validator(mode="after")
    def _short(self) -> Self:
        _check_span(self.expires_at - self.issued_at, MAX_SESSION_SECONDS)
        return self


class Enrolment(Document):
    """The body of a registration: a ``node-record`` and a ``node-session`` of one wallet."""

    record: Signed
    session: Signed


class NodeRevocation(Document):
    """A wallet's word that a node of its own is off: no record up to ``seq`` counts any more.

    It names no market: whoever holds it may take it to any. It stays in force until the wallet
    signs a record with a higher number.
    """

    wallet: Address
    node_id: NodeIdText
    seq: int = Field(ge=0, lt=2**53)
    issued_at: UNIX_SECONDS


class WalletRead(Document):
    """A wallet's permit to read at one market what concerns it, for whoever presents it."""

    wallet: Address
    market: ServerName
    issued_at: UNIX_SECONDS
    expires_at: UNIX_SECONDS

    @model_validator(mode="after")
    def _short(self) -> Self:
        _check_span(self.expires_at - self.issued_at, MAX_PERMIT_SECONDS)
        return self


class PendingSession:
    """The seller's half of a session: its key pair was made for it and is kept in memory only."""

    __slots__ = ("_secret", "session")

    def __init__(self, session: NodeSession, secret: _Secp) -> None:
        self.session = session
        self._secret = secret

    def mac_key(self, market_key: str) -> bytes:
        """The 32 bytes that both sides know once the market has answered with its public key.

        Raises:
            BadRequest: ``market_key`` is no public key.
        """
        return _agree(self._secret, market_key, self.session, market_key)


def enrol(
    key: PrivateKey,
    record: Signed,
    market: str,
    now: float,
    *,
    seconds: int = MAX_SESSION_SECONDS,
    secret: bytes | None = None,
) -> tuple[Enrolment, PendingSession]:
    """Sign a session for a record of this wallet's own.

    Args:
        market: the market's address, as this seller was told it.
        now: unix seconds.
        seconds: how long the session lasts at most.
        secret: of the session's key pair; a fresh one by default.

    Raises:
        ConfigError: ``market`` is no address.
    """
    listed, mine = NodeRecord.model_validate(record.document), _Secp(secret)
    session = NodeSession(
        market=_named(market),
        node_id=listed.node_id,
        record_hash="0x" + record.digest().hex(),
        session_key=_point(mine),
        seq=listed.seq,
        issued_at=int(now),
        expires_at=int(now) + seconds,
    )
    signed = Signed.make(key, SESSION_KIND, record.chain_id, session)
    return Enrolment(record=record, session=signed), PendingSession(session, mine)


def _named(market: str) -> str:
    try:
        return server_name(market)
    except ValueError as error:
        raise ConfigError(f"The market's address: {error}; correct it.") from None


def answer_session(session: NodeSession, secret: bytes | None = None) -> tuple[str, bytes]:
    """The market's half: its public key for the reply, and the 32 bytes that both sides know.

    Args:
        secret: of the key pair; a fresh one by default, which nobody keeps.

    Raises:
        BadRequest: the session's key is no public key.
    """
    mine = _Secp(secret)
    public = _point(mine)
    return public, _agree(mine, session.session_key, session, public)


def _point(secret: _Secp) -> str:
    return secret.public_key.format(compressed=True).hex()


def _agree(mine: _Secp, theirs: str, session: NodeSession, market_key: str) -> bytes:
    try:
        shared = mine.ecdh(_SecpPublic(bytes.fromhex(theirs)).format())
    except ValueError:
        raise BadRequest(_NO_POINT) from None
    # every part but the last has a fixed length, so no two sessions have the same context
    context = b"".join(
        (
            session.node_id.encode(),
            session.seq.to_bytes(8),
            bytes.fromhex(session.session_key),
            bytes.fromhex(market_key),
        )
    )
    return hkdf_sha256(shared, _LABEL, context)


def make_permit(key: PrivateKey, chain_id: int, market: str, now: float) -> str:
    """A permit to read the wallet's jobs at ``market`` for a day, as the header's value.

    It shows what the wallet bought and sold to whoever holds it, so it is for that market only.

    Raises:
        ConfigError: ``market`` is no address.
    """
    permit = WalletRead(
        wallet=key.address,
        market=_named(market),
        issued_at=int(now),
        expires_at=int(now) + MAX_PERMIT_SECONDS,
    )
    signed = Signed.make(key, PERMIT_KIND, chain_id, permit)
    return base64.b64encode(signed.model_dump_json().encode()).decode()


def read_permit(text: str) -> Signed:
    """The signed permit of a header, not checked yet.

    Raises:
        BadRequest: it can't be read.
    """
    if len(text) > MAX_PERMIT_CHARS:
        raise BadRequest(f"{PERMIT_HEADER} has at most {MAX_PERMIT_CHARS} characters.")
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest(f"{PERMIT_HEADER} is base64 of a signed {PERMIT_KIND}.") from None
    return parse_json(Signed, raw)
