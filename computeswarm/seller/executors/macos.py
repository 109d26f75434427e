"""Jobs of trusted wallets on a Mac: macOS's sandbox-exec, with a profile that denies by default.

It keeps a job from the network and from the owner's files, but not from using up memory or disk:
macOS has nothing to cap them with. That is why only named wallets are served. The profile has been
checked as text; it has not been run on a Mac yet.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Sequence
from pathlib import Path

from computeswarm.core.nodes import Isolation
from computeswarm.seller.executors.base import Launch, Problem
from computeswarm.seller.executors.process import ProcessExecutor

PROGRAM = "/usr/bin/sandbox-exec"
_SYSTEM = ("/System", "/usr/lib", "/usr/share", "/Library/Frameworks", "/private/var/db/timezone")
_PROGRAMS = ("/bin", "/usr/bin", "/usr/libexec")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_METAL_SERVICES = ("com.apple.MTLCompilerService", "com.apple.gpumemd.source")
_METAL_CLIENTS = ("AGXDeviceUserClient", "IOSurfaceRootUserClient", "AGXCommandQueue")


class SandboxExecExecutor(ProcessExecutor):
    """See the protocol ``Executor``; everything but the wall is the process executor's."""

    name = "sandbox-exec"
    isolation = Isolation.MACOS
    owner_only = True

    async def check(self) -> list[Problem]:
        if platform.system() != "Darwin":
            return [Problem("sandbox-exec is macOS's own.", "Use docker or bubblewrap.")]
        if shutil.which(PROGRAM) is None:
            return [Problem(f"{PROGRAM} is gone.", "This macOS can't keep jobs in; use none.")]
        return await super().check()

    def walled(self, launch: Launch, command: Sequence[str]) -> list[str]:
        return [PROGRAM, "-p", profile(launch), *command]


def profile(launch: Launch) -> str:
    """The rules of one job, in the sandbox's own language (SBPL): the last rule that fits counts.

    A Metal GPU's rules are there only for a job that has it.
    """
    image = launch.image
    read = [*_SYSTEM, *_PROGRAMS, str(image.prefix.resolve()), str(launch.workdir.resolve())]
    if image.site is not None:
        read.append(str(image.site.resolve()))
    rules = [
        "(version 1)",
        "(deny default)",
        "(allow process-fork)",
        "(allow signal (target same-sandbox))",
        "(allow sysctl-read)",
        # a path can be walked, which tells that it exists, without anything in it being read
        "(allow file-read-metadata)",
        f"(allow file-read* {_paths('literal', _DEVICES)})",
        f"(allow file-read* {_paths('subpath', read)})",
        f"(allow process-exec* {_paths('subpath', read)})",
        f"(allow file-write* {_paths('subpath', [str(launch.workdir.resolve())])})",
        f"(allow file-write-data {_paths('literal', _DEVICES[:1])})",
        "(deny network*)",
    ]
    if launch.gpus:
        services = " ".join(f"(global-name {_quoted(name)})" for name in _METAL_SERVICES)
        clients = " ".join(f"(iokit-user-client-class {_quoted(name)})" for name in _METAL_CLIENTS)
        rules += [f"(allow mach-lookup {services})", f"(allow iokit-open {clients})"]
    return "\n".join(rules)


def _paths(kind: str, paths: Sequence[str | Path]) -> str:
    return " ".join(f"({kind} {_quoted(str(path))})" for path in paths)


def _quoted(text: str) -> str:
    r"""A string of SBPL, in which a quote and a backslash have one before them."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
