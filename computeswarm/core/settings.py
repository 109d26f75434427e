"""Settings: a flag beats ``COMPUTESWARM_<NAME>``, which beats ``config.toml``, which beats ours.

Everything on disk lies under one home: ``COMPUTESWARM_HOME``, or the platform's folders.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from computeswarm.core.errors import ConfigError

ENV_PREFIX = "COMPUTESWARM_"


@dataclass(frozen=True, slots=True)
class Paths:
    """Where things lie. Folders are made when something is first written there."""

    config: Path
    state: Path
    cache: Path

    @classmethod
    def find(cls, environ: Mapping[str, str]) -> Self:
        """``COMPUTESWARM_HOME`` holds everything if set; otherwise platformdirs decides."""
        home = environ.get("COMPUTESWARM_HOME")
        if home:
            root = Path(home).expanduser().absolute()
            return cls(config=root, state=root, cache=root / "cache")
        import platformdirs  # 10 ms, and not needed with a home of one's own

        dirs = platformdirs.PlatformDirs("computeswarm", appauthor=False)
        return cls(
            config=Path(dirs.user_config_dir),
            state=Path(dirs.user_data_dir),
            cache=Path(dirs.user_cache_dir),
        )

    @property
    def config_file(self) -> Path:
        return self.config / "config.toml"

    @property
    def wallet(self) -> Path:
        """The keystore (JSON, version 3, mode 0600)."""
        return self.state / "wallet.json"

    @property
    def buyer(self) -> Path:
        return self.state / "buyer"

    @property
    def seller(self) -> Path:
        return self.state / "seller"

    @property
    def market(self) -> Path:
        return self.state / "market"


def _setting(default: Any, help_text: str) -> Any:
    return field(default=default, metadata={"help": help_text})


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting, its default, and its help. Money in USDC as text, times in seconds."""

    market: str = _setting("http://127.0.0.1:8402", "address of the market")
    rpc: str = _setting("", "address of the chain's JSON-RPC; several separated by commas")
    chain_id: int = _setting(84532, "84532 is Base Sepolia (test money), 8453 is Base")
    host: str = _setting("127.0.0.1", "address a server binds to")
    port: int = _setting(0, "port a server binds to; 0 takes each server's own default")
    password_file: str = _setting("", "file that holds the wallet's password")
    max_payment: str = _setting("1.00", "most USDC for one payment")
    max_job: str = _setting("5.00", "most USDC for one job unless --budget says otherwise")
    max_day: str = _setting("20.00", "most USDC for one day")
    pay: str = _setting("slices", "how jobs are paid: slices (a transfer each) or channel")
    price: str = _setting("0.40", "seller: USDC per GPU and hour")
    node_name: str = _setting("", "seller: name of this node; the machine's own by default")
    endpoint: str = _setting("", "seller: address under which buyers reach this machine")
    region: str = _setting("", "seller: where this machine stands, such as eu-fra")
    executor: str = _setting("auto", "seller: auto, bubblewrap or process")
    slots: int = _setting(0, "seller: jobs at a time; 0 is one per GPU")
    slice_seconds: int = _setting(60, "seller: seconds a buyer pays ahead")
    tick_seconds: int = _setting(2, "seller: seconds a buyer with a payment channel pays ahead")
    max_job_seconds: int = _setting(86400, "seller: longest job taken, in seconds")
    keep_outputs: int = _setting(86400, "seller: seconds for which outputs stay fetchable")
    log_level: str = _setting("info", "debug, info, warning or error")
    theme: str = _setting("", "colour theme of the terminal app")

    @classmethod
    def load(
        cls,
        flags: Mapping[str, Any] | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        paths: Paths | None = None,
    ) -> Self:
        """Settings from all four sources; flags that are None count as not given.

        Raises:
            ConfigError: a file that can't be read, an unknown name, or a value of the wrong kind.
        """
        environ = os.environ if environ is None else environ
        paths = paths or Paths.find(environ)
        values: dict[str, Any] = _from_file(paths.config_file)
        known = {f.name: f for f in fields(cls)}
        for name in values:
            if name not in known:
                raise ConfigError(
                    f"{paths.config_file} has an unknown setting {name!r}; remove it or correct it."
                )
        for name in known:
            if (given := environ.get(ENV_PREFIX + name.upper())) is not None:
                values[name] = given
        values.update({k: v for k, v in (flags or {}).items() if k in known and v is not None})
        return cls(**{name: _convert(name, known[name].default, v) for name, v in values.items()})

    @property
    def rpc_urls(self) -> tuple[str, ...]:
        """The RPC addresses, in order of preference."""
        return tuple(url.strip() for url in self.rpc.split(",") if url.strip())


def _from_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} can't be read: {error}.") from None


def _convert(name: str, default: Any, value: Any) -> Any:
    if isinstance(default, int):
        try:
            number = int(str(value))
        except ValueError:
            number = -1
        if number < 0 or isinstance(value, (bool, float)):
            raise ConfigError(f"The setting {name} is a whole number, not {str(value)[:60]!r}.")
        return number
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        raise ConfigError(f"The setting {name} is a text, not {str(value)[:60]!r}.")
    return str(value)
