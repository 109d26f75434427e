"""What ``computeswarm doctor`` looks at: one function for each thing, none of which raises."""

from __future__ import annotations

import asyncio
import importlib.util
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from computeswarm.cli.context import Context
from computeswarm.core.errors import ComputeSwarmError

Status = Literal["ok", "note", "fix"]

LOW_DISK_BYTES = 2 * 2**30
CLOCK_SECONDS = 30
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Finding:
    """``note``: something is missing that not everybody needs. ``fix``: something is wrong."""

    name: str
    status: Status
    detail: str
    fix: str = ""

    def document(self) -> dict[str, str]:
        """The JSON of it."""
        return asdict(self)


Check = Callable[[Context], Awaitable[Finding]]


async def examine(context: Context) -> list[Finding]:
    """All findings, in the order of ``CHECKS``; the slow ones run side by side."""
    return list(await asyncio.gather(*(check(context) for check in CHECKS)))


async def _python(_: Context) -> Finding:
    version = platform.python_version()
    where = f"{version} on {platform.system()} {platform.machine()}"
    return Finding("python", "ok", f"{where} at {sys.executable}")


async def _disk(context: Context) -> Finding:
    folder = _existing(context.paths.state)
    free = shutil.disk_usage(folder).free
    detail = f"{free / _GIB:.1f} GiB free at {folder}"
    if free < LOW_DISK_BYTES:
        return Finding("disk", "fix", detail, "Free some space; jobs and images need a few GiB.")
    return Finding("disk", "ok", detail)


async def _sandbox(context: Context) -> Finding:
    """Which sandbox a seller here would use, and what every stronger one lacks."""
    from computeswarm.seller.executors.choose import look_at_each

    # in a folder of its own: looking leaves nothing behind and touches no running seller
    with tempfile.TemporaryDirectory(prefix="computeswarm-doctor-") as folder:
        looked = await look_at_each(Path(folder))
        for executor, _ in looked:
            await executor.close()
    wanted = context.settings.executor
    lacking: list[str] = []
    fixes: list[str] = []
    for executor, problems in looked:
        if executor.owner_only or wanted not in ("auto", executor.name):
            continue
        if not problems:
            walls = f"{executor.name} works (isolation: {executor.isolation})"
            return Finding("sandbox", "ok", "; ".join([walls, *lacking]), " ".join(fixes))
        lacking.append(f"{executor.name}: {' '.join(p.what for p in problems)}".rstrip("."))
        fixes += [f"{executor.name}: {p.fix}" for p in problems]
    detail = "; ".join(["strangers' jobs can't be taken", *lacking])
    return Finding("sandbox", "note", detail, " ".join(fixes))


async def _job_network(context: Context) -> Finding:
    """Whether jobs could have a network, if the seller wants that."""
    from computeswarm.seller.executors.network import network_problems

    problems = network_problems()
    if not problems:
        allowed = "jobs that ask get one" if context.settings.allow_network else "off by setting"
        return Finding("job network", "ok", f"slirp4netns and iptables are there; {allowed}")
    status: Status = "fix" if context.settings.allow_network else "note"
    detail = f"jobs can't have a network: {problems[0].what}"
    return Finding("job network", status, detail, problems[0].fix)


async def _gpus(context: Context) -> Finding:
    from computeswarm.seller.gpus import detect

    inventory = await detect(context.paths.seller)
    if not inventory.gpus:
        return Finding("gpu", "note", "none found; a seller here is listed as cpu")
    names = ", ".join(f"{g.model} ({g.memory_bytes / _GIB:.0f} GiB)" for g in inventory.gpus)
    return Finding("gpu", "ok", names)


async def _devnet(_: Context) -> Finding:
    from computeswarm.chain.devnet import find_anvil

    try:
        anvil = find_anvil()
    except ComputeSwarmError as error:
        return Finding("local chain", "fix", error.detail)
    if anvil:
        return Finding("local chain", "ok", f"anvil at {anvil}")
    if importlib.util.find_spec("eth"):
        return Finding("local chain", "ok", "py-evm")
    fix = "For the demo run: pip install 'computeswarm[devnet]'."
    return Finding("local chain", "note", "neither anvil nor py-evm is installed", fix)


