"""From settings to a seller: which sandbox, which price, which slots. The HTTP side is above."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from computeswarm.chain.batch_settlement import BatchSettlement
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.sender import TxSender
from computeswarm.chain.usdc import Usdc
from computeswarm.core.clock import Clock, SystemClock
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import ConfigError
from computeswarm.core.settings import Paths, Settings
from computeswarm.payments.channels.seller import SellerChannels
from computeswarm.payments.channels.terms import ChannelOffer
from computeswarm.payments.confirmation import Confirmations
from computeswarm.payments.policy import SettlementPolicy
from computeswarm.payments.settlement import Settlements
from computeswarm.seller.agent import SellerAgent
from computeswarm.seller.configure import read_config
from computeswarm.seller.executors.base import Executor
from computeswarm.seller.executors.choose import choose_executor
from computeswarm.seller.executors.docker import DockerExecutor
from computeswarm.seller.executors.network import offer_problems
from computeswarm.seller.gpus import GpuMonitor, detect
from computeswarm.seller.images import ImageStore
from computeswarm.seller.images.containers import EngineImages


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
    executor, notes = await choose_executor(
        settings.executor, folder, trusted, inventory.hardware.gpus
    )
    config = replace(
        read_config(settings, paths.seller, inventory.hardware),
        trusted=frozenset(wallet.lower() for wallet in trusted),
        **(tune or {}),
    )
    if config.network and (why := await asyncio.to_thread(offer_problems, executor.isolation)):
        # a job that is paid and then can't have it would only fail
        config = replace(config, network=False)
        notes = (f"Jobs get no network, though you allow it. {why[0]}", *notes)
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
        _images(folder, executor),
        GpuMonitor(inventory),
        rpc,
        settle,
        open_channels,
        clock,
        notes=(*inventory.notes, *notes),
        settings=settings,
    )
    return SellerParts(agent, rpc)


def _images(folder: Path, executor: Executor) -> ImageStore:
    if isinstance(executor, DockerExecutor):
        return ImageStore(folder, containers=EngineImages(folder / "images", executor.engine))
    return ImageStore(folder)
