"""A root file system with this machine's Python, for containers: no registry is needed.

It holds the interpreter with its standard library, the shared libraries that they and a few plain
commands need, certificates and time zones. The same machine gives the same bytes, so that an engine
which has them already is given nothing.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import ssl
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from computeswarm.core.errors import ExecutorError

_COMMANDS = (
    *("sh", "bash", "env", "cat", "ls", "cp", "mv", "rm", "mkdir", "rmdir", "ln", "touch", "chmod"),
    *("echo", "printf", "true", "false", "test", "sleep", "date", "head", "tail", "wc", "sort"),
    *("uniq", "cut", "tr", "grep", "sed", "awk", "find", "xargs", "tee", "tar", "gzip", "uname"),
    *("id", "nproc", "df", "du", "sha256sum", "timeout", "ps"),
)
_LEFT_OUT = {
    *("site-packages", "dist-packages", "test", "tests", "idlelib", "turtledemo"),
    "ensurepip",
}
_UNLISTED = (
    # opened by name when a thread is cancelled, or a host is looked up
    *("libgcc_s.so.1", "libnss_dns.so.2", "libnss_files.so.2"),
    # what wheels may expect of any Linux (PEP 599, PEP 600); the C library had more parts once
    *("libstdc++.so.6", "libatomic.so.1", "libz.so.1", "libexpat.so.1", "libresolv.so.2"),
    *("libdl.so.2", "librt.so.1", "libpthread.so.0", "libutil.so.1", "libm.so.6"),
)
"""Shared libraries that no program of the root lists, but packages need."""
_CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
_SHARED_DATA = (_CERTIFICATES, "usr/share/zoneinfo", "etc/ld.so.cache")
_LIBRARY = re.compile(r"^\s*(?:\S+ => )?(/\S+) \(0x", re.MULTILINE)
_BATCH = 100
_COMPILED = f".{sys.implementation.cache_tag}.pyc"
"""Without them every start of Python compiles what it imports, for nobody may write there."""
_TEXTS = {
    "etc/passwd": "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "etc/hosts": "127.0.0.1 localhost\n",
}
_FOLDERS = ("tmp", "proc", "sys", "dev", "run", "job", "opt", "root", "var", "etc", "usr")


def write_root(target: IO[bytes], python: Path, prefix: Path) -> None:
    """Write the tar archive of a root. Blocks for some seconds.

    Args:
        python: the interpreter, below ``prefix``, of this program's version; both keep their
            paths.

    Raises:
        ExecutorError: a library can't be found.
    """
    library = prefix / f"lib/python{sys.version_info.major}.{sys.version_info.minor}"
    if not (library / "os.py").exists():
        raise ExecutorError(f"There is no standard library in {library}.")
    entries: dict[str, Path] = {}
    for path in _walk(library):
        entries[_name(path)] = path
    aliases = [python.parent / name for name in ("python3", "python")]
    programs = [python, *filter(Path.exists, aliases), *_commands()]
    modules = [path for path in entries.values() if path.name.endswith(".so")]
    libraries = _needed([*programs, *modules])
    more = _unlisted(libraries)
    for path in [*programs, *sorted({*libraries, *more, *_needed(more)})]:
        _add_with_links(entries, path)
    for data in _SHARED_DATA:
        found = Path("/") / data
        for path in [found] if found.is_file() else _walk(found):
            entries[_name(path)] = path
    _archive(target, entries)


def _commands() -> list[Path]:
    found = (shutil.which(name, path="/usr/bin:/bin") for name in _COMMANDS)
    return [Path(path) for path in found if path]


def _walk(folder: Path) -> Iterator[Path]:
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if name not in _LEFT_OUT and not name.startswith("config-")
        )
        for name in files:
            compiled = name.endswith(".pyc")
            if not name.endswith(".a") and (not compiled or name.endswith(_COMPILED)):
                yield Path(where) / name


def _needed(programs: Iterable[Path]) -> set[Path]:
    """The shared libraries of programs and modules, as the dynamic loader finds them."""
    todo = [str(path) for path in programs]
    found: set[str] = set()
    for start in range(0, len(todo), _BATCH):
        done = subprocess.run(
            ["ldd", *todo[start : start + _BATCH]], capture_output=True, text=True, check=False
        )
        if "=> not found" in done.stdout:
            line = next(x for x in done.stdout.splitlines() if "=> not found" in x)
            raise ExecutorError(f"A library of Python is missing: {line.strip()[:120]}.")
        found.update(_LIBRARY.findall(done.stdout))
    return {Path(path) for path in found}


def _unlisted(found: Iterable[Path]) -> list[Path]:
    """Those of ``_UNLISTED`` that lie beside the others."""
    folders = sorted({path.parent for path in found})
    return [folder / name for folder in folders for name in _UNLISTED if (folder / name).exists()]


def _add_with_links(entries: dict[str, Path], path: Path) -> None:
    """A file under the name it is asked for, and under every name that this one points to."""
    for _ in range(10):
        entries[_name(path)] = path
        if not path.is_symlink():
            return
        path = path.parent / path.readlink()
        path = Path(os.path.normpath(path))


def _name(path: Path) -> str:
    """Its name in the archive: below /usr where Debian's merged /bin and /lib lead there."""
    parts = path.parts[1:]
    if parts and Path("/", parts[0]).is_symlink():
        return str(Path(*Path("/", parts[0]).resolve().parts[1:], *parts[1:]))
    return str(Path(*parts))


