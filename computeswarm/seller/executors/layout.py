"""What a job sees inside a bubblewrap sandbox: bubblewrap's arguments."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from computeswarm.seller.executors.base import MIB, OUTPUTS_DIR, Launch
from computeswarm.seller.executors.devices import Devices
from computeswarm.seller.executors.environment import job_environment
from computeswarm.seller.executors.network import HOSTS, RESOLV_CONF
from computeswarm.seller.executors.workspace import Places
from computeswarm.seller.images import Image

JOB = "/job"
_PYTHON, _SITE, _BIN = "/opt/python", "/opt/site", "/opt/bin"
_USER = 1000
_TMP, _SHM = "/tmp", "/dev/shm"  # noqa: S108 - the sandbox's own
_TMP_BYTES = 256 * MIB
_ROOT_NAMES = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_ETC = (
    "alternatives", "ca-certificates", "fonts", "ld.so.cache", "ld.so.conf", "ld.so.conf.d",
    "localtime", "mime.types", "ssl/certs",
)  # fmt: skip
_PASSWD = f"job:x:{_USER}:{_USER}:job:{JOB}:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"
_GROUP = f"job:x:{_USER}:\nnogroup:x:65534:\n"


def drop_to(uid: int, groups: Iterable[int]) -> list[str]:
    """The command prefix that turns root into a user of the job's own, for good."""
    extra = ",".join(str(g) for g in sorted(groups))
    keep = ["--groups", extra] if extra else ["--clear-groups"]
    return ["setpriv", "--reuid", str(uid), "--regid", str(uid), *keep, "--no-new-privs"]


def interpreter(image: Image) -> str:
    """Where the image's Python is, inside."""
    if image.root is not None or _in_usr(image.prefix):
        return str(image.python)
    return f"{_PYTHON}/{image.python.relative_to(image.prefix)}"


def command(launch: Launch) -> list[str]:
    first, *rest = launch.command
    if first in ("python", "python3"):
        return [interpreter(launch.image), *rest]
    # bubblewrap does not tell a command that isn't there from a sandbox that can't be made; the
    # shell does, with 127.
    return ["/bin/sh", "-c", 'exec "$0" "$@"', first, *rest]


def arguments(launch: Launch, places: Places, found: Devices) -> list[str]:
    """All of bubblewrap's arguments but the seccomp filter and the command."""
    args = ["--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent"]
    args += ["--new-session", "--cap-drop", "ALL", "--hostname", "job", "--clearenv"]
    args += ["--uid", str(_USER), "--gid", str(_USER)]
    args += _root(launch.image) + _etc(places, launch) + _interpreter(launch.image, places)
    args += ["--proc", "/proc", "--tmpfs", "/proc/1", "--remount-ro", "/proc/1"]
    args += ["--dev", "/dev", "--perms", "1777", "--size", str(_TMP_BYTES), "--tmpfs", _TMP]
    args += ["--perms", "1777", "--size", str(launch.limits.memory_bytes), "--tmpfs", _SHM]
    for node in found.nodes:
        args += ["--dev-bind", str(node.source), node.target]
    for directory in found.directories:
        args += ["--ro-bind", str(directory.source), directory.target]
    args += ["--bind", str(launch.workdir), JOB, "--chdir", JOB]
    args += ["--remount-ro", "/dev", "--remount-ro", "/"]
    own = {}
    if launch.image.site is not None:
        own["PYTHONPATH"] = _SITE
    if launch.image.libpath is not None and not _in_usr(launch.image.prefix):
        own["LD_LIBRARY_PATH"] = f"{_PYTHON}/lib"
    path = f"{_BIN}:/usr/local/bin:/usr/bin:/bin"
    outputs = f"{JOB}/{OUTPUTS_DIR}"
    env = job_environment(launch, home=JOB, outputs=outputs, path=path, own=own)
    for name, value in env.items():
        args += ["--setenv", name, value]
    return args


def _in_usr(path: Path) -> bool:
    return path == Path("/usr") or Path("/usr") in path.parents


def _root(image: Image) -> list[str]:
    base = image.root or Path("/")
    args = ["--ro-bind", str(base / "usr"), "/usr"]
    for name in _ROOT_NAMES:
        path = base / name
        if path.is_symlink():
            args += ["--symlink", str(path.readlink()), f"/{name}"]
        elif path.is_dir():
            args += ["--ro-bind", str(path), f"/{name}"]
    for name in _ETC:
        args += ["--ro-bind-try", str(base / "etc" / name), f"/etc/{name}"]
    return args


def _etc(places: Places, launch: Launch) -> list[str]:
    args = []
    files = {"passwd": _PASSWD, "group": _GROUP}
    if launch.network:
        files |= {"resolv.conf": RESOLV_CONF, "hosts": HOSTS}
    for name, content in files.items():
        file = places.run / name
        if not file.exists():
            file.write_text(content)
            file.chmod(0o644)
        args += ["--ro-bind", str(file), f"/etc/{name}"]
    return args


def _interpreter(image: Image, places: Places) -> list[str]:
    inside = interpreter(image)
    args = ["--symlink", inside, f"{_BIN}/python", "--symlink", inside, f"{_BIN}/python3"]
    if image.root is None and not _in_usr(image.prefix):
        args += ["--ro-bind", str(places.view(image.prefix)), _PYTHON]
    if image.site is not None:
        args += ["--ro-bind", str(places.view(image.site)), _SITE]
    return args
