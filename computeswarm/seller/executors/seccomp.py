"""A seccomp filter for jobs, assembled here as classic BPF.

A job keeps the ordinary system calls of a program that computes and loses what opens a way to the
rest of the kernel: io_uring, odd socket families, keyrings, eBPF, mounts, namespaces, tracing other
processes, modules, and whatever a future kernel adds. Numbers come from the kernel's
``arch/x86/entry/syscalls/syscall_64.tbl`` and ``include/uapi/asm-generic/unistd.h``; the machine
from ``include/uapi/linux/bpf_common.h`` and ``Documentation/userspace-api/seccomp_filter.rst``.
"""

from __future__ import annotations

import errno
import platform
import struct
from dataclasses import dataclass
from functools import cache

_LD_ABS, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06
_NR, _ARCH, _ARGS = 0, 4, 16  # offsets in struct seccomp_data; both machines are little-endian
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000

AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
NETLINK_ROUTE = 0
NAMESPACE_FLAGS = (
    0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip
"""CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET."""
_NEW_NAMESPACE = sum(NAMESPACE_FLAGS)
TERMINAL_IOCTLS = (0x5412, 0x541C, 0x5423)  # TIOCSTI, TIOCLINUX, TIOCSETD
_X32_BIT = 0x40000000
_LAST_KNOWN = 462  # mseal; from 424 on all machines share their numbers

SHARED_DENIED = {
    "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432,
    "fspick": 433, "pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442,
    "quotactl_fd": 443, "memfd_secret": 447, "statmount": 457, "listmount": 458,
    "lsm_set_self_attr": 460,
}  # fmt: skip
ABSENT = {"io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "clone3": 435}
"""Answered with ENOSYS, as on an older kernel, so that libraries fall back."""


@dataclass(frozen=True)
class Machine:
    """The numbers of one architecture."""

    audit_arch: int
    denied: dict[str, int]
    clone: int
    socket: int
    socketpair: int
    ioctl: int
    x32: bool


MACHINES = {
    "x86_64": Machine(
        audit_arch=0xC000003E,
        denied={
            "acct": 163, "add_key": 248, "adjtimex": 159, "bpf": 321, "chroot": 161,
            "clock_adjtime": 305, "clock_settime": 227, "create_module": 174,
            "delete_module": 176, "fanotify_init": 300, "fanotify_mark": 301,
            "finit_module": 313, "get_kernel_syms": 177, "init_module": 175, "ioperm": 173,
            "iopl": 172, "kcmp": 312, "kexec_file_load": 320, "kexec_load": 246,
            "keyctl": 250, "lookup_dcookie": 212, "migrate_pages": 256, "modify_ldt": 154,
            "mount": 165, "move_pages": 279, "name_to_handle_at": 303, "nfsservctl": 180,
            "open_by_handle_at": 304, "perf_event_open": 298, "pivot_root": 155,
            "process_vm_readv": 310, "process_vm_writev": 311, "ptrace": 101,
            "query_module": 178, "quotactl": 179, "reboot": 169, "request_key": 249,
            "setdomainname": 171, "sethostname": 170, "setns": 308, "settimeofday": 164,
            "swapoff": 168, "swapon": 167, "_sysctl": 156, "sysfs": 139, "syslog": 103,
            "umount2": 166, "unshare": 272, "uselib": 134, "userfaultfd": 323, "ustat": 136,
            "vhangup": 153,
        },
        clone=56, socket=41, socketpair=53, ioctl=16, x32=True,
    ),
    "aarch64": Machine(
        audit_arch=0xC00000B7,
        denied={
            "acct": 89, "add_key": 217, "adjtimex": 171, "bpf": 280, "chroot": 51,
            "clock_adjtime": 266, "clock_settime": 112, "delete_module": 106,
            "fanotify_init": 262, "fanotify_mark": 263, "finit_module": 273,
            "init_module": 105, "kcmp": 272, "kexec_file_load": 294, "kexec_load": 104,
            "keyctl": 219, "lookup_dcookie": 18, "migrate_pages": 238, "mount": 40,
            "move_pages": 239, "name_to_handle_at": 264, "nfsservctl": 42,
            "open_by_handle_at": 265, "perf_event_open": 241, "pivot_root": 41,
            "process_vm_readv": 270, "process_vm_writev": 271, "ptrace": 117, "quotactl": 60,
            "reboot": 142, "request_key": 218, "setdomainname": 162, "sethostname": 161,
            "setns": 268, "settimeofday": 170, "swapoff": 225, "swapon": 224, "syslog": 116,
            "umount2": 39, "unshare": 97, "userfaultfd": 282, "vhangup": 58,
        },
        clone=220, socket=198, socketpair=199, ioctl=29, x32=False,
    ),
}  # fmt: skip


def _op(code: int, k: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, k)


def _load_arg(index: int) -> bytes:
    """The low half of an argument; the kernel itself reads these arguments as 32-bit."""
    return _op(_LD_ABS, _ARGS + 8 * index)


def _fail(number: int) -> bytes:
    return _op(_RET, _ERRNO | number)


def _only_for(syscall: int, body: list[bytes]) -> list[bytes]:
    """Run ``body`` (which must return) for one system call and skip it for others."""
    return [_op(_JEQ, syscall, 0, len(body)), *body]


def _clone(machine: Machine) -> list[bytes]:
    check = [
        _load_arg(0),
        _op(_JSET, _NEW_NAMESPACE, 0, 1),
        _fail(errno.EPERM),
        _op(_RET, _ALLOW),
    ]
    return _only_for(machine.clone, check)


def _socket(machine: Machine) -> list[bytes]:
    check = [
        _load_arg(0),
        _op(_JEQ, AF_UNIX, 5, 0),
        _op(_JEQ, AF_INET, 4, 0),
        _op(_JEQ, AF_INET6, 3, 0),
        _op(_JEQ, AF_NETLINK, 0, 3),
        _load_arg(2),
        _op(_JEQ, NETLINK_ROUTE, 0, 1),
        _op(_RET, _ALLOW),
        _fail(errno.EAFNOSUPPORT),
    ]
    pair = [
        _load_arg(0),
        _op(_JEQ, AF_UNIX, 0, 1),
        _op(_RET, _ALLOW),
        _fail(errno.EAFNOSUPPORT),
    ]
    return _only_for(machine.socket, check) + _only_for(machine.socketpair, pair)


def _ioctl(machine: Machine) -> list[bytes]:
    check = [_load_arg(1)]
    for request in TERMINAL_IOCTLS:
        check += [_op(_JEQ, request, 0, 1), _fail(errno.EPERM)]
    return _only_for(machine.ioctl, [*check, _op(_RET, _ALLOW)])


@cache
def build_filter(machine_name: str | None = None) -> bytes:
    """The filter as an array of ``struct sock_filter``, as ``bwrap --seccomp`` reads it.

    Raises:
        KeyError: there is no table for this machine.
    """
    machine = MACHINES[machine_name or platform.machine()]
    program = [_op(_LD_ABS, _ARCH), _op(_JEQ, machine.audit_arch, 1, 0), _op(_RET, _KILL)]
    program.append(_op(_LD_ABS, _NR))
    if machine.x32:
        program += [_op(_JGE, _X32_BIT, 0, 1), _op(_RET, _KILL)]
    program += [_op(_JGE, _LAST_KNOWN + 1, 0, 1), _fail(errno.ENOSYS)]
    for number in sorted(ABSENT.values()):
        program += _only_for(number, [_fail(errno.ENOSYS)])
    for number in sorted({**machine.denied, **SHARED_DENIED}.values()):
        program += _only_for(number, [_fail(errno.EPERM)])
    program += _clone(machine) + _socket(machine) + _ioctl(machine)
    program.append(_op(_RET, _ALLOW))
    return b"".join(program)
