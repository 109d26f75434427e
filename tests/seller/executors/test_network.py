"""A job's network against real servers: an "internet" beyond a cable, and this machine."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from internet import HERE, INSIDE, INTERNET
from sandbox_bench import SMALL, alive, read_all, until

from computeswarm.core.errors import ExecutorError
from computeswarm.seller.executors import network
from computeswarm.seller.executors.base import Exit, Launch
from computeswarm.seller.executors.bubblewrap import BubblewrapExecutor
from computeswarm.seller.executors.network import attach, network_problems, own_addresses, rules
from computeswarm.seller.images import host_python


@pytest.fixture
async def bubblewrap(tmp_path: Path) -> AsyncIterator[BubblewrapExecutor]:
    executor = BubblewrapExecutor(tmp_path / "seller")
    if problems := await executor.check():
        pytest.skip(" ".join(map(str, problems)))
    yield executor
    await executor.close()


async def tell(
    executor: BubblewrapExecutor, script: str, *, wanted: bool = True
) -> tuple[dict[str, str], Exit]:
    """The JSON that a job prints last."""
    space = await executor.prepare("job-1", SMALL)
    try:
        (space.path / "main.py").write_text(textwrap.dedent(script))
        launch = Launch(
            "job-1", ("python", "main.py"), {}, space.path, host_python(), SMALL, network=wanted
        )
        job = await executor.start(launch)
        async with asyncio.timeout(60):
            streams = await read_all(job)
            ended = await job.wait()
    finally:
        await space.close()
    assert streams["stdout"], streams["stderr"].decode()
    return json.loads(streams["stdout"].splitlines()[-1]), ended


LOOK = """
    import errno, json, socket
    def tcp(host, port, family=socket.AF_INET, bound=False):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as s:
                s.settimeout(4)
                if bound:
                    s.setsockopt(socket.SOL_SOCKET, 25, b'tap0')
                s.connect((host, port))
                return s.recv(100).decode()
        except OSError as error:
            return errno.errorcode.get(error.errno, type(error).__name__)
"""


async def test_a_job_reaches_the_internet_and_neither_this_machine_nor_its_networks(
    internet: None, bubblewrap: BubblewrapExecutor
) -> None:
    shown = await asyncio.to_thread(subprocess.check_output, ["ip", "-4", "-o", "addr"], text=True)
    own = own_addresses(Path("/proc/net/fib_trie").read_text())
    assert HERE in own and all(address in shown for address in own)
    script = (
        LOOK
        + f"""
    found = {{
        'internet': tcp('{INTERNET}', 8000),
        'bound': tcp('{INTERNET}', 8000, bound=True),
        'mail': tcp('{INTERNET}', 25),
        'loopback': tcp('127.0.0.1', 28123),
        'helper': tcp('10.0.2.2', 28123),
        'veth': tcp('{HERE}', 28123),
        'veth, bound': tcp('{HERE}', 28123, bound=True),
        'private': tcp('{INSIDE}', 8000),
        'private, bound': tcp('{INSIDE}', 8000, bound=True),
        'metadata': tcp('169.254.169.254', 80),
        'carrier': tcp('100.64.0.1', 80),
        'mapped': tcp('::ffff:{HERE}', 28123, socket.AF_INET6),
        'six': tcp('2001:db8::1', 80, socket.AF_INET6),
        'own six': tcp('fe80::1', 80, socket.AF_INET6),
        'zero': tcp('0.0.0.0', 28123),
    }}
    for number, address in enumerate({own!r}):
        found[f'own {{number}}'] = tcp(address, 28123)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        for place in ('224.0.0.1', '255.255.255.255', '10.0.2.255'):
            try:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                s.sendto(b'x', (place, 9))
                found['sent ' + place] = 'sent'
            except OSError as error:
                found['sent ' + place] = errno.errorcode[error.errno]
    print(json.dumps(found))
    """
    )
    found, ended = await tell(bubblewrap, script)
    assert ended.code == 0
    # it comes from the machine's own address: the helper speaks for it
    assert found.pop("internet") == found.pop("bound") == f"hello from {HERE}"
    refused = {"EHOSTUNREACH", "ENETUNREACH", "EPERM", "EACCES", "ECONNREFUSED", "EADDRNOTAVAIL"}
    refused |= {"EINVAL"}  # a link-local address without a link
    assert set(found.values()) <= refused, found
    # its own loopback is its own: nobody listens there
    assert found["loopback"] == "ECONNREFUSED"
    assert found["private"] == found["veth"] == "EHOSTUNREACH"


async def test_the_job_can_change_nothing_of_it(
    internet: None, bubblewrap: BubblewrapExecutor
) -> None:
    script = (
        LOOK
        + f"""
    import fcntl, os, struct, subprocess
    def tried(what):
        try:
            what()
            return 'done'
        except OSError as error:
            return errno.errorcode[error.errno]
    s = socket.socket()
    def address():
        fcntl.ioctl(s, 0x8916, struct.pack('16sHH4s8x', b'tap0', 2, 0, b'\\x0a\\x00\\x02\\x02'))
    def write():
        open('/proc/sys/net/ipv6/conf/all/disable_ipv6', 'w').write('0')
    found = {{
        'address': tried(address),
        'write': tried(write),
        'packet': tried(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
        'raw': tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)),
        'vsock': tried(lambda: socket.socket(40, socket.SOCK_STREAM)),
        'firewall': tried(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)),
        'tun': tried(lambda: os.open('/dev/net/tun', os.O_RDWR)),
        'xtables': tried(lambda: s.getsockopt(socket.IPPROTO_IP, 64, 84)),
        'caps': next(l.split()[1] for l in open('/proc/self/status') if l.startswith('CapEff')),
        'after': tcp('{INSIDE}', 8000),
    }}
    print(json.dumps(found))
    """
    )
    found, _ = await tell(bubblewrap, script)
    assert int(found.pop("caps"), 16) == 0
    assert "done" not in found.values(), found
    assert found["after"] == "EHOSTUNREACH"


async def test_names_are_asked_through_the_machines_own_server(
    internet: None,
    bubblewrap: BubblewrapExecutor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolv, wrapper = tmp_path / "resolv.conf", tmp_path / "bin" / "slirp4netns"
    resolv.write_text(f"nameserver {INTERNET}\n")
    real = shutil.which("slirp4netns")
    wrapper.parent.mkdir()
    mount = f"mount --bind {resolv} /etc/resolv.conf"
    wrapper.write_text(f'#!/bin/sh\nexec unshare -m sh -c \'{mount} && exec {real} "$@"\' x "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    script = (
        LOOK
        + """
    print(json.dumps({
        'name': socket.gethostbyname('shop.example.com'),
        'page': tcp('shop.example.com', 8000),
        'job': socket.gethostbyname('localhost'),
    }))
    """
    )
    found, _ = await tell(bubblewrap, script)
    assert found == {"name": INTERNET, "page": f"hello from {HERE}", "job": "127.0.0.1"}


async def test_without_asking_there_is_none_and_afterwards_nothing_is_left(
    internet: None, bubblewrap: BubblewrapExecutor
) -> None:
    script = (
        LOOK
        + f"""
    import os
    print(json.dumps({{'internet': tcp('{INTERNET}', 8000),
        'links': ' '.join(sorted(os.listdir('/sys/class/net'))) if os.path.exists('/sys') else '',
        'fds': ' '.join(sorted(os.listdir('/proc/self/fd')))}}))
    """
    )
    found, _ = await tell(bubblewrap, script, wanted=False)
    assert found["internet"] == "ENETUNREACH"
    assert found["fds"] == "0 1 2 3"  # the last is the listing itself

    space = await bubblewrap.prepare("job-2", SMALL)
    (space.path / "main.py").write_text("import time\nprint(1, flush=True)\ntime.sleep(600)")
    launch = Launch(
        "job-2", ("python", "main.py"), {}, space.path, host_python(), SMALL, network=True
    )
    job = await bubblewrap.start(launch)
    (helper,) = helpers()
    await job.kill()
    await space.close()
    await until(lambda: not alive(helper))
    assert helpers() == []


def helpers() -> list[int]:
    """Helpers that this process started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            parent = int(path.with_name("stat").read_text().rpartition(")")[2].split()[1])
            if path.read_bytes().startswith(b"slirp4netns") and parent == os.getpid():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return [pid for pid in found if alive(pid)]


