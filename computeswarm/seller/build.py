"""From settings to a seller: which sandbox, which price, which slots. The HTTP side is above."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from computeswarm.chain.batch_settlement import BatchSettlement
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.sender import TxSender
from computeswarm.chain.usdc import Usdc
from computeswarm.core.clock import Clock, SystemClock
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import ConfigError, ExecutorError
from computeswarm.core.settings import Paths, Settings
from computeswarm.payments.channels.seller import SellerChannels
from computeswarm.payments.channels.terms import ChannelOffer
from computeswarm.payments.confirmation import Confirmations
from computeswarm.payments.policy import SettlementPolicy
from computeswarm.payments.settlement import Settlements
from computeswarm.seller.agent import SellerAgent
from computeswarm.seller.configure import read_config
from computeswarm.seller.executors.base import Executor
from computeswarm.seller.executors.bubblewrap import BubblewrapExecutor
from computeswarm.seller.executors.process import ProcessExecutor
from computeswarm.seller.gpus import GpuMonitor, detect
from computeswarm.seller.images import ImageStore


@dataclass(frozen=True, slots=True)
class SellerParts:
    """A seller that is not started yet, and the chain it shares with its settlements."""

    agent: SellerAgent
    rpc: RpcClient


async def build_seller(
    settings: Settings,
    paths: Paths,
    key: PrivateKey,
    *,
    trusted: Sequence[str] = (),
    clock: Clock | None = None,
    tune: Mapping[str, Any] | None = None,
) -> SellerParts:
    """Put a seller together.

    Args:
        trusted: the only wallets served when there is no sandbox.
        tune: other values for members of ``SellerConfig`` that have no setting.

    Raises:
        ConfigError: a setting that can't be used.
        RealMoneyRefused: the network's money is real, and that is not allowed.
        ExecutorError: no sandbox can be used here; the sentence says what to install.
    """
    clock = clock or SystemClock()
    folder = paths.seller
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    chain = settings.spending_chain()
    if not settings.rpc_urls:
        raise ConfigError("No RPC address is set; set rpc (or COMPUTESWARM_RPC).")
    inventory = await detect(folder)
    executor, notes = await choose_executor(settings, paths, trusted)
    config = replace(
        read_config(settings, paths.seller, inventory.hardware),
        trusted=frozenset(wallet.lower() for wallet in trusted),
        **(tune or {}),
    )
    if not inventory.gpus:
        notes = ("No GPU was found: this machine is listed as cpu.", *notes)
    rpc = RpcClient(settings.rpc_urls, chain_id=chain.chain_id)
    usdc, sender = Usdc(rpc, chain), TxSender(rpc, key, chain.chain_id)

    policy = SettlementPolicy.of(settings)
    witness = settings.rpc_confirm
    second = RpcClient(witness, chain_id=chain.chain_id) if witness else None

    def settle(**callbacks: object) -> Settlements:
        return Settlements(
            *(folder / "payments.db", rpc, usdc, sender, clock),
            policy=policy,
            second=second,
            **callbacks,  # type: ignore[arg-type]
        )

    def open_channels(**callbacks: object) -> SellerChannels:
        contract, offer = BatchSettlement(rpc, chain), ChannelOffer(key.address)
        return SellerChannels(
            folder / "channels.db",
            rpc,
            contract,
            usdc,
            sender,
            clock,
            offer=offer,
            confirm=Confirmations(rpc, policy.confirm, second).confirm,
            gas=policy.gas,
            **callbacks,  # type: ignore[arg-type]
        )

    agent = SellerAgent(
        config,
        key,
        executor,
        ImageStore(folder),
        GpuMonitor(inventory),
        rpc,
        settle,
        open_channels,
        clock,
        notes=(*inventory.notes, *notes),
        settings=settings,
    )
    return SellerParts(agent, rpc)


async def choose_executor(
    settings: Settings, paths: Paths, trusted: Sequence[str]
) -> tuple[Executor, tuple[str, ...]]:
    """The sandbox that the settings ask for, or the best there is; and what to say about it.

    Raises:
        ConfigError: no such executor.
        ExecutorError: it can't be used.
    """
    wanted = settings.executor
    if wanted not in ("auto", "bubblewrap", "process"):
        raise ConfigError(f"There is no executor {wanted!r}; use auto, bubblewrap or process.")
    bubblewrap = BubblewrapExecutor(paths.seller)
    problems = [] if wanted == "process" else await bubblewrap.check()
    if wanted != "process" and not problems:
        return bubblewrap, ()
    why = " ".join(str(problem) for problem in problems)
    if wanted == "bubblewrap":
        raise ExecutorError(f"bubblewrap can't be used here. {why}")
    if not trusted:
        raise ExecutorError(
            f"No sandbox can be used here. {why} Without one, name the wallets you trust."
            if why
            else "Jobs without a sandbox are for your own wallets only; name the ones you trust."
        )
    process = ProcessExecutor(paths.seller)
    if found := await process.check():
        raise ExecutorError(" ".join(str(problem) for problem in found))
    note = "Jobs run without a sandbox, so only your trusted wallets are served."
    return process, (f"{note} {why}".strip(),)
