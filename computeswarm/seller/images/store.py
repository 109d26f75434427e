"""The images of one seller: the named environments he offers.

The usual ones need no registry: the machine's own Python, seen read-only, plus a directory of
packages that ``pip install --target`` filled. For containers the engine holds that Python as well,
or an image of somebody's that the seller named by its digest.

Whatever is written is complete before ``image.json`` names it, and what it no longer names is
renamed before it is deleted: a crash at any point leaves rubbish at worst, which the next build
removes.
"""

from __future__ import annotations

import asyncio
import builtins
import json
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol, TypedDict

from computeswarm.core.errors import ComputeSwarmError, ConfigError, NotFound
from computeswarm.core.text import clean_line
from computeswarm.seller.executors.base import Problem
from computeswarm.seller.images.image import RECIPES, Image, ImageError, host_python
from computeswarm.seller.images.packages import PIP, Progress, install, refuse_odd
from computeswarm.seller.images.uses import Uses

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")
_REFERENCE = re.compile(r"[a-z0-9][A-Za-z0-9._:/-]{0,250}@sha256:[0-9a-f]{64}")
_RUBBISH = ".gone-"


class _Facts(TypedDict):
    """What ``image.json`` holds."""

    description: str
    packages: Sequence[str]
    site: str
    version: str
    """Of Python, such as ``3.11``: compiled packages fit one only."""
    reference: str
    """Of a container image that is somebody else's; the rest but the description is then empty."""


_NO_FACTS = _Facts(description="", packages=(), site="", version="", reference="")


class Containers(Protocol):
    """What makes containers of images (``containers.EngineImages``)."""

    async def ensure(self, image: Image, tell: Progress) -> Image: ...
    async def has(self, image: Image) -> bool: ...
    async def remove(self, image: Image) -> None: ...


