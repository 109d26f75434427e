"""The seccomp rules of bubblewrap's jobs, in the form that Docker's engine takes.

They hold from the container's first instruction. They go by name, and the engine's library drops
the names of calls newer than itself, so ``shim`` loads the same rules by number before the job.
"""

from __future__ import annotations

import errno
import json
import platform
from functools import cache
from typing import Any

from computeswarm.seller.executors import seccomp

_ARCHITECTURES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
_LOW_HALF = 0xFFFFFFFF


@cache
def seccomp_profile(machine_name: str | None = None) -> str:
    """JSON for ``--security-opt seccomp=``, as the engine's interface takes it.

    The engine's own profile of 20.10 lets io_uring and AF_VSOCK through.

    Raises:
        KeyError: there is no table for this machine.
    """
    name = machine_name or platform.machine()
    machine = seccomp.MACHINES[name]
    rules = [
        _rule(sorted(machine.denied | seccomp.SHARED_DENIED), errno.EPERM),
        _rule(sorted(seccomp.ABSENT), errno.ENOSYS),
        # a flag alone is enough, so each has a rule of its own
        *(
            _rule(["clone"], errno.EPERM, _arg(0, "SCMP_CMP_MASKED_EQ", flag, flag))
            for flag in seccomp.NAMESPACE_FLAGS
        ),
        *(
            _rule(["ioctl"], errno.EPERM, _arg(1, "SCMP_CMP_MASKED_EQ", _LOW_HALF, request))
            for request in seccomp.TERMINAL_IOCTLS
        ),
        *_sockets(),
    ]
    return json.dumps(
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            # calls of other architectures, such as 32-bit ones, end the process
            "architectures": [_ARCHITECTURES[name]],
            "syscalls": rules,
        }
    )


def _sockets() -> list[dict[str, Any]]:
    """Only UNIX and internet sockets, and netlink for routes."""
    allowed = (
        seccomp.AF_UNIX,
        seccomp.AF_INET,
        seccomp.AF_INET6,
        seccomp.AF_NETLINK,
    )
    last = max(allowed)
    families = [n for n in range(last) if n not in allowed]
    refused = errno.EAFNOSUPPORT
    return [
        *(_rule(["socket"], refused, _arg(0, "SCMP_CMP_EQ", n)) for n in families),
        _rule(["socket"], refused, _arg(0, "SCMP_CMP_GT", last)),
        _rule(
            ["socket"],
            refused,
            _arg(0, "SCMP_CMP_EQ", seccomp.AF_NETLINK),
            _arg(2, "SCMP_CMP_NE", seccomp.NETLINK_ROUTE),
        ),
        _rule(["socketpair"], refused, _arg(0, "SCMP_CMP_NE", seccomp.AF_UNIX)),
    ]


def _rule(names: list[str], error: int, *args: dict[str, Any]) -> dict[str, Any]:
    return {
        "names": names,
        "action": "SCMP_ACT_ERRNO",
        "errnoRet": error,
        "args": list(args),
    }


def _arg(index: int, op: str, value: int, second: int = 0) -> dict[str, Any]:
    return {"index": index, "op": op, "value": value, "valueTwo": second}
