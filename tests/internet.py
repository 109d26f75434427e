"""An "internet" for tests: a machine beyond a cable, played by a network namespace.

198.51.100.7 (TEST-NET-2, routed nowhere) plays a public server, 10.99.99.7 one of the seller's own
network; both are reached by the same cable. Port 28123 on this machine is open too.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from computeswarm.seller.executors.network import network_problems

HERE, INTERNET, INSIDE = "198.51.100.1", "198.51.100.7", "10.99.99.7"
SERVER = """
import socket, socketserver, sys, threading
places = sys.argv[1:]
class Tcp(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(b'hello from ' + self.client_address[0].encode())
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
class Dns(socketserver.BaseRequestHandler):
    def handle(self):
        data, sock = self.request
        head = data[:2] + b'\\x81\\x80' + data[4:6] + b'\\0\\1\\0\\0\\0\\0'
        end = data.index(b'\\0', 12) + 5
        answer = b'\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x1e\\0\\4' + socket.inet_aton('198.51.100.7')
        sock.sendto(head + data[12:end] + answer, self.client_address)
for place in places:
    host, port = place.rsplit(':', 1)
    threading.Thread(target=Server((host, int(port)), Tcp).serve_forever, daemon=True).start()
if '198.51.100.7' in places[0]:
    udp = socketserver.ThreadingUDPServer(('198.51.100.7', 53), Dns)
    threading.Thread(target=udp.serve_forever, daemon=True).start()
print('up', flush=True)
sys.stdin.read()
"""


def run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)


def serve(prefix: list[str], *places: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [*prefix, sys.executable, "-c", SERVER, *places],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stdout.readline() == "up\n"
    return process


@pytest.fixture
def internet() -> Iterator[None]:
    """A machine beyond a cable, and servers on this one that no job may reach. One at a time: its
    addresses are the same for all processes that test here."""
    if problems := network_problems():
        pytest.skip(" ".join(map(str, problems)))
    if shutil.which("ip") is None:
        pytest.skip("ip isn't installed")
    with Path(tempfile.gettempdir(), "computeswarm-tests-internet.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield from _cabled()


def _cabled() -> Iterator[None]:
    # a test run that is killed takes its namespace, and so the cable, along
    far = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "unshare", "-n", "sleep", "3600"])
    link, other = f"cs{os.getpid() % 100000}a", f"cs{os.getpid() % 100000}b"
    servers: list[subprocess.Popen[str]] = []
    try:
        mine = Path("/proc/self/ns/net").readlink()
        while Path(f"/proc/{far.pid}/ns/net").readlink() == mine:
            assert far.poll() is None
        run("ip", "link", "add", link, "type", "veth", "peer", "name", other)
        run("ip", "link", "set", other, "netns", str(far.pid))
        run("ip", "addr", "add", f"{HERE}/24", "dev", link)
        run("ip", "link", "set", link, "up")
        run("ip", "route", "add", f"{INSIDE}/32", "via", INTERNET)
        within = ["nsenter", "-t", str(far.pid), "-n"]
        run(*within, "ip", "addr", "add", f"{INTERNET}/24", "dev", other)
        run(*within, "ip", "addr", "add", f"{INSIDE}/32", "dev", other)
        run(*within, "ip", "link", "set", other, "up")
        run(*within, "ip", "link", "set", "lo", "up")
        servers.append(serve(within, f"{INTERNET}:8000", f"{INTERNET}:25", f"{INSIDE}:8000"))
        servers.append(serve([], "127.0.0.1:28123", f"{HERE}:28123"))
        yield
    finally:
        for server in servers:
            server.kill()
            server.wait()
        subprocess.run(["ip", "link", "del", link], check=False, capture_output=True)
        far.kill()
        far.wait()
