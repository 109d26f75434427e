"""The filter, run by a small interpreter of classic BPF, for both machines."""

from __future__ import annotations

import ctypes
import errno
import struct

import pytest

from computeswarm.seller.executors.seccomp import ABSENT, MACHINES, SHARED_DENIED, build_filter

ALLOW, KILL = "allow", "kill"


def verdict(program: bytes, arch: int, number: int, *args: int) -> str:
    data = struct.pack("<iIQ6Q", number, arch, 0, *(*args, *[0] * (6 - len(args))))
    code = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    at = accumulator = 0
    while True:
        op, if_true, if_false, k = code[at]
        at += 1
        if op == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif op == 0x06:
            action = k & 0xFFFF0000
            names = {0x7FFF0000: ALLOW, 0x80000000: KILL}
            return names.get(action) or errno.errorcode[k & 0xFFFF]
        else:
            holds = {
                0x15: accumulator == k,
                0x35: accumulator >= k,
                0x45: accumulator & k != 0,
            }[op]
            at += if_true if holds else if_false


@pytest.mark.parametrize("name", list(MACHINES))
def test_verdicts(name: str) -> None:
    machine, program = MACHINES[name], build_filter(name)
    arch = machine.audit_arch
    assert len(program) // 8 < 4096  # BPF_MAXINSNS
    for number in (machine.denied | SHARED_DENIED).values():
        assert verdict(program, arch, number) == "EPERM"
    for number in (*ABSENT.values(), 463, 1000):
        assert verdict(program, arch, number) == "ENOSYS"
    other = next(m.audit_arch for m in MACHINES.values() if m is not machine)
    for foreign in (other, 0x40000003):  # the second is i386
        assert verdict(program, foreign, 0) == KILL
    plain = [n for n in range(424) if n not in machine.denied.values()]
    special = {machine.clone, machine.socket, machine.socketpair, machine.ioctl}
    assert {verdict(program, arch, n) for n in plain if n not in special} == {ALLOW}


@pytest.mark.parametrize("name", list(MACHINES))
def test_verdicts_on_arguments(name: str) -> None:
    machine, program = MACHINES[name], build_filter(name)

    def ask(number: int, *args: int) -> str:
        return verdict(program, machine.audit_arch, number, *args)

    thread, vfork = 0x3D0F00, 0x4111
    assert ask(machine.clone, thread) == ask(machine.clone, vfork) == ALLOW
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert ask(machine.clone, flag | 17) == "EPERM"
    for family in (1, 2, 10):
        assert ask(machine.socket, family, 1, 0) == ALLOW
    assert ask(machine.socket, 16, 3, 0) == ALLOW
    assert ask(machine.socket, 16, 3, 12) == "EAFNOSUPPORT"
    assert ask(machine.socket, 40, 1, 0) == "EAFNOSUPPORT"
    # The kernel reads the family as 32 bits; what stands above must not hide it.
    assert ask(machine.socket, 1 << 32 | 40, 1, 0) == "EAFNOSUPPORT"
    assert ask(machine.socketpair, 1) == ALLOW
    assert ask(machine.socketpair, 2) == "EAFNOSUPPORT"
    assert ask(machine.ioctl, 0, 0x5401) == ALLOW
    assert ask(machine.ioctl, 0, 0x5412) == ask(machine.ioctl, 0, 1 << 32 | 0x5412) == "EPERM"
    if machine.x32:
        assert ask(0x40000000 | 39) == KILL


@pytest.mark.parametrize("name", list(MACHINES))
def test_numbers_are_the_kernels(name: str) -> None:
    """As libseccomp has them, of which each machine's table was made from the kernel's sources."""
    try:
        resolve = ctypes.CDLL("libseccomp.so.2").seccomp_syscall_resolve_name_arch
    except OSError:
        pytest.skip("libseccomp isn't installed")
    resolve.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
    machine = MACHINES[name]
    own = {
        **machine.denied,
        **SHARED_DENIED,
        **ABSENT,
        "clone": machine.clone,
        "socket": machine.socket,
        "socketpair": machine.socketpair,
        "ioctl": machine.ioctl,
    }
    theirs = {call: resolve(machine.audit_arch, call.encode()) for call in own}
    newest = {call for call, number in theirs.items() if number < 0 and own[call] > 450}
    assert {c: n for c, n in theirs.items() if c not in newest} == {
        c: n for c, n in own.items() if c not in newest
    }
