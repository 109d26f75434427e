"""A job's way to the internet, where its buyer asks for one and the seller lets jobs have it.

The job keeps the network namespace of its own that every sandbox gives it. Before its first
instruction, rules are laid into that namespace and slirp4netns is attached to it: a program that
speaks for the job over ordinary sockets, as a browser would. One way for every executor: it takes
the process id of anything in the namespace.

What a job reaches is the public internet by IPv4. The rules refuse this machine (its loopback and
every address of its own), private and shared address space, link-local with the clouds' metadata,
multicast, and mail (port 25); IPv6 stays off altogether. The job has no capability over its
namespace, so it can't change them, and the helper runs in a sandbox with a seccomp filter, and ends
with the job or with the seller, however he ends.

What this does not do: a name server that the seller's machine uses answers the job's questions too,
so it learns the names, and tells what only it knows; addresses which a router translates to this
machine's are public ones; bytes are not counted. The helper is not within the job's CPU share.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import platform
import re
import select
import shutil
from pathlib import Path

from computeswarm.core.errors import ExecutorError
from computeswarm.core.nodes import Isolation
from computeswarm.seller.executors.base import Problem

NAME_SERVER = "10.0.2.3"
"""Where the helper answers the job's questions, by those whom the host asks."""
RESOLV_CONF = f"nameserver {NAME_SERVER}\noptions edns0\n"
HOSTS = "127.0.0.1 localhost\n127.0.1.1 job\n"

_TAP = "tap0"
_READY_SECONDS = 10.0
_END_SECONDS = 5.0
_OPEN_FILES = 4096
_TOOLS = {"slirp4netns": "slirp4netns", "iptables-restore": "iptables", "nsenter": "util-linux"}
_REFUSED = (
    "0.0.0.0/8",  # this network
    "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16",  # private, RFC 1918; the helper's own too
    "100.64.0.0/10",  # carriers' NAT, RFC 6598
    "127.0.0.0/8",
    "169.254.0.0/16",  # link-local; 169.254.169.254 is the clouds' metadata
    "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15",  # protocols, 6to4 relays, benchmarks
    "224.0.0.0/4", "240.0.0.0/4",  # multicast, reserved and broadcast
)  # fmt: skip
_MAIL = "25"
_CLOSED_6 = """*filter
:INPUT DROP
:FORWARD DROP
:OUTPUT DROP
-A INPUT -i lo -j ACCEPT
-A OUTPUT -o lo -j ACCEPT
COMMIT
"""
_LAY_RULES = """set -e
printf '%s' "$1" | iptables-restore -w 5
[ ! -d /proc/sys/net/ipv6 ] || printf '%s' "$2" | ip6tables-restore -w 5
"""


def network_problems() -> list[Problem]:
    """Why jobs can't have a network here; empty where they can."""
    if platform.system() != "Linux":
        return [Problem("A network for jobs needs Linux.", "Leave allow_network off.")]
    if os.geteuid() != 0:
        why = "Only root can lay the rules that keep jobs away from your own networks."
        return [Problem(why, "Run the seller as root, or leave allow_network off.")]
    missing = sorted({package for tool, package in _TOOLS.items() if shutil.which(tool) is None})
    if missing:
        names = " ".join(missing)
        return [Problem(f"{names} isn't installed.", f"Run `apt-get install {names}`.")]
    if not Path("/dev/net/tun").exists():
        return [Problem("There is no /dev/net/tun.", "Load the kernel's module: `modprobe tun`.")]
    return []


def offer_problems(isolation: Isolation) -> list[Problem]:
    """Why a seller with such walls round his jobs can't offer them a network."""
    if isolation is Isolation.NONE:
        return []  # it is the owner's own job, and has what he has
    if isolation is Isolation.GVISOR:
        why = "gVisor brings a network of its own, which can't be kept from yours here."
        return [Problem(why, "Use executor = bubblewrap, or leave allow_network off.")]
    return network_problems()


def own_addresses(table: str) -> list[str]:
    """This machine's IPv4 addresses, read off the kernel's ``/proc/net/fib_trie``."""
    found = re.findall(r"\|-- ([0-9.]+)\n\s+/32 host LOCAL", table)
    return sorted({a for a in found if not ipaddress.ip_address(a).is_loopback})


