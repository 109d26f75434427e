from __future__ import annotations

import base64

import pytest
from Crypto.Hash import SHA256
from Crypto.Protocol.KDF import HKDF

from computeswarm.core.crypto import PrivateKey, hkdf_sha256
from computeswarm.core.errors import BadRequest, ConfigError, Unauthorized
from computeswarm.core.nodes import RECORD_KIND, Hardware, NodeRecord
from computeswarm.core.sessions import (
    MAX_SESSION_SECONDS,
    PERMIT_KIND,
    SESSION_KIND,
    NodeSession,
    WalletRead,
    answer_session,
    enrol,
    make_permit,
    read_permit,
)
from computeswarm.core.signing import Signed

WALLET = PrivateKey(b"\x03" * 32)
OURS, THEIRS = b"\x01" * 32, b"\x02" * 32
NOW = 1_800_000_000


def record(**changes: object) -> Signed:
    values: dict[str, object] = {
        "wallet": WALLET.address,
        "name": "rig",
        "endpoint": "http://127.0.0.1:9/",
        "hardware": Hardware(cpu_model="x", cpu_cores=2, memory_bytes=2**33),
        "isolation": "namespace",
        "price_per_hour": 360_000,
        "slice_seconds": 60,
        "max_job_seconds": 600,
        "seq": 7,
        "issued_at": NOW,
    }
    return Signed.make(WALLET, RECORD_KIND, 84532, NodeRecord.model_validate(values | changes))


def test_the_first_block_of_rfc_5869() -> None:
    """Appendix A.1 and A.3; and the library that sealed boxes were made with before."""
    first = hkdf_sha256(b"\x0b" * 22, bytes(range(13)), bytes(range(0xF0, 0xFA)))
    assert first.hex() == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"
    third = hkdf_sha256(b"\x0b" * 22, b"", b"")
    assert third.hex() == "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
    for salt in (b"", b"salt", b"x" * 100):
        assert hkdf_sha256(b"key", salt, b"for") == HKDF(b"key", 32, salt, SHA256, 1, b"for")


def test_both_sides_reckon_the_same_key_and_it_never_changes() -> None:
    """Fixed, as sellers and markets of different versions have to agree."""
    enrolment, pending = enrol(WALLET, record(), "HTTPS://Market.test:443/", NOW, secret=OURS)
    session = enrolment.session.open(SESSION_KIND, NodeSession, wallet=WALLET.address)
    assert session == pending.session
    assert session.market == "https://market.test"
    assert (session.seq, session.expires_at - session.issued_at) == (7, MAX_SESSION_SECONDS)
    market_key, key = answer_session(session, THEIRS)
    assert pending.mac_key(market_key) == key
    assert market_key == "024d4b6cd1361032ca9bd2aeb9d900aa4d45d9ead80ac9423374c451a7254d0766"
    assert key.hex() == "234d06227ca5c973f94b89855a7ed05e40f09d88f89900f84cfbc1ff2fa41c85"
    assert (
        session.record_hash == "0xfc0a6229dadcf555d10c19f76b49485a815a366bbce5783351afadae906238ae"
    )


def test_the_key_belongs_to_this_very_session() -> None:
    _, pending = enrol(WALLET, record(), "http://m", NOW, secret=OURS)
    session = pending.session
    market_key, key = answer_session(session, THEIRS)
    changes: list[dict[str, object]] = [{"seq": 8}, {"node_id": "nd-" + "0" * 12}]
    for change in changes:
        assert answer_session(session.model_copy(update=change), THEIRS)[1] != key
    assert answer_session(session)[1] != key
    assert answer_session(session)[0] != answer_session(session)[0] != market_key
    _, other = enrol(WALLET, record(), "http://m", NOW)
    assert other.session.session_key != session.session_key
    assert other.mac_key(market_key) != key


def test_a_key_that_is_no_point_is_refused() -> None:
    _, pending = enrol(WALLET, record(), "http://m", NOW)
    for wrong in ("02" + "00" * 32, "02" + "ff" * 32):
        with pytest.raises(BadRequest, match="no point"):
            pending.mac_key(wrong)
        session = pending.session.model_copy(update={"session_key": wrong})
        with pytest.raises(BadRequest, match="register again"):
            answer_session(session)
    with pytest.raises(ConfigError, match="address"):
        enrol(WALLET, record(), "market", NOW)


@pytest.mark.parametrize("seconds", [-1, 0, MAX_SESSION_SECONDS + 1])
def test_a_session_or_permit_lasts_a_day_at_most(seconds: int) -> None:
    with pytest.raises(ValueError, match="after it begins"):
        enrol(WALLET, record(), "http://m", NOW, seconds=seconds)
    with pytest.raises(ValueError, match="after it begins"):
        WalletRead(
            wallet=WALLET.address, market="http://m", issued_at=NOW, expires_at=NOW + seconds
        )


def test_a_permit_is_the_wallets_own_for_one_market() -> None:
    text = make_permit(WALLET, 84532, "HTTP://M:80/", NOW)
    permit = read_permit(text).open(PERMIT_KIND, WalletRead, wallet=WALLET.address)
    assert (permit.wallet, permit.market) == (WALLET.address, "http://m")
    with pytest.raises(Unauthorized):
        read_permit(text).open(PERMIT_KIND, WalletRead, wallet=PrivateKey(OURS).address)
    padded = base64.b64encode(base64.b64decode(text) + b" " * 4_000).decode()
    for wrong in ("", "!", "e30=", "é", padded):
        with pytest.raises(BadRequest):
            read_permit(wrong)
