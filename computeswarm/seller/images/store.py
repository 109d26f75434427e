"""The images of one seller: the named environments he offers.

The usual ones need no registry: the machine's own Python, seen read-only, plus a directory of
packages that ``pip install --target`` filled. For containers the engine holds that Python as well,
or an image of somebody's that the seller named by its digest.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import json
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypedDict

from computeswarm.core.errors import ConfigError, NotFound
from computeswarm.seller.executors.base import Problem
from computeswarm.seller.images.image import RECIPES, Image, ImageError, host_python

Progress = Callable[[str], None]

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")
_REFERENCE = re.compile(r"[a-z0-9][A-Za-z0-9._:/-]{0,250}@sha256:[0-9a-f]{64}")
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9,._-]+\])?([=<>!~]=?[^\s;@]+)?")


class _Facts(TypedDict):
    """What ``image.json`` holds."""

    description: str
    packages: Sequence[str]
    site: str
    version: str
    """Of Python, such as ``3.11``: compiled packages fit one only."""
    reference: str
    """Of a container image that is somebody else's; the rest but the description is then empty."""


_NO_FACTS: _Facts = {
    "description": "",
    "packages": (),
    "site": "",
    "version": "",
    "reference": "",
}


class Containers(Protocol):
    """What makes containers of images (``containers.EngineImages``)."""

    async def ensure(self, image: Image, tell: Progress) -> Image: ...


class ImageStore:
    """The images of one seller: ``python`` always, others once built.

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
        self._containers = containers
        self._pip = tuple(pip) if pip else (sys.executable, "-m", "pip")

    def list(self) -> list[Image]:
        """All usable images, ``python`` first."""
        built = sorted(p.parent.name for p in self._root.glob("*/image.json"))
        return [self.get(name) for name in dict.fromkeys(["python", *built])]

    def get(self, name: str) -> Image:
        """Raises NotFound: there is no such image here, or it isn't built yet."""
        if name == "python":
            return host_python()
        facts = self._facts(name)
        if facts is None:
            hint = f"run `computeswarm images build {name}`" if name in RECIPES else "see the list"
            raise NotFound(f"The image {name[:40]!r} isn't built here; {hint}.")
        base = host_python(name, facts["description"])
        if reference := facts.get("reference"):
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
            return await self._containers.ensure(image, tell)
        if image.reference:
            raise ImageError(f"The image {name} is a container; this seller runs jobs without.")
        return image

    def add(self, name: str, reference: str, *, description: str = "") -> Image:
        """Name somebody's container image. It is pulled when it is first needed.

        Raises:
            ConfigError: a name that can't be used, or an image that isn't named by its digest.
        """
        if not _NAME.fullmatch(name) or name in RECIPES:
            raise ConfigError(f"{name[:40]!r} can't name an image; use a-z, digits and dashes.")
        if not _REFERENCE.fullmatch(reference):
            raise ConfigError(
                "Name the image by its digest (repository@sha256:…): a tag may mean another"
                " image tomorrow."
            )
        self._write(name, {**_NO_FACTS, "description": description, "reference": reference})
        return self.get(name)

    def remove(self, name: str) -> None:
        """Forget an image, and delete the packages of a built one.

        Raises:
            NotFound: there is no such image here.
        """
        if self._facts(name) is None:
            raise NotFound(f"There is no image {name[:40]!r} to remove; see `images list`.")
        (self._root / name / "image.json").unlink()
        shutil.rmtree(self._root / name, ignore_errors=True)

    def _write(self, name: str, facts: _Facts) -> None:
        directory = self._root / name
        directory.mkdir(parents=True, exist_ok=True)
        fresh = directory / "image.json.new"
        fresh.write_text(json.dumps(facts, indent=2))
        fresh.replace(directory / "image.json")

    def _facts(self, name: str) -> _Facts | None:
        if not _NAME.fullmatch(name):
            return None
        try:
            facts: _Facts = json.loads((self._root / name / "image.json").read_text())
        except (OSError, ValueError):
            return None
        return facts

    def check(self, name: str) -> builtins.list[Problem]:
        """Why an image can't be used; empty means it can."""
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

        A job that runs on the former directory keeps it until the image is built once more.
        ``packages`` may be left out for a name with a recipe. ``progress`` gets pip's lines.

        Raises:
            ConfigError: a name or requirement that can't be used.
            ImageError: pip failed, or there is no pip.
        """
        recipe = RECIPES.get(name)
        wanted = tuple(packages) or (recipe.packages if recipe else ())
        self._refuse_odd(name, wanted)
        if name == "python":
            return self.get(name)
        directory = self._root / name
        directory.mkdir(parents=True, exist_ok=True)
        number = 1 + max((int(p.name[5:]) for p in directory.glob("site-*")), default=0)
        site = directory / f"site-{number}"
        try:
            await self._install(site, wanted, progress or (lambda line: None))
        except BaseException:
            shutil.rmtree(site, ignore_errors=True)
            raise
        _open_to_readers(site)
        facts: _Facts = {
            "description": description or (recipe.description if recipe else ", ".join(wanted)),
            "packages": wanted,
            "site": site.name,
            "version": _version(),
            "reference": "",
        }
        self._write(name, facts)
        for old in directory.glob("site-*"):
            if int(old.name[5:]) < number - 1:
                shutil.rmtree(old, ignore_errors=True)
        return self.get(name)

    @staticmethod
    def _refuse_odd(name: str, packages: Sequence[str]) -> None:
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{name[:40]!r} can't name an image; use a-z, digits and dashes.")
        if not packages and name != "python":
            raise ConfigError(f"Say which packages the image {name} should have.")
        odd = next((p for p in packages if not _REQUIREMENT.fullmatch(p)), None)
        if odd is not None:
            raise ConfigError(f"{odd[:60]!r} isn't a package; write a name or name==version.")

    async def _install(self, site: Path, packages: Sequence[str], progress: Progress) -> None:
        argv = [*self._pip, "install", "--disable-pip-version-check", "--no-input", "--no-compile"]
        argv += ["--progress-bar", "off", "--target", str(site), *packages]
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=1024 * 1024,
        )
        assert process.stdout is not None
        last = ""
        try:
            async for raw in process.stdout:
                line = raw.decode(errors="replace").rstrip()
                progress(line)
                last = line if line.startswith("ERROR") or not last.startswith("ERROR") else last
            code = await process.wait()
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if code != 0:
            raise ImageError(f"The packages can't be installed: {last[:300]}.")


def _version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _open_to_readers(site: Path) -> None:
    """A job runs as another user, whatever umask the seller has."""
    site.chmod(0o755)
    for path in site.rglob("*"):
        mode = path.lstat().st_mode
        if path.is_dir():
            path.chmod(0o755)
        elif not path.is_symlink():
            path.chmod(mode | 0o444 | (0o111 if mode & 0o100 else 0))
