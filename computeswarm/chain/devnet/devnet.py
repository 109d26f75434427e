"""Starting, funding and ending a devnet."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import socket
import sys
from collections.abc import Sequence
from typing import Literal, Self

from computeswarm.chain.abi import address_word, selector, uint_word
from computeswarm.chain.artifacts import load_artifact
from computeswarm.chain.devnet import process
from computeswarm.chain.devnet.keys import dev_keys, faucet_key
from computeswarm.chain.errors import RpcUnavailable
from computeswarm.chain.multicall import MULTICALL3
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.sender import TxSender
from computeswarm.core.chains import BASE_SEPOLIA
from computeswarm.core.channels import BATCH_SETTLEMENT, DEPOSIT_COLLECTOR
from computeswarm.core.crypto import to_checksum
from computeswarm.core.errors import ChainUnavailable, ConfigError

Engine = Literal["py-evm", "anvil"]

START_WEI = 10_000 * 10**18
START_ATOMS = 10_000 * 10**6
_START_SECONDS = 30.0
_POLL_SECONDS = 0.005
_BLOCK_SECONDS = 2
_MINT = selector("mint(address,uint256)")
_MINT_GAS = 120_000


class Devnet:
    """A running chain. ``keys`` are public throwaways, each with 10,000 ETH and 10,000 USDC."""

    def __init__(self, engine: Engine, child: process.Child, url: str) -> None:
        self.engine: Engine = engine
        self.url = url
        self.chain_id = BASE_SEPOLIA.chain_id
        self.usdc = BASE_SEPOLIA.usdc.address
        self.keys = dev_keys()
        self._contracts = {
            self.usdc: "TestUSDC",
            BATCH_SETTLEMENT: "BatchSettlement",
            DEPOSIT_COLLECTOR: "ERC3009DepositCollector",
            MULTICALL3: "Multicall3",
        }
        self._child = child
        self._rpc = RpcClient(url)
        self._faucet = self._new_faucet()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def pid(self) -> int:
        """The engine's process."""
        return self._child.pid

    async def fund(self, address: str, *, wei: int = 0, usdc_atoms: int = 0) -> None:
        """Give an account more of either, and return when it has it."""
        if usdc_atoms:
            data = _MINT + address_word(address) + uint_word(usdc_atoms)
            await self._send(self.usdc, data, gas=_MINT_GAS)
        if wei:
            # set rather than sent: it works for contracts that take no ether too
            balance = await self._rpc.native_balance(address) + wei
            await self._rpc.call("anvil_setBalance", [address, hex(balance)])

    async def place(self, address: str, creation_code: str) -> None:
        """Put a contract at a chosen address: what its creation code (hex) returns there.

        Only for constructors that write no storage.
        """
        code = await self._rpc.call("eth_call", [{"data": creation_code}, "latest"])
        await self._rpc.call("anvil_setCode", [address, code])

    async def advance_time(self, seconds: int) -> None:
        """Move the chain's clock ahead for good, and mine a block there."""
        await self._rpc.call("evm_increaseTime", [hex(seconds)])
        await self._rpc.call("evm_mine")

    async def disconnect(self) -> None:
        """Close our connections, so that another event loop may go on with this object."""
        await self._rpc.close()
        self._faucet = self._new_faucet()

    async def close(self) -> None:
        """End the chain and its process; everything on it is forgotten."""
        await self._rpc.close()
        await self._child.stop()

    def _new_faucet(self) -> TxSender:
        return TxSender(self._rpc, faucet_key(), self.chain_id)

    async def _send(self, to: str, data: bytes, *, gas: int) -> None:
        signed = await self._faucet.prepare(to, data, gas=gas)
        await self._faucet.broadcast(signed)
        receipt = await self._faucet.wait_receipt(signed.hash)
        if not receipt.succeeded:
            raise ChainUnavailable("The devnet's faucet failed; restart the devnet.")

    async def prepare(self, accounts: Sequence[str]) -> None:
        """Wait for the engine, put the contracts in their places and fund the accounts."""
        await self._wait_ready()
        await self._rpc.verify_chain(self.chain_id)
        for address, contract in self._contracts.items():
            await self.place(address, load_artifact(contract)["bytecode"])
        faucet = self._faucet.address
        await self._rpc.call("anvil_setBalance", [faucet, hex(START_WEI)])
        for address in [*(key.address for key in self.keys), *accounts]:
            await self.fund(address, wei=START_WEI, usdc_atoms=START_ATOMS)

    async def _wait_ready(self) -> None:
        deadline = asyncio.get_running_loop().time() + _START_SECONDS
        while True:
            if self._child.exit_code is not None:
                raise ChainUnavailable(
                    f"The devnet's {self.engine} ended at once: {self._child.last_words()};"
                    " try the other engine."
                )
            with contextlib.suppress(RpcUnavailable):
                await self._rpc.chain_id()
                return
            if asyncio.get_running_loop().time() > deadline:
                raise ChainUnavailable(f"The devnet's {self.engine} does not answer; try again.")
            await asyncio.sleep(_POLL_SECONDS)


async def start_devnet(
    *,
    engine: Literal["auto", "py-evm", "anvil"] = "auto",
    host: str = "127.0.0.1",
    port: int = 0,
    accounts: Sequence[str] = (),
) -> Devnet:
    """Start a chain and return when it is ready and funded.

    Args:
        engine: ``auto`` takes anvil where it is found.
        host: a loopback address.
        port: 0 picks a free one.
        accounts: more addresses to fund like the throwaway keys.

    Raises:
        ConfigError: the engine asked for isn't installed, or an address is wrong.
        PortInUse: the port is taken.
        ChainUnavailable: the engine doesn't start.
    """
    for address in accounts:
        _check_address(address)
    anvil = None if engine == "py-evm" else process.find_anvil()
    if engine == "anvil" and anvil is None:
        raise ConfigError("anvil is not found; install it, or set COMPUTESWARM_ANVIL to its path.")
    if anvil is None and importlib.util.find_spec("eth") is None:
        raise ConfigError("py-evm is not installed; run: pip install 'computeswarm[devnet]'.")
    listener = process.listen(host, port)
    try:
        if anvil is not None:
            devnet = await _start_anvil(str(anvil), listener)
        else:
            devnet = await _start_py_evm(listener)
    finally:
        listener.close()
    try:
        await devnet.prepare(accounts)
    except BaseException:
        await devnet.close()
        raise
    return devnet


def _check_address(address: str) -> None:
    try:
        to_checksum(address)
    except ValueError:
        raise ConfigError(f"{address[:60]!r} is not an address; it is 0x and 40 hex.") from None


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _start_py_evm(listener: socket.socket) -> Devnet:
    child = await process.spawn(
        sys.executable,
        "-m",
        "computeswarm.chain.devnet.pyevm",
        str(listener.fileno()),
        str(BASE_SEPOLIA.chain_id),
        pass_fds=(listener.fileno(),),
    )
    return Devnet("py-evm", child, _url(listener))


async def _start_anvil(binary: str, listener: socket.socket) -> Devnet:
    """anvil can't inherit a socket: hand it the port just proven to be free."""
    host, port = listener.getsockname()[:2]
    url = _url(listener)
    listener.close()
    child = await process.spawn(
        binary,
        *("--host", host, "--port", str(port), "--chain-id", str(BASE_SEPOLIA.chain_id)),
        *("--accounts", "0", "--hardfork", "prague", "--slots-in-an-epoch", "1", "--quiet"),
        *("--block-time", str(_BLOCK_SECONDS), "--mixed-mining"),
    )
    return Devnet("anvil", child, url)
