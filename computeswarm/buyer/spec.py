"""From a script, its arguments and its files to a job spec, and where each upload comes from."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from computeswarm.core.errors import BadRequest, NotFound, TooLarge
from computeswarm.core.jobs import (
    MAX_INLINE_BYTES,
    MAX_INLINE_FILE_BYTES,
    MAX_INPUT_FILES,
    InputFile,
    JobSpec,
)
from computeswarm.core.sealing import check_secret
from computeswarm.core.signing import parse
from computeswarm.core.text import clean_line

_BLOCK = 1024 * 1024
_FREE_DISK = 2**30  # what a job may write beside its inputs
_INTERPRETERS = {".py": "python", ".sh": "bash"}


@dataclass(frozen=True, slots=True)
class JobPlan:
    """A job spec, the local files of those inputs that travel after the payment, by digest, and
    the values of its secrets."""

    spec: JobSpec
    sources: Mapping[str, Path]
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)


def plan_job(
    script: Path | str | None,
    args: Sequence[str] = (),
    *,
    inputs: Iterable[Path | str] = (),
    env: Mapping[str, str] | None = None,
    image: str = "python",
    gpu_count: int = 0,
    max_seconds: int = 600,
    name: str = "",
    secrets: Mapping[str, str] | None = None,
    network: bool = False,
    stream_outputs: bool = False,
) -> JobPlan:
    """Describe a job. Blocking: it reads and hashes every input.

    A ``.py`` script runs with ``python``, any other with ``bash``; without a script ``args`` is the
    command line itself. A file keeps its path where it lies below the current folder, otherwise its
    name; a folder is walked. Small files travel inline, the script always does.

    Args:
        secrets: variables that are sealed for the seller who runs the job, and shown to nobody
            else. He can read them.
        network: the job reaches the public internet; not every node lets it.
        stream_outputs: files that the job has finished writing can be fetched while it runs.

    Raises:
        NotFound: a file that does not exist.
        BadRequest, TooLarge: a file or value that no job can have.
    """
    for secret, value in (secrets or {}).items():
        check_secret(clean_line(secret, limit=120), value)
    collected: dict[str, Path] = {}
    command = list(args)
    entry = ""
    if script is not None:
        path = _existing(Path(script), "script")
        if path.is_dir():
            raise BadRequest(f"{path} is a folder; give the script inside it.")
        entry = path.name
        collected[entry] = path
        command = [_INTERPRETERS.get(path.suffix.lower(), "bash"), entry, *command]
    elif not command:
        raise BadRequest("There is nothing to run; give a script, or a command line after --.")
    for given in inputs:
        for target, source in _walk(_existing(Path(given), "input")):
            if collected.setdefault(target, source).resolve() != source.resolve():
                raise BadRequest(f"Two inputs would both be {target}; rename one of them.")
        if len(collected) > MAX_INPUT_FILES:
            raise TooLarge(f"A job takes at most {MAX_INPUT_FILES} files; pack them into one.")
    files, sources = _describe(collected, entry)
    spec = parse(
        JobSpec,
        {
            "command": tuple(command),
            "name": clean_line(name or entry or command[0], limit=120),
            "image": image,
            "inputs": tuple(files),
            "disk_bytes": _FREE_DISK + sum(file.size for file in files),
            "env": dict(env or {}),
            "gpu_count": gpu_count,
            "max_seconds": max_seconds,
            "network": network,
            "stream_outputs": stream_outputs,
            "secrets": tuple(secrets or ()),
        },
    )
    return JobPlan(spec, sources, dict(secrets or {}))


def _existing(path: Path, what: str) -> Path:
    path = path.expanduser()
    if not path.exists():
        raise NotFound(f"The {what} {clean_line(str(path))} does not exist; check its path.")
    return path


def _walk(given: Path) -> Iterator[tuple[str, Path]]:
    top = _target(given)
    if not given.is_dir():
        yield top, given
        return
    for folder, folders, names in os.walk(given):
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_file():
                below = path.relative_to(given).as_posix()
                yield below if top == "." else f"{top}/{below}", path


def _target(given: Path) -> str:
    """Where an input lies in the job's folder."""
    absolute, here = given.absolute(), Path.cwd()
    # normalised by text and not by links: the name that was typed is the name the job sees
    normal = Path(os.path.normpath(absolute))
    if normal.is_relative_to(here):
        return normal.relative_to(here).as_posix()
    return normal.name


def _describe(collected: Mapping[str, Path], entry: str) -> tuple[list[InputFile], dict[str, Path]]:
    files: list[InputFile] = []
    sources: dict[str, Path] = {}
    inline_left = MAX_INLINE_BYTES
    for target, path in collected.items():  # the script comes first, so it is always inline
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise BadRequest(f"{path} is no ordinary file; it can't be an input.")
            inline = status.st_size <= min(MAX_INLINE_FILE_BYTES, inline_left)
            if inline:
                data = path.read_bytes()
                described = InputFile.from_bytes(target, data, inline=True)
                inline_left -= len(data)
            elif target == entry:
                raise TooLarge(f"The script {path} is larger than 256 KiB; load data by --input.")
            else:
                described = _hashed(target, path)
                sources[described.sha256] = path.absolute()
        except OSError as error:
            raise BadRequest(f"{path} can't be read: {error.strerror}.") from None
        except ValueError as error:  # pydantic's, for a path no job can have
            raise BadRequest(f"{clean_line(str(path))} can't be an input: its path.") from error
        files.append(described)
    return files, sources


def _hashed(target: str, path: Path) -> InputFile:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return InputFile(path=target, size=size, sha256=digest.hexdigest())
