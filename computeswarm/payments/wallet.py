"""The wallet on disk: an Ethereum keystore (Web3 Secret Storage, version 3).

The file is readable by its owner only, is written whole or not at all, and is never overwritten:
a key that is gone takes its money along.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from computeswarm.core.chains import ChainInfo
from computeswarm.core.crypto import PrivateKey, is_address, same_address, to_checksum
from computeswarm.core.errors import StorageFull, WalletError, WrongPassword
from computeswarm.core.imports import import_late
from computeswarm.core.settings import ENV_PREFIX, Settings

MIN_REAL_PASSWORD = 10
"""Characters. The keystore's key derivation makes each guess cost a second."""
_MAX_BYTES = 64 * 1024


def create_wallet(path: Path, password: str) -> PrivateKey:
    """Make a new key and store it under ``password``.

    Raises:
        WalletError: there is a wallet already, or the password is empty.
        StorageFull: the file can't be written.
    """
    return _store(path, PrivateKey.generate(), password)


def import_wallet(path: Path, key_hex: str, password: str) -> PrivateKey:
    """Store an existing key, given as 64 hex digits, under ``password``.

    Raises:
        WalletError: not a key, there is a wallet already, or the password is empty.
        StorageFull: the file can't be written.
    """
    return _store(path, parse_key(key_hex), password)


def parse_key(key_hex: str) -> PrivateKey:
    """A private key as a person types it: 64 hex digits, with or without ``0x``.

    Raises:
        WalletError: it is none; the sentence does not repeat it.
    """
    try:
        return PrivateKey.from_hex(key_hex)
    except ValueError as error:
        raise WalletError(f"That is not a private key: {error}.") from None


def load_wallet(path: Path, password: str) -> PrivateKey:
    """Unlock the wallet. Takes about a second: the key derivation is slow on purpose.

    Raises:
        WrongPassword: the password does not fit.
        WalletError: there is no wallet, or the file is damaged.
    """
    document = _read(path)
    try:
        key = PrivateKey(_keyfile().decode_keyfile_json(document, password.encode()))
    except ValueError as error:
        if "mac" in str(error).lower():
            raise WrongPassword(f"The password does not open {path}; try again.") from None
        raise _damaged(path) from None
    except (KeyError, TypeError, NotImplementedError, AttributeError, MemoryError):
        raise _damaged(path) from None
    if not same_address(key.address, _address_in(path, document)):
        raise _damaged(path)
    return key


def open_wallet(settings: Settings, path: Path, password: str) -> PrivateKey:
    """Unlock the wallet to sign, pay or sell on the network of these settings.

    Raises:
        RealMoneyRefused: its money is real, and that is not allowed.
        WalletError: it is, and everybody knows this key; or as ``load_wallet``.
    """
    chain = settings.spending_chain()
    key = load_wallet(path, password)
    if chain.real_money and _everybody_knows(key):
        raise WalletError(
            f"Everybody knows the key of {key.address}: it is one of the local chain's. Make "
            f"another wallet for {chain.title} with `computeswarm wallet new`."
        )
    return key


def check_new_password(chain: ChainInfo, password: str) -> None:
    """Whether a new wallet may be kept under it, on this network.

    Only new ones: nobody is ever kept from money that he has by a rule on passwords.

    Raises:
        WalletError: too short for real money.
    """
    if chain.real_money and len(password) < MIN_REAL_PASSWORD:
        raise WalletError(
            f"A wallet for {chain.title} holds real money; choose a password of at least "
            f"{MIN_REAL_PASSWORD} characters."
        )


def wallet_address(path: Path) -> str:
    """The wallet's address, which needs no password.

    Raises:
        WalletError: there is no wallet, or the file is damaged.
    """
    return _address_in(path, _read(path))


def resolve_password(
    settings: Settings,
    *,
    prompt: Callable[[], str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> str:
    """The password: from ``password_file``, else ``COMPUTESWARM_PASSWORD``, else the prompt.

    Raises:
        WalletError: none of them has one, or the file can't be read.
    """
    environ = os.environ if environ is None else environ
    if settings.password_file:
        path = Path(settings.password_file).expanduser()
        try:
            with path.open("rb") as file:
                password = file.read(_MAX_BYTES).decode().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise WalletError(f"The password file {path} can't be read: {error}.") from None
    else:
        password = environ.get(f"{ENV_PREFIX}PASSWORD", "") or (prompt() if prompt else "")
    if not password:
        raise WalletError(
            "The wallet needs its password; set COMPUTESWARM_PASSWORD or password_file."
        )
    return password


def _everybody_knows(key: PrivateKey) -> bool:
    from computeswarm.chain.devnet.keys import dev_keys, faucet_key  # needs the local chain's parts

    return any(same_address(key.address, known.address) for known in (*dev_keys(), faucet_key()))


def _keyfile() -> Any:
    return import_late("eth_keyfile.keyfile")  # 0.1 s


def _store(path: Path, key: PrivateKey, password: str) -> PrivateKey:
    if not password:
        raise WalletError("A wallet needs a password; choose one.")
    if path.exists():
        raise _exists(path)
    document = _keyfile().create_keyfile_json(
        key.secret, password.encode(), version=3, kdf="scrypt"
    )
    document["address"] = key.address[2:].lower()
    _write_new(path, json.dumps(document).encode())
    return key


def _write_new(path: Path, data: bytes) -> None:
    """Whole or not at all, on the disk, and only where nothing is yet."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)  # unlike a rename, this fails where a file is
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError:
        raise _exists(path) from None
    except OSError as error:
        raise StorageFull(f"The wallet {path} can't be written: {error.strerror}.") from None
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(_MAX_BYTES))
    except FileNotFoundError:
        raise WalletError(
            f"There is no wallet at {path}; make one with 'computeswarm wallet new'."
        ) from None
    except OSError as error:
        raise WalletError(f"The wallet {path} can't be read: {error.strerror}.") from None
    except (ValueError, RecursionError):
        raise _damaged(path) from None
    if not isinstance(document, dict):
        raise _damaged(path)
    return document


def _address_in(path: Path, document: dict[str, Any]) -> str:
    address = "0x" + str(document.get("address", "")).removeprefix("0x")
    if not is_address(address):
        raise _damaged(path)
    return to_checksum(address)


def _exists(path: Path) -> WalletError:
    return WalletError(f"There is a wallet at {path} already; move it away first.")


def _damaged(path: Path) -> WalletError:
    return WalletError(f"The wallet {path} is damaged; restore it from a backup.")