class ImageStore:
    """The images of one seller: ``python`` always, others once built or named.

    Args:
        home: the seller's state directory; packages are kept below ``images/``.
        pip: the command that installs; another one in tests.
        containers: who makes a container of an image, where jobs run in containers.
    """

    def __init__(
        self,
        home: Path,
        *,
        pip: Sequence[str] | None = None,
        containers: Containers | None = None,
    ) -> None:
        self._root = home / "images"
        self._uses = Uses(self._root / ".locks")
        self._containers = containers
        self._pip = tuple(pip) if pip else PIP
        self._here: frozenset[str] = frozenset()
        """References of images that the engine had when it was last asked."""

    def list(self) -> builtins.list[Image]:
        """All images, ``python`` first."""
        built = sorted(p.parent.name for p in self._root.glob("[!.]*/image.json"))
        found = [host_python()]
        for name in built:
            facts = self._facts(name)
            if facts is not None:
                found.append(self._image(name, facts))
        return found

    def offered(self) -> builtins.list[Image]:
        """Those that a job can be run in here: containers of others only where there are any."""
        return [i for i in self.list() if self._containers is not None or not i.reference]

    def to_pull(self) -> builtins.list[str]:
        """The names of those offered that the engine doesn't have, as far as ``look`` has told."""
        return [i.name for i in self.offered() if i.reference and i.reference not in self._here]

    async def look(self) -> None:
        """See which images the engine has; one that is silent tells nothing."""
        if self._containers is None:
            return
        try:
            here = {i.reference for i in self.offered() if await self._containers.has(i)}
        except ComputeSwarmError:
            return
        self._here = frozenset(here)

    def get(self, name: str) -> Image:
        """Raises NotFound: there is no such image here, or it isn't built yet."""
        if name == "python":
            return host_python()
        facts = self._facts(name)
        if facts is None:
            hint = f"run `computeswarm images build {name}`" if name in RECIPES else "see the list"
            raise NotFound(f"The image {name[:40]!r} isn't built here; {hint}.")
        return self._image(name, facts)

    def using(self, name: str) -> AbstractContextManager[None]:
        """While a job runs in it: nobody removes it.

        Raises:
            NotFound: there is no such image here.
        """
        return self._uses.using(self.get(name).name)

    async def ensure(self, name: str, tell: Progress = lambda _: None) -> Image:
        """An image that a job can be started in now.

        Args:
            tell: told of a pull or an import while it goes on, at most once a second.

        Raises:
            NotFound: there is no such image here.
            ImageError: it can't be had.
        """
        image = self.get(name)
        if self._containers is not None:
            ready = await self._containers.ensure(image, tell)
            self._here |= {image.reference}
            return ready
        if image.reference:
            raise ImageError(f"The image {name} is a container; this seller runs jobs without.")
        return image

    def add(self, name: str, reference: str, *, description: str = "") -> Image:
        """Name somebody's container image. It is pulled when it is first needed.

        Raises:
            ConfigError: a name that can't be used, or an image that isn't named by its digest.
        """
        _refuse_name(name)
        old = self._facts(name)
        if name in RECIPES or (old is not None and not old["reference"]):
            raise ConfigError(f"{name} is an image that is built here; choose another name.")
        if not _REFERENCE.fullmatch(reference):
            raise ConfigError(
                "Name the image by its digest (repository@sha256:…): a tag may mean another"
                " image tomorrow."
            )
        facts = _Facts(
            description=clean_line(description or f"container {reference}", limit=120),
            packages=(),
            site="",
            version="",
            reference=reference,
        )
        with self._uses.building(name):
            self._write(name, facts)
        return self.get(name)

    async def remove(self, name: str) -> None:
        """Forget an image, and free the disk of it, in the engine too.

        Raises:
            NotFound: there is no such image here.
            ConfigError: it is ``python``, which always stays.
            ExecutorError: a job runs in it, or the engine doesn't let go of it.
        """
        facts = self._facts(name)
        if name == "python":
            raise ConfigError("The image python is this machine's own Python; it always stays.")
        if facts is None:
            raise NotFound(f"There is no image {name[:40]!r} to remove; see `images list`.")
        image = self._image(name, facts)
        with self._uses.building(name):
            with self._unused(name):
                pass  # the engine takes a while, and jobs that start wait for this lock
            shared = [i for i in self.list() if image.reference and i.reference == image.reference]
            if self._containers is not None and len(shared) == 1:
                await self._containers.remove(image)
            with self._unused(name):
                self._discard(self._root / name)
        await asyncio.to_thread(self._sweep)

    @contextmanager
    def _unused(self, name: str) -> Iterator[None]:
        with self._uses.alone(name) as alone:
            if not alone:
                raise ImageError(f"A job runs in the image {name}; remove it after that.")
            yield

    def check(self, name: str) -> builtins.list[Problem]:
        """Why an image can't be used, as far as its files tell; empty means it can."""
        rebuild = f"Run `computeswarm images build {name}`."
        try:
            image = self.get(name)
        except NotFound:
            return [Problem(f"The image {name[:40]!r} isn't built.", rebuild)]
        facts = self._facts(name)
        if image.reference:
            return []
        if image.site is not None and not image.site.is_dir():
            return [Problem(f"The packages of {name} are gone.", rebuild)]
        if facts is not None and facts["version"] != _version():
            return [
                Problem(
                    f"{name} was built for Python {facts['version']}, not {_version()}.", rebuild
                )
            ]
        return []

    async def build(
        self,
        name: str,
        packages: Sequence[str] = (),
        *,
        description: str = "",
        progress: Progress | None = None,
    ) -> Image:
        """Install packages into a fresh directory and make the image use it.

        Jobs that run on the former directory keep it. ``packages`` may be left out for a name with
        a recipe. ``progress`` gets pip's lines.

        Raises:
            ConfigError: a name or requirement that can't be used.
            ImageError: pip failed, there is no pip, or it is being built already.
        """
        recipe = RECIPES.get(name)
        wanted = tuple(packages) or (recipe.packages if recipe else ())
        _refuse_name(name)
        if not wanted and name != "python":
            raise ConfigError(f"Say which packages the image {name} should have.")
        refuse_odd(wanted)
        if name == "python":
            if wanted:
                raise ConfigError("The image python stays as it is; build one of another name.")
            return self.get(name)
        directory = self._root / name
        with self._uses.building(name):
            directory.mkdir(parents=True, exist_ok=True)
            numbers = [int(p.name[5:]) for p in directory.glob("site-*")]
            site = directory / f"site-{1 + max(numbers, default=0)}"
            try:
                await install(self._pip, site, wanted, progress or (lambda line: None))
            except BaseException:
                shutil.rmtree(site, ignore_errors=True)
                raise
            self._write(
                name,
                _Facts(
                    description=description or (recipe.description if recipe else " ".join(wanted)),
                    packages=wanted,
                    site=site.name,
                    version=_version(),
                    reference="",
                ),
            )
            with self._uses.alone(name) as alone:
                for old in directory.glob("site-*") if alone else ():
                    if old != site:
                        self._discard(old)
        await asyncio.to_thread(self._sweep)
        return self.get(name)

    def _image(self, name: str, facts: _Facts) -> Image:
        base = host_python(name, facts["description"])
        if reference := facts["reference"]:
            return Image(name, facts["description"], base.python, base.prefix, reference=reference)
        return Image(
            base.name,
            base.description,
            base.python,
            base.prefix,
            site=self._root / name / facts["site"],
            packages=tuple(facts["packages"]),
            libpath=base.libpath,
        )

    def _facts(self, name: str) -> _Facts | None:
        if not _NAME.fullmatch(name):
            return None
        try:
            facts = json.loads((self._root / name / "image.json").read_text())
        except (OSError, ValueError):
            return None
        return _Facts(**{**_NO_FACTS, **facts}) if isinstance(facts, dict) else None

    def _write(self, name: str, facts: _Facts) -> None:
        directory = self._root / name
        directory.mkdir(parents=True, exist_ok=True)
        fresh = directory / "image.json.new"
        fresh.write_text(json.dumps(facts, indent=2))
        fresh.replace(directory / "image.json")

    def _discard(self, path: Path) -> None:
        """Put it where no image is; quick, however much it is."""
        numbers = [int(p.name.removeprefix(_RUBBISH)) for p in self._root.glob(f"{_RUBBISH}*")]
        path.rename(self._root / f"{_RUBBISH}{1 + max(numbers, default=0)}")

    def _sweep(self) -> None:
        for rubbish in self._root.glob(f"{_RUBBISH}*"):
            shutil.rmtree(rubbish, ignore_errors=True)


def _refuse_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name[:40]!r} can't name an image; use a-z, digits and dashes.")


def _version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"
