"""Settings: a flag beats ``COMPUTESWARM_<NAME>``, which beats ``config.toml``, which beats ours.

Everything on disk lies under one home: ``COMPUTESWARM_HOME``, or the platform's folders.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

from computeswarm.core.chains import BASE_SEPOLIA, DEVNET, ChainInfo, chain_by_name
from computeswarm.core.errors import ConfigError, RealMoneyRefused
from computeswarm.core.urls import host_of, is_host_pattern, server_name

ENV_PREFIX = "COMPUTESWARM_"
DEVNET_RPC = "http://127.0.0.1:8545"
"""Where ``computeswarm devnet`` listens."""
_RENAMED = {"chain_id": "network"}
_LISTS = ("rpc", "allow_payees", "allow_hosts", "public_urls", "trusted_proxies", "limits")
_MAX_ENTRIES = 64


@dataclass(frozen=True, slots=True)
class Paths:
    """Where things lie. Folders are made when something is first written there."""

    config: Path
    state: Path
    cache: Path

    @classmethod
    def find(cls, environ: Mapping[str, str]) -> Self:
        """``COMPUTESWARM_HOME`` holds everything if set; otherwise platformdirs decides.

        Beside it, ``COMPUTESWARM_CONFIG_HOME`` names the folder of ``config.toml`` alone: a service
        has its settings in /etc and its state in /var.
        """
        home = environ.get("COMPUTESWARM_HOME")
        if home:
            root = Path(home).expanduser().absolute()
            config = Path(environ.get("COMPUTESWARM_CONFIG_HOME") or root).expanduser().absolute()
            return cls(config=config, state=root, cache=root / "cache")
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


def _setting(default: Any, help_text: str, *, secret: bool = False) -> Any:
    return field(default=default, metadata={"help": help_text}, repr=not secret)


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting, its default, and its help. Money in USDC as text, times in seconds."""

    market: str = _setting("http://127.0.0.1:8402", "address of the market")
    network: str = _setting(
        BASE_SEPOLIA.name, "base-sepolia or devnet (test money), or base (real money)"
    )
    rpc: str = _setting("", "address of the chain's JSON-RPC; several separated by commas")
    host: str = _setting("127.0.0.1", "address a server binds to")
    port: int = _setting(0, "port a server binds to; 0 takes each server's own default")
    password_file: str = _setting("", "file that holds the wallet's password")
    public_urls: str = _setting(
        "", "market: the addresses sellers use, by commas; registrations for others are refused"
    )
    database: str = _setting(
        "",
        "market: a SQLite file, or postgresql://user@host/database for several instances; the"
        " password is better in PGPASSWORD or ~/.pgpass",
        secret=True,
    )
    trusted_proxies: str = _setting(
        "",
        "proxies of yours whose X-Forwarded-For is believed: addresses and networks, by commas",
    )
    limits: str = _setting(
        "", "market: what one client may ask, such as read=1000/10s,submit=off; see the docs"
    )
    max_connections: int = _setting(
        0, "connections a server holds open; 0 is 16000 for a market and 2000 for a seller"
    )
    max_connections_per_address: int = _setting(
        0, "of these, from one IPv4 address or IPv6 /64; 0 is a quarter of them"
    )
    max_payment: str = _setting("1.00", "most USDC for one payment")
    max_job: str = _setting("5.00", "most USDC for one job unless --budget says otherwise")
    max_day: str = _setting("20.00", "most USDC for one day")
    allow_payees: str = _setting("", "the only wallets that may be paid, by commas; empty is any")
    allow_hosts: str = _setting(
        "", "the only hosts that may be paid (name or *.suffix), by commas; empty is any"
    )
    allow_real_money: bool = _setting(False, "spend and earn real money where the network has it")
    pay: str = _setting("slices", "how jobs are paid: slices (a transfer each) or channel")
    price: str = _setting("0.40", "seller: USDC per GPU and hour")
    node_name: str = _setting("", "seller: name of this node; the machine's own by default")
    endpoint: str = _setting("", "seller: address under which buyers reach this machine")
    region: str = _setting("", "seller: where this machine stands, such as eu-fra")
    executor: str = _setting("auto", "seller: auto, docker, bubblewrap, sandbox-exec or process")
    slots: int = _setting(0, "seller: jobs at a time; 0 is one per GPU")
    slice_seconds: int = _setting(60, "seller: seconds a buyer pays ahead")
    tick_seconds: int = _setting(2, "seller: seconds a buyer with a payment channel pays ahead")
    max_job_seconds: int = _setting(86400, "seller: longest job taken, in seconds")
    keep_outputs: int = _setting(86400, "seller: seconds for which outputs stay fetchable")
    keep_inputs: int = _setting(
        86400, "seller: seconds for which an input is kept for the same buyer's next job"
    )
    allow_network: bool = _setting(
        False, "seller: jobs that ask for it reach the internet, but nothing of your own networks"
    )
    accept: str = _setting(
        "auto", "seller: paid jobs start by themselves (auto), or wait for your yes (ask)"
    )
    ask_seconds: int = _setting(
        120, "seller: seconds in which you answer a job that asks; then it is paid back"
    )
    queue_limit: int = _setting(64, "seller: paid jobs that may wait for their turn")
    windows: str = _setting(
        "", "seller: hours in which jobs run, such as 'mon-fri 22:00-07:00; sat,sun 00:00-24:00'"
    )
    window_end: str = _setting(
        "finish", "seller: what still runs as the hours end may finish, or is paid back (evict)"
    )
    pause_when_used: bool = _setting(True, "seller: pause a job while you use its GPU yourself")
    pause_minutes: int = _setting(
        30, "seller: minutes after which a paused job is ended and paid back"
    )
    power_limit_watts: int = _setting(0, "seller: most watts for each GPU; 0 leaves them alone")
    minimum_charge: str = _setting("0", "seller: USDC that a job which was started costs at least")
    electricity_price: str = _setting("0.15", "seller: USDC that a kilowatt-hour costs you")
    metrics_token: str = _setting("", "seller: token that opens /metrics (a secret, 16 letters up)")
    facilitator: str = _setting(
        "", "seller: URL of an x402 facilitator that settles; empty is your own key"
    )
    rpc_confirm: str = _setting("", "seller: a second RPC that must have seen a payment too")
    confirm_safe_above: str = _setting("5.00", "seller: USDC above which a block must be safe")
    confirm_finalized_above: str = _setting(
        "100.00", "seller: USDC above which a block must be finalized"
    )
    max_gas_share: str = _setting("0.50", "seller: most of a payment that settling it may cost")
    eth_price: str = _setting("4000", "seller: USDC per ether, for max_gas_share (real money only)")
    log_level: str = _setting("info", "debug, info, warning or error")
    log_format: str = _setting("text", "of servers' logs: text, or json (an object a line)")
    theme: str = _setting("", "colour theme of the terminal app")
    mouse: bool = _setting(True, "terminal app: take the mouse")
    bell: bool = _setting(False, "terminal app: ring the bell when a job ends or comes in")
    desktop_notifications: bool = _setting(
        False, "terminal app: tell the desktop the same (OSC 9, where the terminal can)"
    )
    keys: Mapping[str, str] = field(
        default_factory=dict, metadata={"help": "terminal app: keys by the id of what they do"}
    )
    """The table ``[keys]`` of the file alone."""

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
        keys = _keys_of(paths.config_file, values.pop("keys", {}))
        del known["keys"]
        for name in values:
            if name not in known:
                raise ConfigError(_unknown(str(paths.config_file), name, known))
        for old in _RENAMED:
            if ENV_PREFIX + old.upper() in environ:
                raise ConfigError(_unknown("The environment", old, known))
        for name in known:
            if (given := environ.get(ENV_PREFIX + name.upper())) is not None:
                values[name] = given
        values.update({k: v for k, v in (flags or {}).items() if k in known and v is not None})
        converted = {name: _convert(name, known[name].default, v) for name, v in values.items()}
        found = cls(**converted, keys=keys)
        found.check()
        return found

    def check(self) -> None:
        """See that those settings which name something can be understood.

        Raises:
            ConfigError: one can't; an address is not repeated, as it may hold a key.
        """
        chain_by_name(self.network)
        urls = [(f"rpc (entry {n})", url) for n, url in enumerate(self.rpc_urls, 1)]
        urls += [("rpc_confirm", self.rpc_confirm), ("facilitator", self.facilitator)]
        for what, url in urls:
            if url and host_of(url) is None:
                raise ConfigError(
                    f"The setting {what} is no address; write http://… or https://… (a key belongs"
                    " in the path or the query, not before an @)."
                )
        named = [("market", self.market)]
        named += [("public_urls", url) for url in _listed(self.public_urls)]
        for name, url in named:
            try:
                server_name(url)
            except ValueError as error:
                raise ConfigError(f"The setting {name}: {error}; correct it.") from None
        for payee in self.payees:
            from computeswarm.core.crypto import is_address  # 35 ms, and few have such a list

            if not is_address(payee):
                raise ConfigError(
                    f"The setting allow_payees: {payee[:60]!r} is no wallet's address; write 0x"
                    " and 40 hex digits."
                )
        for host in self.hosts:
            if not is_host_pattern(host):
                raise ConfigError(
                    f"The setting allow_hosts: {host[:60]!r} is no host; write a name such as"
                    " gpu.example.org, *.example.org or an IP address, without http:// and port."
                )

    @property
    def chain(self) -> ChainInfo:
        """The network.

        Raises:
            ConfigError: it is none of ours.
        """
        return chain_by_name(self.network)

    @property
    def chain_id(self) -> int:
        """The network's EVM chain id."""
        return self.chain.chain_id

    def spending_chain(self) -> ChainInfo:
        """The network for whatever signs, pays, sells or opens a wallet for that.

        Raises:
            RealMoneyRefused: its money is real, and ``allow_real_money`` is not set.
        """
        if self.chain.real_money and not self.allow_real_money:
            raise real_money_refused(self.chain)
        return self.chain

    @property
    def rpc_urls(self) -> tuple[str, ...]:
        """The RPC addresses, in order of preference; the devnet is looked for where it listens."""
        return _listed(self.rpc) or ((DEVNET_RPC,) if self.chain == DEVNET else ())

    @property
    def server_names(self) -> frozenset[str]:
        """The addresses in ``public_urls``, each in its one spelling."""
        return frozenset(map(server_name, _listed(self.public_urls)))

    @property
    def payees(self) -> tuple[str, ...]:
        """The wallets in ``allow_payees``."""
        return _listed(self.allow_payees)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts in ``allow_hosts``."""
        return _listed(self.allow_hosts)


def real_money_refused(chain: ChainInfo) -> RealMoneyRefused:
    """The error of whoever would spend or earn real money without having said so."""
    return RealMoneyRefused(
        f"{chain.title} is real money; to spend or earn it give --real-money, or set "
        "allow_real_money = true. Test money: --network base-sepolia.",
        rule="real_money",
        network=chain.name,
    )


def _listed(text: str) -> tuple[str, ...]:
    return tuple(entry.strip() for entry in text.split(",") if entry.strip())


def _unknown(where: str, name: str, known: Mapping[str, Any]) -> str:
    if (new := _RENAMED.get(name)) is not None:
        return f'{where} sets {name}, which is called {new} now; write {new} = "base-sepolia".'
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "remove it or correct it."
    return f"{where} has an unknown setting {name[:60]!r}; {hint}"


def _from_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} can't be read: {error}.") from None


def _convert(name: str, default: Any, value: Any) -> Any:
    if isinstance(default, bool):
        return _flag(name, value)
    if isinstance(default, int):
        try:
            number = int(str(value))
        except ValueError:
            number = -1
        if number < 0 or isinstance(value, (bool, float)):
            raise ConfigError(f"The setting {name} is a whole number, not {str(value)[:60]!r}.")
        return number
    if name in _LISTS and isinstance(value, list):
        if len(value) > _MAX_ENTRIES or not all(isinstance(entry, str) for entry in value):
            raise ConfigError(f"The setting {name} is a list of at most {_MAX_ENTRIES} texts.")
        return ",".join(value)
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        raise ConfigError(f"The setting {name} is a text, not {str(value)[:60]!r}.")
    return str(value)


def _keys_of(path: Path, table: Any) -> dict[str, str]:
    fits = isinstance(table, dict) and len(table) <= 4 * _MAX_ENTRIES
    if not fits or not all(isinstance(keys, str) for keys in table.values()):
        raise ConfigError(f'In {path}, [keys] is a table of lines such as "job.cancel" = "X".')
    return dict(table)


def _flag(name: str, value: Any) -> bool:
    word = str(value).strip().lower()
    if word in ("true", "1", "yes", "on"):
        return True
    if word in ("false", "0", "no", "off", ""):
        return False
    raise ConfigError(f"The setting {name} is true or false, not {str(value)[:60]!r}.")