async def _wallet(context: Context) -> Finding:
    from computeswarm.payments.wallet import wallet_address

    path = context.paths.wallet
    if not path.exists():
        fix = "Make one with `computeswarm wallet new`."
        return Finding("wallet", "note", f"there is none at {path}", fix)
    try:
        address = wallet_address(path)
    except ComputeSwarmError as error:
        return Finding("wallet", "fix", error.detail)
    if (mode := path.stat().st_mode & 0o777) & 0o077:
        fix = f"Run: chmod 600 {path}"
        return Finding("wallet", "fix", f"{path} has mode {mode:03o}: others can read it", fix)
    return Finding("wallet", "ok", f"{address} in {path}")


async def _market(context: Context) -> Finding:
    import aiohttp

    url = context.settings.market
    fix = "Start one with `computeswarm market`, or name another with --market."
    try:
        timeout = aiohttp.ClientTimeout(total=5)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"{url.rstrip('/')}/health") as reply,
        ):
            if reply.status == 200:
                return Finding("market", "ok", f"{url} answers")
            return Finding("market", "note", f"{url} answers {reply.status}", fix)
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return Finding("market", "note", f"{url} does not answer", fix)


async def _money(context: Context) -> Finding:
    """Whether money can be lost here at all, said before everything that spends it."""
    settings = context.settings
    chain = settings.chain
    if not chain.real_money:
        return Finding("network", "ok", chain.label)
    if not settings.allow_real_money:
        fix = "To pay or sell there set allow_real_money = true, or give --real-money."
        return Finding("network", "note", f"{chain.label}, which is not allowed", fix)
    caps = f"{settings.max_payment} a payment, {settings.max_job} a job, {settings.max_day} a day"
    return Finding("network", "note", f"{chain.label} is spent and earned; caps in USDC: {caps}")


async def _chain(context: Context) -> Finding:
    from computeswarm.chain.rpc import RpcClient

    urls = context.settings.rpc_urls
    if not urls:
        fix = "Name one with --rpc, COMPUTESWARM_RPC or in config.toml."
        return Finding("chain", "note", "no RPC address is set", fix)
    try:
        chain = context.settings.chain
        async with RpcClient(urls, timeout=5) as rpc:
            await rpc.verify_chain(chain.chain_id)
            block = await rpc.head()
    except ComputeSwarmError as error:
        return Finding("chain", "fix", error.detail)
    found = _clock(chain.title, block.timestamp - time.time())
    if found.status == "ok" and (dead := await _dead_addresses(urls, chain.chain_id)):
        detail = f"{chain.title} answers, but not at every address: {' '.join(dead)}"
        return Finding("chain", "note", detail, "Correct or remove those in the setting rpc.")
    return found


async def _dead_addresses(urls: tuple[str, ...], chain_id: int) -> list[str]:
    """Which of several addresses don't serve the chain; while one does, nobody else tells."""
    from computeswarm.chain.rpc import RpcClient
    from computeswarm.core.urls import origin

    async def problem(url: str) -> str:
        try:
            async with RpcClient(url, timeout=5) as rpc:
                await rpc.verify_chain(chain_id)
        except ComputeSwarmError as error:
            return f"{origin(url)}: {error.detail}"
        return ""

    return [text for text in await asyncio.gather(*map(problem, urls)) if text]


def _clock(title: str, ahead: float) -> Finding:
    """Payments carry times: with a clock that lags, a fresh one is not valid yet for us."""
    if ahead > CLOCK_SECONDS:
        detail = f"{title} answers, but its clock is {ahead:.0f} s ahead of this machine's"
        return Finding("chain", "fix", detail, "Set this machine's clock (chrony or ntp).")
    if ahead < -300:
        detail = f"{title} answers; its last block is {-ahead:.0f} s old"
        fix = "Normal on an idle local chain; elsewhere check the clock, or name another RPC."
        return Finding("chain", "note", detail, fix)
    return Finding("chain", "ok", f"{title} answers, and the clocks agree")


def _existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    return path if path.exists() or path == path.parent else _existing(path.parent)


CHECKS: tuple[Check, ...] = (
    _python,
    _disk,
    _sandbox,
    _job_network,
    _gpus,
    _devnet,
    _wallet,
    _market,
    _money,
    _chain,
)
