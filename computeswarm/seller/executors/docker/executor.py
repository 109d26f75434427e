"""Jobs in hardened containers; a container is made ahead for each job that is to be expected.

How a job is kept in: see ``spec``. How it is told what to do, and dies with the seller: see
``shim``. Its directory is the bubblewrap executor's: a file system of a fixed size.
"""

from __future__ import annotations

import asyncio
import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from computeswarm.core.errors import ExecutorError, Unprocessable
from computeswarm.core.nodes import GPUInfo, Isolation
from computeswarm.seller.executors import devices, seccomp
from computeswarm.seller.executors.base import OUTPUTS_DIR, Launch, Limits, Problem
from computeswarm.seller.executors.docker.container import Container, DockerRunning
from computeswarm.seller.executors.docker.engine import Engine, Facts, quietly, saying, socket_path
from computeswarm.seller.executors.docker.spec import (
    JOB_DIR,
    OWNER_LABEL,
    SHIM_FILE,
    SITE_DIR,
    Shape,
    Surroundings,
    container,
)
from computeswarm.seller.executors.docker.toolkit import toolkit_problems
from computeswarm.seller.executors.environment import job_environment
from computeswarm.seller.executors.network import RESOLV_CONF, Network, attach
from computeswarm.seller.executors.workspace import (
    DirectoryWorkspace,
    MountedWorkspace,
    Places,
    checked_job_id,
    hand_over,
    watch_size,
)
from computeswarm.seller.images import Image

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

Directory = MountedWorkspace | DirectoryWorkspace