async def test_the_helper_ends_with_a_seller_that_is_killed(internet: None) -> None:
    code = (
        "import asyncio, os, sys\n"
        "from computeswarm.seller.executors.network import attach\n"
        "async def main():\n"
        "    network = await attach(int(sys.argv[1]))\n"
        "    print(network.pid, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    job = await asyncio.create_subprocess_exec("unshare", "-n", "sleep", "600")
    try:
        mine = Path("/proc/self/ns/net").readlink()
        await until(lambda: Path(f"/proc/{job.pid}/ns/net").readlink() != mine)
        seller = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code, str(job.pid)), stdout=subprocess.PIPE
        )
        assert seller.stdout is not None
        helper = int(await seller.stdout.readline())
        status = Path(f"/proc/{helper}/status").read_text()
        assert "Seccomp:\t2" in status and "CapEff:\t0000000000000400" in status
        seller.kill()
        await seller.wait()
        await until(lambda: not alive(helper))
    finally:
        job.kill()
        await job.wait()


async def test_the_machines_own_namespace_is_never_touched(internet: None) -> None:
    with pytest.raises(ExecutorError, match="namespace of its own"):
        await attach(os.getpid())


async def test_without_the_tools_the_job_is_not_run(
    internet: None, bubblewrap: BubblewrapExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network.shutil, "which", lambda tool: None)
    assert "apt-get install iptables slirp4netns util-linux" in str(network_problems()[0])
    with pytest.raises(ExecutorError, match=r"can't have a network.*slirp4netns"):
        await tell(bubblewrap, "open('outputs/ran', 'w')\nprint('{}')")


def test_the_rules_name_the_machines_addresses() -> None:
    table = "  |-- 192.0.2.2\n     /32 host LOCAL\n  |-- 127.0.0.1\n     /32 host LOCAL\n"
    table += "  |-- 192.0.2.255\n     /32 link BROADCAST\n  |-- 192.0.2.0\n     /24 link UNICAST\n"
    assert own_addresses(table) == ["192.0.2.2"]
    made = rules(["192.0.2.2"]).splitlines()
    dropped = made.index("-A OUTPUT -d 192.0.2.2/32 -j REJECT --reject-with icmp-admin-prohibited")
    assert made.index("-A OUTPUT -o tap0 -p tcp -j ACCEPT") > dropped
    assert ":OUTPUT DROP" in made
