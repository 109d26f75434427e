"""Images inside Docker's engine: the machine's own Python, imported once, and others by digest."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from computeswarm.core.errors import ExecutorError
from computeswarm.seller.executors.base import Limits
from computeswarm.seller.executors.docker.engine import Engine, saying
from computeswarm.seller.executors.docker.spec import Shape, Surroundings, container
from computeswarm.seller.executors.workspace import Places
from computeswarm.seller.images import root
from computeswarm.seller.images.image import Image, ImageError
from computeswarm.seller.images.pull import creating, pull, reason
from computeswarm.seller.images.sharing import Shared, Tell

REPOSITORY = "computeswarm/python"
_MIB = 2**20
_ASK = ("python3", "-I", "-c", "import sys; print(sys.executable)")
_ASK_SECONDS = 60.0
_ASK_LIMITS = Limits(cpus=1, memory_bytes=256 * _MIB, pids=64)
_ASK_USER = "65534:65534"
_CONFLICT = 409
_REMOVE_SECONDS = 60.0
"""The engine first waits for every container that is about to start or end."""
_LOADER_CACHE = Path("/etc/ld.so.cache")


class EngineImages:
    """What the engine has and is given.

    Args:
        home: where it is noted which image is this machine's Python.
    """

    def __init__(self, home: Path, engine: Engine) -> None:
        self._note = home / "container.json"
        self._engine = engine
        self._shared: Shared[str] = Shared()
        self._pythons: dict[str, Path] = {}

    async def ensure(self, image: Image, tell: Tell) -> Image:
        """The image with its container, which is imported or pulled first where it is missing.

        Whoever comes while that goes on waits for it; it ends when nobody does any more.

        Args:
            tell: told how a pull goes, at most once a second.

        Raises:
            ImageError: it can't be had.
            ExecutorError: the engine doesn't answer.
        """
        if not image.reference:
            return replace(image, container=await self._own(image, tell))
        found = await self._by_digest(image.reference, tell)
        python = self._pythons.get(found)
        if python is None:
            python = self._pythons[found] = await self._python_inside(found)
        return replace(image, container=found, python=python, prefix=python.parent.parent)

    async def has(self, image: Image) -> bool:
        """Whether it can be used at once."""
        name = image.reference or self._noted(image).get("id", "")
        return bool(name) and await self._find(name) is not None

    async def remove(self, image: Image) -> None:
        """Have the engine forget an image that was pulled.

        Raises:
            ImageError: a container uses it.
            ExecutorError: the engine doesn't answer.
        """
        import aiodocker

        if await self._find(image.reference) is None:
            return
        what = f"The image {image.name} can't be removed now"
        async with saying(what), asyncio.timeout(_REMOVE_SECONDS):
            try:
                await self._engine.client.images.delete(image.reference)
            except aiodocker.DockerError as error:
                if error.status != _CONFLICT:
                    raise
                raise ImageError(
                    f"A container uses the image {image.name}: a job's, or the one made ahead for"
                    " the next job. Remove it when another image was used, or the seller stopped."
                ) from error

    async def _own(self, image: Image, tell: Tell) -> str:
        noted = self._noted(image)
        if noted and await self._find(noted["id"]) is not None:
            return noted["id"]
        return await self._shared.do(REPOSITORY, lambda t: self._import_own(image, t), tell)

    async def _import_own(self, image: Image, tell: Tell) -> str:
        tell("The image is put together from this machine's Python; some seconds.")
        self._note.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            # without a name: a crash leaves nothing behind
            with tempfile.TemporaryFile(dir=self._note.parent) as archive:
                digest = await asyncio.to_thread(_pack, archive, image)
                tag = f"{REPOSITORY}:{digest[:32]}"
                made = await self._find(tag) or await self._import(archive, tag)
            old = self._read_note().get("id", made)
            self._remember(image, made)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise ImageError(
                "The disk is full: there is no room for the image."
                if full
                else f"The image can't be put together ({error.strerror})."
            ) from error
        if old != made:
            with contextlib.suppress(ExecutorError):  # a job still runs in it, or it's gone
                async with saying("The former image can't be removed"):
                    await self._engine.client.images.delete(old)
        return made

    async def _import(self, archive: IO[bytes], tag: str) -> str:
        repository, _, version = tag.partition(":")
        query = {"fromSrc": "-", "repo": repository, "tag": version}
        # the client's own import wants the tar as one string
        async with (
            saying("The image can't be imported"),
            aclosing(creating(self._engine, query, archive)) as steps,
        ):
            said = [step async for step in steps]
        made = await self._find(tag)
        if made is None:
            raise ImageError(reason(f"the engine says {said[-1:]}"))
        return made

    def _facts(self, image: Image) -> dict[str, str]:
        """What the import depends on, short of reading all of it at every start."""
        return {
            "python": str(image.python),
            "version": sys.version,
            "stamp": _stamp(image.python.resolve()),
            # written anew whenever a library is installed or updated
            "libraries": _stamp(_LOADER_CACHE),
            "recipe": hashlib.sha256(Path(root.__file__).read_bytes()).hexdigest(),
        }

    def _read_note(self) -> dict[str, str]:
        try:
            noted: dict[str, str] = json.loads(self._note.read_text())
        except (OSError, ValueError):
            return {}
        return noted

    def _noted(self, image: Image) -> dict[str, str]:
        noted = self._read_note()
        return noted if self._facts(image).items() <= noted.items() else {}

    def _remember(self, image: Image, made: str) -> None:
        fresh = self._note.with_suffix(".new")
        fresh.write_text(json.dumps({**self._facts(image), "id": made}))
        fresh.replace(self._note)

    async def _find(self, name: str) -> str | None:
        """The id of an image by its id, tag or digest."""
        import aiodocker

        async with saying("The engine can't be asked for its images"):
            try:
                return str((await self._engine.client.images.inspect(name))["Id"])
            except aiodocker.DockerError as error:
                if error.status != 404:
                    raise
        return None

    async def _by_digest(self, reference: str, tell: Tell) -> str:
        async def fetch(tell: Tell) -> str:
            await pull(self._engine, reference, tell)
            found = await self._find(reference)
            if found is None:
                raise ImageError(f"{reference} was pulled, but isn't there.")
            return found

        return await self._find(reference) or await self._shared.do(reference, fetch, tell)

    async def _python_inside(self, image_id: str) -> Path:
        """Ask the image which Python it has, behind a job's walls: it may be anybody's program."""
        async with saying("The image can't be looked at"):
            details = await self._engine.client.images.inspect(image_id)
        volumes = tuple(sorted((details.get("Config") or {}).get("Volumes") or ()))
        body = _asking(image_id, Places.of(self._note.parent.parent / "docker").tag, volumes)
        try:
            async with saying("The image can't be looked at"), asyncio.timeout(_ASK_SECONDS):
                asked = await self._engine.client.containers.create(body)
                try:
                    await asked.start()
                    code = (await asked.wait())["StatusCode"]
                    said = "".join(await asked.log(stdout=True)).strip()
                finally:
                    await asked.delete(force=True, v=True)
        except ExecutorError as error:
            raise ImageError(f"The image has no Python 3 that runs: {error.detail}") from error
        if code != 0 or not said.startswith("/") or "\n" in said:
            raise ImageError("The image has no Python 3; jobs are started by one.")
        return Path(said)


def _asking(image_id: str, tag: str, volumes: Sequence[str]) -> dict[str, Any]:
    """The container that is asked: one of the seller's, so that it is reaped after a crash."""
    shape = Shape(image_id, _ASK[0], None, _ASK_LIMITS, ())
    around = Surroundings(tag=tag, volumes=tuple(volumes))
    body = container(shape, around, Path("/"), _ASK_USER)
    body |= {"Cmd": list(_ASK), "OpenStdin": False, "StdinOnce": False, "AttachStdin": False}
    body["HostConfig"] |= {
        "Mounts": [],
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "64k"}},
    }
    return body


def _pack(archive: IO[bytes], image: Image) -> str:
    root.write_root(archive, image.python, image.prefix)
    archive.seek(0)
    digest = hashlib.file_digest(archive, "sha256").hexdigest()  # type: ignore[arg-type]
    archive.seek(0)
    return digest


def _stamp(path: Path) -> str:
    try:
        facts = os.stat(path)  # noqa: PTH116 - links are followed
    except OSError:
        return ""
    return f"{facts.st_size} {facts.st_mtime_ns}"
