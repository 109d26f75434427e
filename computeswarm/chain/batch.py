"""Many questions in few requests: JSON-RPC batches, with single calls where a node takes none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from computeswarm.chain.errors import RpcUnavailable
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.wire import Receipt, parse_hash, parse_receipt, result_of

BATCH = 50
"""Calls in one request; public nodes take 100 and more, some count each of them as a request."""
_AT_A_TIME = 4
_SINGLE_AT_A_TIME = 16

_T = TypeVar("_T")


class BatchClient:
    """Asks one method with many parameters, four requests at a time."""

    def __init__(self, rpc: RpcClient, *, size: int = BATCH) -> None:
        self._rpc = rpc
        self._size = size
        self._slots = asyncio.Semaphore(_AT_A_TIME)
        self._single_slots = asyncio.Semaphore(_SINGLE_AT_A_TIME)
        self._takes_batches = True

    async def call(self, method: str, each: Sequence[Sequence[Any]]) -> list[Any]:
        """The results, in the order of ``each``.

        Raises:
            RpcError: the node answered one of them with an error.
            RpcUnavailable: no node gave a usable answer to all of them.
        """
        chunks = [each[at : at + self._size] for at in range(0, len(each), self._size)]
        answers = await all_or_none([self._chunk(method, chunk) for chunk in chunks])
        return [result for answer in answers for result in answer]

    async def receipts(self, hashes: Iterable[str]) -> dict[str, Receipt | None]:
        """The receipt of each transaction; None for one that is in no block."""
        wanted = list(dict.fromkeys(hashes))
        answers = await self.call("eth_getTransactionReceipt", [[tx] for tx in wanted])
        found = dict(zip(wanted, map(parse_receipt, answers), strict=True))
        for tx, receipt in found.items():
            if receipt is not None and receipt.tx_hash != parse_hash(tx):
                raise RpcUnavailable(
                    "The RPC answered with another receipt; give --rpc another address."
                )
        return found

    async def _chunk(self, method: str, chunk: Sequence[Sequence[Any]]) -> list[Any]:
        if self._takes_batches and len(chunk) > 1:
            calls = [
                {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
                for number, params in enumerate(chunk)
            ]
            body = json.dumps(calls).encode()
            async with self._slots:
                results = await self._rpc.ask(body, lambda reply: _results_of(reply, len(chunk)))
            if results is not None:
                return results
            self._takes_batches = False
        return await all_or_none([self._one(method, params) for params in chunk])

    async def _one(self, method: str, params: Sequence[Any]) -> Any:
        async with self._single_slots:
            return await self._rpc.call(method, params)


async def all_or_none(work: Sequence[Coroutine[Any, Any, _T]]) -> list[_T]:
    """All results in order; the first failure ends the rest and is raised as it is."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def _results_of(body: bytes, count: int) -> list[Any] | None:
    """The results in the order of their ids; None where the node takes no batches.

    Raises:
        RpcError: one of the calls was answered with an error.
        RpcUnavailable: the replies are not those to our calls.
    """
    try:
        replies = json.loads(body)
    except (ValueError, RecursionError):
        replies = None
    if isinstance(replies, dict) and replies.get("error") is not None:
        return None  # one refusal for all of them
    if not isinstance(replies, list) or len(replies) != count:
        raise RpcUnavailable("The RPC did not answer all that it was asked; give --rpc another.")
    by_id = {reply.get("id"): reply for reply in replies if isinstance(reply, dict)}
    return [result_of(by_id.get(number), number) for number in range(count)]
