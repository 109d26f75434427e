"""Images inside Docker's engine: the machine's own Python, imported once, and others by digest."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from computeswarm.core.errors import ExecutorError
from computeswarm.core.text import clean_line
from computeswarm.seller.executors.docker.engine import Engine, saying
from computeswarm.seller.images.image import Image, ImageError
from computeswarm.seller.images.root import write_root

Tell = Callable[[str], None]

REPOSITORY = "computeswarm/python"
_TELL_SECONDS = 1.0
_MIB = 2**20
_ASK = ("python3", "-I", "-c", "import sys; print(sys.executable)")
_ASK_SECONDS = 60.0


class EngineImages:
    """What the engine has and is given.

    Args:
        home: where it is noted which image is this machine's Python.
    """

    def __init__(self, home: Path, engine: Engine) -> None:
        self._note = home / "container.json"
        self._engine = engine
        self._locks: dict[str, asyncio.Lock] = {}

    async def ensure(self, image: Image, tell: Tell) -> Image:
        """The image with its container, which is imported or pulled first where it is missing.

        Whoever comes while that goes on waits for it.

        Args:
            tell: told how a pull goes, at most once a second.

        Raises:
            ImageError: it can't be had.
            ExecutorError: the engine doesn't answer.
        """
        key = image.reference or REPOSITORY
        async with self._locks.setdefault(key, asyncio.Lock()):
            if image.reference:
                return await self._by_digest(image, tell)
            return replace(image, container=await self._own(image, tell))

    async def has(self, image: Image) -> bool:
        """Whether it can be used at once."""
        name = image.reference or self._noted(image).get("id", "")
        return bool(name) and await self._find(name) is not None

    async def remove(self, reference: str) -> None:
        """Have the engine forget an image that was pulled.

        Raises:
            ExecutorError: a container uses it.
        """
        if await self._find(reference) is not None:
            async with saying(f"{reference} can't be removed"):
                await self._engine.client.images.delete(reference)

    async def _own(self, image: Image, tell: Tell) -> str:
        noted = self._noted(image)
        if noted and await self._find(noted["id"]) is not None:
            return str(noted["id"])
        tell("The image is put together from this machine's Python; some seconds.")
        with tempfile.TemporaryDirectory(prefix="computeswarm-root-") as folder:
            archive = Path(folder) / "root.tar"
            digest = await asyncio.to_thread(_pack, archive, image)
            found = await self._find(f"{REPOSITORY}:{digest[:32]}")
            made = found or await self._import(archive, digest[:32])
        self._remember(image, made)
        return made

    async def _import(self, archive: Path, tag: str) -> str:
        client = self._engine.client
        query = {"fromSrc": "-", "repo": REPOSITORY, "tag": tag}
        headers = {"Content-Type": "application/x-tar"}
        async with saying("The image can't be imported"):
            with archive.open("rb") as data:
                async with client._query(
                    "images/create", "POST", params=query, data=data, headers=headers
                ) as reply:
                    said = await reply.text()
            details = await self._find(f"{REPOSITORY}:{tag}")
        if details is None:
            raise ImageError(f"The engine didn't take the image: {clean_line(said, limit=200)}.")
        return details

    def _facts(self, image: Image) -> dict[str, str]:
        """What the import depends on, short of reading all of it at every start."""
        stamp = image.python.resolve().stat()
        return {
            "python": str(image.python),
            "version": sys.version,
            "stamp": f"{stamp.st_size} {stamp.st_mtime_ns}",
        }

    def _noted(self, image: Image) -> dict[str, str]:
        try:
            noted: dict[str, str] = json.loads(self._note.read_text())
        except (OSError, ValueError):
            return {}
        return noted if self._facts(image).items() <= noted.items() else {}

    def _remember(self, image: Image, made: str) -> None:
        fresh = self._note.with_suffix(".new")
        fresh.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
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

    async def _by_digest(self, image: Image, tell: Tell) -> Image:
        found = await self._find(image.reference)
        if found is None:
            await self._pull(image.reference, tell)
            found = await self._find(image.reference)
        if found is None:
            raise ImageError(f"{image.reference} was pulled, but isn't there.")
        python = await self._python_inside(found)
        return replace(image, container=found, python=python, prefix=python.parent.parent)

    async def _pull(self, reference: str, tell: Tell) -> None:
        layers: dict[str, tuple[int, int]] = {}
        last = 0.0
        tell(f"Pulling {clean_line(reference, limit=120)}.")
        async with saying(f"{clean_line(reference, limit=120)} can't be pulled"):
            async for step in self._engine.client.images.pull(reference, stream=True):
                if "error" in step:
                    reason = clean_line(str(step["error"]), limit=300)
                    raise ImageError(f"The image can't be pulled: {reason}.")
                _count(layers, step)
                if layers and time.monotonic() - last >= _TELL_SECONDS:
                    last = time.monotonic()
                    done, size = (sum(each) for each in zip(*layers.values(), strict=True))
                    tell(f"Pulling the image: {done // _MIB} of {size // _MIB} MiB.")

    async def _python_inside(self, image_id: str) -> Path:
        """Ask the image which Python it has, in a container without rights."""
        body: dict[str, Any] = {
            "Image": image_id,
            "Entrypoint": [],
            "Cmd": list(_ASK),
            "User": "65534:65534",
            "NetworkDisabled": True,
            "HostConfig": {
                "NetworkMode": "none",
                "ReadonlyRootfs": True,
                "CapDrop": ["ALL"],
                "SecurityOpt": ["no-new-privileges"],
                "PidsLimit": 64,
                "Memory": 256 * _MIB,
                "LogConfig": {"Type": "json-file"},
            },
        }
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


def _pack(archive: Path, image: Image) -> str:
    with archive.open("wb") as out:
        write_root(out, image.python, image.prefix)
    with archive.open("rb") as done:
        return hashlib.file_digest(done, "sha256").hexdigest()


def _count(layers: dict[str, tuple[int, int]], step: dict[str, Any]) -> None:
    detail = step.get("progressDetail") or {}
    if step.get("status") == "Downloading" and detail.get("total"):
        layers[str(step.get("id"))] = (int(detail.get("current", 0)), int(detail["total"]))
    elif step.get("status") == "Download complete" and str(step.get("id")) in layers:
        size = layers[str(step["id"])][1]
        layers[str(step["id"])] = (size, size)
