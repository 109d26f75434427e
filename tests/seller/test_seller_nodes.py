"""A seller with several RPC addresses goes on when one of them goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from urllib.parse import urlsplit

import pytest
from seller_rig import Rig, output_of, spec

from computeswarm.chain import nodes as nodes_module
from computeswarm.chain.devnet import Devnet
from computeswarm.core.states import JobState

OpenRig = Callable[..., AbstractAsyncContextManager[Rig]]


class Line:
    """A node's address in front of the devnet's, until it is cut or says nothing any more."""

    def __init__(self, upstream: str) -> None:
        self._port = urlsplit(upstream).port
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._silent = False

    async def open(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/"

    async def cut(self) -> None:
        """Nobody is there any more."""
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()

    def hush(self) -> None:
        """It takes requests and answers none."""
        self._silent = True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, back]
        await asyncio.gather(
            self._pass(reader, back), self._pass(there, writer), return_exceptions=True
        )
        writer.close()
        back.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            if not self._silent:
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def line_to(devnet: Devnet) -> AsyncIterator[tuple[Line, str]]:
    line = Line(devnet.url)
    address = await line.open()
    try:
        yield line, address
    finally:
        await line.cut()


@pytest.mark.parametrize("how", ["cut", "hush"])
async def test_jobs_are_sold_while_an_rpc_goes_away(
    rig: OpenRig, devnet: Devnet, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(nodes_module, "_IMPATIENT_SECONDS", 0.5)
    async with line_to(devnet) as (line, address), rig(rpc=f"{address},{devnet.url}") as r:
        first = await r.buy(spec())
        assert output_of([event async for event in first.follow()]) == b"hello\n"
        if how == "cut":
            await line.cut()
        else:
            line.hush()
        second = await r.buy(spec())
        view = await r.refunded(second)
        assert view.state is JobState.SUCCEEDED
        assert view.cost + (view.refund.amount if view.refund else 0) == view.paid
        assert (await r.refunded(first)).refund is not None