def rules(own: list[str]) -> str:
    """What a job may send, as ``iptables-restore`` reads it; ``own`` are addresses of the host."""
    refuse = "-j REJECT --reject-with icmp-admin-prohibited"
    lines = [
        "*filter",
        ":INPUT ACCEPT",
        ":FORWARD DROP",
        ":OUTPUT DROP",
        "-A OUTPUT -o lo -j ACCEPT",
    ]
    ask = f"-A OUTPUT -d {NAME_SERVER}/32 -p"
    lines += [f"{ask} {protocol} --dport 53 -j ACCEPT" for protocol in ("udp", "tcp")]
    lines += [f"-A OUTPUT -d {place} {refuse}" for place in (*_REFUSED, *(f"{a}/32" for a in own))]
    lines.append(f"-A OUTPUT -p tcp --dport {_MAIL} {refuse}")
    lines += [f"-A OUTPUT -o {_TAP} -p {p} -j ACCEPT" for p in ("tcp", "udp", "icmp")]
    return "\n".join([*lines, "COMMIT", ""])


class Network:
    """A helper that is attached to one job's namespace."""

    def __init__(self, process: asyncio.subprocess.Process, lifeline: int) -> None:
        self._process = process
        self._lifeline = lifeline
        """The helper ends when this pipe does, so also when the seller is killed."""

    @property
    def pid(self) -> int:
        """Of the helper."""
        return self._process.pid

    async def close(self) -> None:
        """End the helper. May be called twice."""
        if self._lifeline < 0:
            return
        os.close(self._lifeline)
        self._lifeline = -1
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


async def attach(pid: int) -> Network:
    """Give the network namespace of process ``pid`` its way out, the rules first.

    The process must not run anything of the job's yet.

    Raises:
        ExecutorError: it can't be done; the job has no network then.
    """
    if problems := await asyncio.to_thread(network_problems):
        raise ExecutorError(f"The job can't have a network. {problems[0]}")
    try:
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ExecutorError("The job can't have a network: it has ended.") from error
    try:
        _check_own(namespace)
        await _lay_rules(namespace)
        return await _help(namespace)
    finally:
        os.close(namespace)


def _check_own(namespace: int) -> None:
    """The rules would cut off the machine itself, and the job would have all of its network."""
    if os.path.samestat(os.fstat(namespace), Path("/proc/self/ns/net").stat()):
        raise ExecutorError("The job has no network namespace of its own.")


async def _lay_rules(namespace: int) -> None:
    own = own_addresses(await asyncio.to_thread(Path("/proc/net/fib_trie").read_text))
    place = f"--net=/proc/self/fd/{namespace}"
    process = await asyncio.create_subprocess_exec(
        *("nsenter", place, "--", "/bin/sh", "-c", _LAY_RULES, "rules", rules(own), _CLOSED_6),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=(namespace,),
    )
    _, said = await process.communicate()
    if process.returncode:
        why = said.decode(errors="replace").strip().splitlines()[-1:] or ["no reason given"]
        raise ExecutorError(f"The rules for the job's network can't be laid ({why[0][:200]}).")


async def _help(namespace: int) -> Network:
    ready, ready_end = os.pipe()
    watch, lifeline = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *("prlimit", f"--nofile={_OPEN_FILES}", "--core=0"),
            *("slirp4netns", "--configure", "--mtu=65520", "--disable-host-loopback"),
            *("--enable-sandbox", "--enable-seccomp"),
            *(f"--ready-fd={ready_end}", f"--exit-fd={watch}"),
            *("--netns-type=path", f"/proc/self/fd/{namespace}", _TAP),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=(namespace, ready_end, watch),
        )
    except OSError as error:
        os.close(ready)
        os.close(lifeline)
        raise ExecutorError(f"slirp4netns can't be started: {error.strerror}.") from error
    finally:
        os.close(ready_end)
        os.close(watch)
    network = Network(process, lifeline)
    try:
        up = await asyncio.to_thread(_said_ready, ready)
    except BaseException:
        await network.close()
        raise
    finally:
        os.close(ready)
    if not up:
        await network.close()
        raise ExecutorError("slirp4netns could not set up the job's network.")
    return network


def _said_ready(fd: int) -> bool:
    readable, _, _ = select.select([fd], [], [], _READY_SECONDS)
    return bool(readable) and os.read(fd, 1) == b"1"