class DockerExecutor:
    """See the protocol ``Executor``.

    Args:
        home: the seller's state directory; workspaces live below it.
        socket: where the engine listens.
        gpus: the machine has some, so that a job may need the runtime that knows them.
        device_root: where /dev and /sys are looked up; another path in tests.
    """

    name = "docker"
    owner_only = False

    def __init__(
        self,
        home: Path,
        *,
        socket: str = "",
        gpus: Sequence[GPUInfo] = (),
        device_root: Path = Path("/"),
    ) -> None:
        self._places = Places.of(home / "docker")
        self.engine = Engine(socket or socket_path())
        self._gpus = tuple(gpus)
        self._device_root = device_root
        self._facts: Facts | None = None
        self._spaces: dict[str, DockerWorkspace] = {}
        self._spare: DockerWorkspace | None = None
        self._made = 0

    @property
    def isolation(self) -> Isolation:
        """gVisor only where every job gets it: its runtime knows few cards, so none is offered."""
        return Isolation.GVISOR if self._gvisor(self._gpus) else Isolation.CONTAINER

    def _gvisor(self, gpus: Sequence[GPUInfo]) -> bool:
        return self._facts is not None and "runsc" in self._facts.runtimes and not gpus

    async def check(self) -> list[Problem]:
        facts, problems = await self.engine.check()
        if platform.machine() not in seccomp.MACHINES:
            problems.append(Problem(f"No seccomp table for {platform.machine()}.", "Use x86_64."))
        self._facts = facts
        if any(gpu.vendor == "nvidia" for gpu in self._gpus):
            problems += await asyncio.to_thread(toolkit_problems)
        return problems

    async def _known(self) -> Facts:
        if self._facts is None:
            self._facts = await self.engine.facts()
        return self._facts

    def _shim(self) -> Path:
        """The seller's folder has the same path for the engine; where the program lies may not."""
        copy, text = self._places.home / SHIM_FILE.name, SHIM_FILE.read_bytes()
        if not copy.exists() or copy.read_bytes() != text:
            copy.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # its own file for each: the first jobs of a new seller may start at once
            number, fresh = tempfile.mkstemp(prefix=f"{copy.name}-", dir=copy.parent)
            with os.fdopen(number, "wb") as file:
                file.write(text)
                os.fchmod(number, 0o444)  # the job's user reads it
            Path(fresh).replace(copy)
        return copy

    async def reap(self) -> None:
        async with saying("What an earlier run left can't be removed"):
            for left in await self._ours():
                await left.delete(force=True, v=True)
        await asyncio.to_thread(self._places.remove_all)

    async def _ours(self) -> list:  # type: ignore[type-arg]  # aiodocker's containers
        label = f"{OWNER_LABEL}={self._places.tag}"
        return list(await self.engine.client.containers.list(all=True, filters={"label": [label]}))

    async def close(self) -> None:
        for space in [*self._spaces.values(), *([self._spare] if self._spare else [])]:
            await space.close()
        self._spare = None
        async with quietly():
            for left in await self._ours():
                await left.delete(force=True, v=True)
        await self.engine.close()
        await asyncio.to_thread(self._places.leave)

    async def expect(self, image: Image, limits: Limits, gpus: Sequence[GPUInfo] = ()) -> None:
        """Have one container ready for the next job of this shape; the one before it goes."""
        if image.reference:
            return  # its Python is anybody's program, which would have the GPU before anyone paid
        shape = _shape(image, limits, gpus)
        spare = self._spare
        if spare is not None and spare.shape == shape:
            return
        self._spare = None
        if spare is not None:
            await spare.close()
        self._spare = await self._make(self._name(), shape)

    def _name(self) -> str:
        self._made += 1
        return f"spare-{self._made}"

    async def prepare(
        self,
        job_id: str,
        limits: Limits,
        *,
        image: Image | None = None,
        gpus: Sequence[GPUInfo] = (),
    ) -> DockerWorkspace:
        checked_job_id(job_id)
        if job_id in self._spaces:
            raise ExecutorError(f"The workspace of job {job_id} exists already.")
        shape = _shape(image, limits, gpus) if image is not None else None
        spare = await self._take_spare(shape)
        if spare is not None:
            space = spare
        elif shape is not None:
            space = await self._make(job_id, shape)
        else:
            inner = await self._places.workspace(job_id, limits)
            if isinstance(inner, MountedWorkspace):
                _shut(inner)
            space = DockerWorkspace(inner, None, None)
        space.job_id = job_id
        space.forget = self._spaces.pop
        self._spaces[job_id] = space
        return space

    async def _take_spare(self, shape: Shape | None) -> DockerWorkspace | None:
        """The spare of this shape, used once, by one buyer; None if there is none alive."""
        spare = self._spare
        if spare is None or spare.shape != shape:
            return None
        self._spare = None
        if spare.container is not None and await spare.container.lives():
            return spare
        await spare.close()  # the engine was restarted since
        return None

    async def _make(self, name: str, shape: Shape) -> DockerWorkspace:
        inner = await self._places.workspace(name, shape.limits)
        if isinstance(inner, DirectoryWorkspace):
            return DockerWorkspace(inner, None, None)  # nothing can shut it to its own owner
        try:
            _shut(inner)
            made = await self._container(shape, inner)
        except BaseException:
            await inner.close()
            raise
        return DockerWorkspace(inner, made, shape)

    async def _container(self, shape: Shape, space: Directory) -> Container:
        facts = await self._known()
        async with saying("The image isn't in Docker's engine; build or pull it again"):
            details = await self.engine.client.images.inspect(shape.image)
        found = devices.find(
            [gpu for gpu in shape.gpus if gpu.vendor != "nvidia"], root=self._device_root
        )
        around = Surroundings(
            tag=self._places.tag,
            shim=await asyncio.to_thread(self._shim),
            # systemd's driver wants the name of a slice, and has one of its own
            cgroup_parent="/computeswarm" if facts.cgroup_driver == "cgroupfs" else "",
            runtime="runsc" if self._gvisor(shape.gpus) else "",
            cdi=facts.cdi,
            volumes=tuple(sorted((details.get("Config") or {}).get("Volumes") or ())),
            devices=tuple(node.target for node in found.nodes),
            groups=tuple(found.groups),
            resolv_conf=self._resolv_conf(),
        )
        body = container(shape, around, space.path, _user(space))
        return await Container.open(self.engine, body)

    def _resolv_conf(self) -> Path:
        file = self._places.run / "resolv.conf"
        if not file.exists():
            file.write_text(RESOLV_CONF)
            file.chmod(0o644)
        return file

    async def start(self, launch: Launch) -> DockerRunning:
        space = self._spaces.get(launch.job_id)
        if space is None or space.path != launch.workdir:
            raise ExecutorError(f"The workspace of job {launch.job_id} was not prepared here.")
        if launch.network and self._gvisor(launch.gpus):
            raise Unprocessable("Jobs have no network on this node; send the data as inputs.")
        if not launch.command:
            raise Unprocessable("The job has no command; name a script.")
        env = _environment(launch)
        shape = _shape(launch.image, launch.limits, launch.gpus)
        if space.container is None or space.shape != shape:
            await space.drop_container()
            space.container, space.shape = await self._container(shape, space.inner), shape
        if isinstance(space.inner, MountedWorkspace):
            hand_over(space.path, space.inner.uid)
            os.chown(space.path, space.inner.uid, space.inner.uid)
        if launch.network:  # while the shim waits: nothing of the job's runs yet
            space.network = await attach(space.container.pid)
        await space.container.order(_command(launch), env)
        running = DockerRunning(
            space.container, launch.limits.output_bytes, finish=space.stop_watching
        )
        if isinstance(space.inner, DirectoryWorkspace):
            space.watch = asyncio.create_task(
                watch_size(space.path, launch.limits, running.kill), name="watch-size"
            )
        return running