def _archive(target: IO[bytes], entries: dict[str, Path]) -> None:
    with tarfile.open(fileobj=target, mode="w|", format=tarfile.GNU_FORMAT) as tar:
        made: set[str] = set()
        for name in _FOLDERS:
            _folder(tar, made, name)
        for name in ("bin", "sbin", "lib", "lib64"):
            if Path("/", name).is_symlink():
                link = tarfile.TarInfo(name)
                link.type, link.linkname = tarfile.SYMTYPE, str(Path("/", name).readlink())
                tar.addfile(link)
                _folder(tar, made, link.linkname.lstrip("/"))
        if (certificates := _certificates()) not in entries:
            link = tarfile.TarInfo(certificates)
            link.type, link.linkname = tarfile.SYMTYPE, f"/{_CERTIFICATES}"
            _folder(tar, made, certificates.rpartition("/")[0])
            tar.addfile(link)
        for name, text in _TEXTS.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(text), 0o644
            tar.addfile(info, io.BytesIO(text.encode()))
        for name in sorted(entries):
            _file(tar, made, name, entries[name])


def _certificates() -> str:
    """Where this Python's OpenSSL looks first; the machine has a folder there, hashed by name."""
    return ssl.get_default_verify_paths().openssl_cafile.lstrip("/")


def _folder(tar: tarfile.TarFile, made: set[str], name: str) -> None:
    for depth in range(1, name.count("/") + 2):
        part = "/".join(name.split("/")[:depth])
        if part not in made:
            made.add(part)
            info = tarfile.TarInfo(part)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if part == "tmp" else 0o755
            tar.addfile(info)


def _file(tar: tarfile.TarFile, made: set[str], name: str, path: Path) -> None:
    facts = path.lstat()
    if "/" in name:
        _folder(tar, made, name.rpartition("/")[0])
    info = tarfile.TarInfo(name)
    if stat.S_ISLNK(facts.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, str(path.readlink())
        tar.addfile(info)
    elif stat.S_ISREG(facts.st_mode):
        info.size, info.mode = facts.st_size, 0o755 if facts.st_mode & 0o111 else 0o644
        if name.endswith(".py"):
            info.mtime = int(facts.st_mtime)  # what is compiled of it must say the same
        with path.open("rb") as content:
            tar.addfile(info, content)
