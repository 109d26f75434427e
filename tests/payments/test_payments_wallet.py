"""The wallet's file: owner-only, whole or absent, never overwritten."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import WalletError, WrongPassword
from computeswarm.core.imports import import_late
from computeswarm.core.settings import Settings
from computeswarm.payments.wallet import (
    create_wallet,
    import_wallet,
    load_wallet,
    resolve_password,
    wallet_address,
)


def test_a_wallet_is_private_standard_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "state" / "wallet.json"
    key = create_wallet(path, "correct horse")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [child.name for child in path.parent.iterdir()] == ["wallet.json"]
    assert load_wallet(path, "correct horse").secret == key.secret
    assert wallet_address(path) == key.address
    document = json.loads(path.read_text())
    assert document["version"] == 3
    assert document["crypto"]["kdf"] == "scrypt"
    assert document["crypto"]["kdfparams"]["n"] == 2**18
    assert (
        bytes(import_late("eth_account").Account.decrypt(document, "correct horse")) == key.secret
    )
    with pytest.raises(WrongPassword):
        load_wallet(path, "wrong")
    before = path.read_bytes()
    for again in (
        lambda: create_wallet(path, "other"),
        lambda: import_wallet(path, PrivateKey.generate().secret.hex(), "other"),
    ):
        with pytest.raises(WalletError, match="already"):
            again()
    assert path.read_bytes() == before


def test_a_damaged_wallet_is_said_to_be_damaged(tmp_path: Path) -> None:
    path = tmp_path / "wallet.json"
    key = PrivateKey.generate()
    import_wallet(path, "0x" + key.secret.hex(), "pw")
    good = json.loads(path.read_text())
    other = PrivateKey.generate().address[2:].lower()
    for bad in (
        b"",
        b"[1]",
        b"\xff{",
        json.dumps({**good, "crypto": {}}).encode(),
        json.dumps({**good, "address": "zz"}).encode(),
        json.dumps({**good, "address": other}).encode(),
        json.dumps({**good, "version": 9}).encode(),
    ):
        path.write_bytes(bad)
        with pytest.raises(WalletError, match="damaged"):
            load_wallet(path, "pw")


@pytest.mark.parametrize("text", ["", "0x12", "zz" * 32, "00" * 32, "ff" * 32])
def test_what_is_no_key_is_refused_without_being_repeated(tmp_path: Path, text: str) -> None:
    with pytest.raises(WalletError) as caught:
        import_wallet(tmp_path / "wallet.json", text, "pw")
    assert not text or text not in caught.value.detail
    assert not (tmp_path / "wallet.json").exists()


def test_the_password_comes_from_file_then_environment_then_prompt(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("from file\n")
    environ = {"COMPUTESWARM_PASSWORD": "from env"}
    with_file = Settings(password_file=str(file))
    assert resolve_password(with_file, environ=environ) == "from file"
    assert resolve_password(Settings(), environ=environ, prompt=lambda: "asked") == "from env"
    assert resolve_password(Settings(), environ={}, prompt=lambda: "asked") == "asked"
    for settings in (Settings(), Settings(password_file=str(tmp_path / "none"))):
        with pytest.raises(WalletError):
            resolve_password(settings, environ={})
