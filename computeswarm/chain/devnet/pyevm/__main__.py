"""The devnet's own process: ``python -m computeswarm.chain.devnet.pyevm FD CHAIN_ID``.

It serves on the listening socket it inherits and ends when its standard input does, that is with
the process that started it, however that one died.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys

import uvloop
from aiohttp import web

from computeswarm.chain.devnet.pyevm.node import Node
from computeswarm.chain.devnet.pyevm.server import RpcServer


async def serve(listener: socket.socket, chain_id: int) -> None:
    """Serve until standard input ends or SIGTERM comes."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def watch_parent() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            done.set()

    loop.add_reader(sys.stdin.fileno(), watch_parent)
    loop.add_signal_handler(signal.SIGTERM, done.set)
    rpc = RpcServer(Node(chain_id))
    runner = web.ServerRunner(web.Server(rpc.handle), access_log=None)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    await done.wait()
    await runner.cleanup()


def main() -> None:
    """Entry point."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    uvloop.run(serve(listener, int(sys.argv[2])))


if __name__ == "__main__":
    main()
