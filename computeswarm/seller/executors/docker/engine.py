"""Docker's engine over its interface: connecting, what it can do, and what it refuses."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from computeswarm.core.errors import ExecutorError
from computeswarm.core.text import clean_line
from computeswarm.seller.executors.base import Problem

if TYPE_CHECKING:
    import aiodocker

DEFAULT_SOCKET = "/var/run/docker.sock"
_OLDEST_API = (1, 41)
"""Docker 20.10: the first whose seccomp profiles can answer ENOSYS."""
_CDI_API = (1, 44)
_CONNECT_SECONDS = 10.0
_UNREACHABLE = 900
"""What the client gives for a status where it found nobody to ask."""
_INSTALL = "Install it (`apt-get install docker.io`, or docs.docker.com/engine/install)."


def socket_path(environ: Mapping[str, str] = os.environ) -> str:
    """Where the engine listens: DOCKER_HOST if it names a socket of this machine."""
    host = environ.get("DOCKER_HOST", "")
    return host.removeprefix("unix://") if host.startswith("unix://") else DEFAULT_SOCKET


@dataclass(frozen=True, slots=True)
class Facts:
    """What an engine says of itself."""

    version: str
    api: tuple[int, int]
    runtimes: frozenset[str]
    cgroup_driver: str
    cdi: bool
    security: tuple[str, ...]
    missing_limits: tuple[str, ...]
    root_dir: str

    @classmethod
    def read(cls, version: Mapping[str, Any], info: Mapping[str, Any]) -> Facts:
        """From ``GET /version`` and ``GET /info``."""
        major, _, minor = str(version.get("ApiVersion", "0.0")).partition(".")
        api = (int(major), int(minor or 0))
        limits = {"MemoryLimit": "memory", "PidsLimit": "processes", "CpuCfsQuota": "CPU"}
        return cls(
            version=clean_line(str(version.get("Version", "?")), limit=40),
            api=api,
            runtimes=frozenset(info.get("Runtimes") or ()),
            cgroup_driver=str(info.get("CgroupDriver", "")),
            cdi=api >= _CDI_API and bool(info.get("CDISpecDirs")),
            security=tuple(info.get("SecurityOptions") or ()),
            missing_limits=tuple(w for key, w in limits.items() if not info.get(key)),
            root_dir=str(info.get("DockerRootDir", "")),
        )

    def problems(self) -> list[Problem]:
        """Why jobs can't be put behind walls by it."""
        found = []
        if self.api < _OLDEST_API:
            found.append(
                Problem(f"Docker {self.version} is too old.", "Install Docker 20.10 or newer.")
            )
        if any("name=rootless" in option for option in self.security):
            found.append(
                Problem(
                    "Docker runs rootless, where a job's limits can't be kept for certain.",
                    "Use an engine that runs as root, or the executor bubblewrap.",
                )
            )
        if not any("name=seccomp" in option for option in self.security):
            found.append(
                Problem("Docker's engine has no seccomp.", "Use a kernel and an engine with it.")
            )
        if self.missing_limits:
            what = ", ".join(self.missing_limits)
            found.append(
                Problem(
                    f"The engine can't limit a job's {what}.",
                    "Boot with `cgroup_enable=memory` (cgroup v1) or use cgroup v2.",
                )
            )
        return found


class Engine:
    """One connection to the engine, made when it is first needed."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._client: aiodocker.Docker | None = None

    @property
    def client(self) -> aiodocker.Docker:
        """The client; errors of its calls go through ``saying``."""
        if self._client is None:
            import aiodocker
            import aiohttp

            # a connection for each container that is followed, and some to spare
            connector = aiohttp.UnixConnector(self.path, limit=0)
            self._client = aiodocker.Docker(
                url="http://docker",  # the connector knows the way
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
            )
        return self._client

    async def close(self) -> None:
        """Close all connections; every container that is followed sees its stdin end."""
        client, self._client = self._client, None
        if client is not None:
            connector = client.connector
            await client.close()
            await connector.close()

    async def facts(self) -> Facts:
        """Ask the engine what it is.

        Raises:
            ExecutorError: it doesn't answer.
        """
        async with saying("Docker's engine can't be asked"), asyncio.timeout(_CONNECT_SECONDS):
            version, info = await self.client.version(), await self.client.system.info()
        return Facts.read(version, info)

    async def check(self) -> tuple[Facts | None, list[Problem]]:
        """What it is (if it answers), and why it can't be used."""
        if platform.system() != "Linux":
            return None, [Problem("The executor docker needs Linux.", "Use sandbox-exec on a Mac.")]
        if not os.path.exists(self.path):  # noqa: PTH110 - one call before anything is imported
            why = f"There is no Docker engine at {self.path}."
            return None, [Problem(why, f"{_INSTALL} Then start it: `systemctl start docker`.")]
        if not os.access(self.path, os.R_OK | os.W_OK):
            return None, [
                Problem(
                    f"{self.path} may not be opened by this user.",
                    "Add the user to the group docker (`usermod -aG docker USER`); note that this"
                    " group can do all that root can.",
                )
            ]
        try:
            facts = await self.facts()
        except ExecutorError as error:
            return None, [Problem(error.detail, "Start the engine: `systemctl start docker`.")]
        return facts, facts.problems()


@asynccontextmanager
async def saying(what: str) -> AsyncIterator[None]:
    """Turn the client's errors into one sentence.

    Raises:
        ExecutorError: ``what``, and the engine's own reason.
    """
    import aiodocker
    import aiohttp

    try:
        yield
    except aiodocker.DockerError as error:
        if error.status == _UNREACHABLE:  # its text names paths of this machine
            raise ExecutorError(f"{what}: Docker's engine doesn't answer.") from error
        raise ExecutorError(f"{what}: {clean_line(str(error.message), limit=300)}.") from error
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        reason = clean_line(str(error), limit=200) or type(error).__name__
        raise ExecutorError(f"{what}: the engine doesn't answer ({reason}).") from error


@asynccontextmanager
async def quietly() -> AsyncIterator[None]:
    """For a last request to a container that may have gone already, or whose engine has."""
    with contextlib.suppress(ExecutorError):
        async with saying("The container can't be ended"):
            yield