@dataclass
class DockerWorkspace:
    """A job's directory, and the container that was made ahead for it."""

    inner: Directory
    container: Container | None
    shape: Shape | None
    job_id: str = ""
    watch: asyncio.Task[None] | None = None
    network: Network | None = None
    forget: Callable[[str, None], object] = field(default=lambda *_: None, repr=False)

    @property
    def path(self) -> Path:
        return self.inner.path

    def stop_watching(self) -> None:
        """The job has ended; it grows no more."""
        if self.watch is not None:
            self.watch.cancel()

    async def drop_container(self) -> None:
        """Remove the container, whatever runs in it."""
        made, self.container = self.container, None
        if made is not None:
            await made.remove()

    async def close(self) -> None:
        self.stop_watching()
        await self.drop_container()
        if self.network is not None:
            await self.network.close()
        self.forget(self.job_id, None)
        await self.inner.close()


def _shape(image: Image, limits: Limits, gpus: Sequence[GPUInfo]) -> Shape:
    """Raises Unprocessable: there is no container of this image."""
    if not image.container:
        raise Unprocessable(
            f"The image {image.name} is no container; the seller has to run"
            f" `computeswarm images build {image.name}`."
        )
    # time and output are kept by others, and would make a spare fit fewer jobs
    kept = replace(limits, wall_seconds=0.0, output_bytes=0)
    return Shape(image.container, str(image.python), image.site, kept, tuple(gpus))


def _shut(space: MountedWorkspace) -> None:
    """Nobody but the seller enters a job's directory until its inputs are in it.

    The shim is run by the image's own Python, which may be anybody's program: it could lay links
    where the seller, as root, is about to write the inputs.
    """
    os.chown(space.path, 0, 0)


def _user(space: Directory) -> str:
    """A user of the job's own; without root it can only be the seller's."""
    uid = space.uid if isinstance(space, MountedWorkspace) else os.geteuid()
    return f"{uid}:{uid}"


def _command(launch: Launch) -> list[str]:
    first, *rest = launch.command
    return [str(launch.image.python) if first in ("python", "python3") else first, *rest]


def _environment(launch: Launch) -> dict[str, str]:
    own = {"PYTHONPATH": SITE_DIR} if launch.image.site else {}
    folder = str(launch.image.python.parent)
    path = _PATH if folder in _PATH.split(":") else f"{folder}:{_PATH}"
    outputs = f"{JOB_DIR}/{OUTPUTS_DIR}"
    return job_environment(launch, home=JOB_DIR, outputs=outputs, path=path, own=own)
