"""What a hostile job tries, and how each try ends. Each fails without its mitigation."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sandbox_bench import SMALL, Bench, alive

from computeswarm.core.errors import ExecutorError
from computeswarm.core.nodes import GPUInfo
from computeswarm.seller.executors.base import MIB
from computeswarm.seller.executors.bubblewrap import BubblewrapExecutor
from computeswarm.seller.executors.cgroups import Hierarchy
from computeswarm.seller.executors.docker import DockerExecutor

TRY = """
import ctypes, errno, json, os, socket
libc = ctypes.CDLL(None, use_errno=True)
found = {}
def call(name, number, *args):
    done = libc.syscall(number, *args)
    found[name] = "done" if done >= 0 else errno.errorcode[ctypes.get_errno()]
def attempt(name, action):
    try:
        found[name] = "done" if (seen := action()) is None else seen
    except OSError as error:
        found[name] = errno.errorcode[error.errno]
"""
IN_CONTAINERS = {"root", "run", "srv", "sys", "var", ".dockerenv", ".computeswarm-shim"}
"""Names in the image's own root; what lies there is the image's."""
TOLD = "\nprint(json.dumps(found, default=str))\n"


async def attempts(bench: Bench, script: str, **options: object) -> dict[str, str]:
    result = await bench.run(TRY + script + TOLD, **options)
    assert result.exit.code == 0, result.stderr
    tried: dict[str, str] = json.loads(result.text)
    return tried


async def test_system_calls(walled: Bench) -> None:
    tried = await attempts(
        walled,
        """
call("io_uring", 425, 1, ctypes.create_string_buffer(256))
call("clone3", 435, 0, 0)
call("beyond", 500)
call("setxattrat", 463, -100, b"/", 0, b"user.x", 0, 0)
call("statmount", 457, 0, 0, 0, 0)
call("lsm_set_self_attr", 460, 0, 0, 0, 0)
call("keyctl", 250, 0, -3, 1) if os.uname().machine == "x86_64" else call("keyctl", 219, 0, -3, 1)
x86 = os.uname().machine == "x86_64"
call("bpf", 321 if x86 else 280, 0, 0, 0)
call("unshare", 272 if x86 else 97, 0)
call("userns", 272 if x86 else 97, 0x10000000)
call("clone userns", 56 if x86 else 220, 0x10000000 | 17, 0, 0, 0, 0)
call("ptrace", 101 if x86 else 117, 0, 0, 0, 0)
call("perf", 298 if x86 else 241, 0, 0, 0, 0, 0)
call("userfaultfd", 323 if x86 else 282, 1)
call("pidfd_getfd", 438, -1, 0, 0)
call("process_vm_readv", 310 if x86 else 270, os.getpid(), 0, 0, 0, 0, 0)
for family in (40, 38, 17, 31, 44):
    attempt(f"family {family}", lambda: socket.socket(family, socket.SOCK_STREAM).close())
attempt("netlink other", lambda: socket.socket(16, socket.SOCK_RAW, 12).close())
attempt("inet", lambda: socket.socket().close())
attempt("fork", lambda: os.waitpid(os.fork() or os._exit(0), 0) and None)
""",
    )
    for name in ("io_uring", "clone3", "beyond", "setxattrat"):
        assert tried.pop(name) == "ENOSYS", name
    for name in [n for n in tried if n.startswith(("family", "netlink"))]:
        assert tried.pop(name) == "EAFNOSUPPORT", name
    assert tried.pop("inet") == tried.pop("fork") == "done"
    assert set(tried.values()) == {"EPERM"}, tried
    assert len(tried) == 12


async def test_the_other_door_to_the_kernel_is_shut(walled: Bench) -> None:
    """32-bit calls (int 0x80) have other numbers and would pass a filter of 64-bit ones."""
    if os.uname().machine != "x86_64":
        pytest.skip("x86 only")
    result = await walled.run(
        "import ctypes, mmap\n"
        "m = mmap.mmap(-1, 4096, prot=7)\n"
        "m.write(bytes([0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0xc3]))  # mov eax, getpid; int 0x80; ret\n"
        "print('up')\n"
        "f = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))\n"
        "print('called', f())"
    )
    assert result.text == "up\n"
    assert result.exit.signal == signal.SIGSYS


async def test_mounts_and_devices(walled: Bench) -> None:
    tried = await attempts(
        walled,
        """
libc.mount.argtypes = [ctypes.c_char_p] * 3 + [ctypes.c_ulong, ctypes.c_char_p]
def mount():
    if libc.mount(b"x", b"/tmp", b"tmpfs", 0, None): raise OSError(ctypes.get_errno(), "")
attempt("mount", mount)
def umount(path):
    if libc.umount2(path, 2): raise OSError(ctypes.get_errno(), "")
attempt("umount", lambda: umount(b"/proc/1"))
attempt("umount job", lambda: umount(b"/job"))
attempt("mknod", lambda: os.mknod("/tmp/disk", 0o60600, os.makedev(7, 0)))
attempt("chroot", lambda: os.chroot("/tmp"))
found["devices"] = sorted(os.listdir("/dev"))
""",
    )
    for name in ("mount", "umount", "umount job", "mknod", "chroot"):
        assert tried[name] == "EPERM", name
    assert not {"kmsg", "vsock", "kvm", "loop0", "fuse", "mem"} & set(tried["devices"])


@pytest.mark.parametrize(
    "fill",
    [
        "hog = [bytearray(2**20) for _ in range(400)]",
        "import mmap\nm = mmap.mmap(-1, 400 * 2**20)\nfor n in range(400): m.write(b'x' * 2**20)",
        "import os\nfd = os.memfd_create('x')\nfor _ in range(400): os.write(fd, b'x' * 2**20)",
        "f = open('/dev/shm/x', 'wb')\nfor _ in range(400): f.write(b'x' * 2**20)",
        "f = open('/tmp/x', 'wb')\nfor _ in range(400): f.write(b'x' * 2**20)",
    ],
    ids=["anonymous", "shared", "memfd", "shm", "tmp"],
)
async def test_memory(walled: Bench, fill: str) -> None:
    result = await walled.run(fill + "\nprint('had it all')")
    assert result.text == ""
    assert result.exit.oom or b"No space left" in result.stderr
    if result.exit.oom:
        assert result.exit.signal == signal.SIGKILL
    assert result.exit.usage.max_memory_bytes <= SMALL.memory_bytes


async def test_fork_bomb(walled: Bench) -> None:
    result = await walled.run(
        "import os, time\nn = 0\ntry:\n"
        " while n < 500:\n  if os.fork() == 0: time.sleep(600)\n  n += 1\n"
        "except OSError: print(n)"
    )
    assert 0 < int(result.text) < SMALL.pids
    if os.geteuid() == 0:
        assert not list(_processes_of(result.workdir.stat().st_uid))


def _processes_of(uid: int) -> Iterator[str]:
    """What runs on this machine as the job's user."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if process.stat().st_uid == uid and alive(int(process.name)):
                yield process.name


async def test_processor_time(walled: Bench) -> None:
    result = await walled.run(
        "import time\nend = time.monotonic() + 1.5\n"
        "while time.monotonic() < end: pass\nprint(time.process_time())",
        limits=replace(SMALL, cpus=0.2),
    )
    assert float(result.text) < 0.9


async def test_disk_and_inodes(walled: Bench) -> None:
    result = await attempts(
        walled,
        """
size = files = 0
try:
    with open("big", "wb", buffering=0) as big:
        while size < 64: size += big.write(b"x" * 2**20) / 2**20
except OSError as error:
    found["size"], found["why"] = size, errno.errorcode[error.errno]
os.unlink("big")
try:
    while files < 2000:
        open(f"outputs/{files}", "w").close(); files += 1
except OSError as error:
    found["files"] = files
for place in ("/", "/usr/x", "/etc/x", "/opt/x", "/dev/x", "/proc/1/x"):
    attempt(place, lambda: open(os.path.join(place, "x"), "w").close())
""",
    )
    assert result["why"] == "ENOSPC"
    assert SMALL.disk_bytes / MIB - 1 <= float(result["size"]) <= SMALL.disk_bytes / MIB + 4
    assert SMALL.inodes / 2 < int(result["files"]) <= SMALL.inodes
    assert {result[p] for p in ("/", "/dev/x", "/opt/x", "/etc/x", "/usr/x")} <= {
        "EROFS",
        "ENOENT",
        "ENOTDIR",
    }


async def test_network(walled: Bench) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    abstract = socket.socket(socket.AF_UNIX)
    name = f"\0computeswarm-test-{os.getpid()}"
    abstract.bind(name)
    abstract.listen()
    with listener, abstract:
        port = listener.getsockname()[1]
        tried = await attempts(
            walled,
            f"""
attempt("host", lambda: socket.create_connection(("127.0.0.1", {port}), 5).close())
attempt("world", lambda: socket.create_connection(("203.0.113.1", 80), 5).close())
attempt("abstract", lambda: socket.socket(socket.AF_UNIX).connect({name!r}))
""",
        )
    assert tried == {"host": "ECONNREFUSED", "world": "ENETUNREACH", "abstract": "ECONNREFUSED"}


async def test_files_of_the_host(walled: Bench) -> None:
    secret = walled.home / "wallet.json"
    secret.parent.mkdir(parents=True, exist_ok=True)
    secret.write_text("key")
    tried = await attempts(
        walled,
        f"""
for path in ({str(secret)!r}, "/etc/shadow", "/proc/kcore", "/proc/1/mem", "/proc/1/environ",
             "/proc/1/root", "/sys/fs/cgroup", "/proc/1/task/1/mem"):
    attempt(path, lambda: open(path, "rb").read(1) and "read")
for path in ("/root/.ssh", "/home", "/run/docker.sock", "/var/lib", "/run/computeswarm",
             {str(walled.home.parent)!r}, "/job/.."):
    attempt(path, lambda: os.listdir(path))
for path in ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/kernel/hostname",
             "/proc/1/mem", "/proc/self/oom_score_adj", "/sys/fs/cgroup/memory/tasks",
             "/sys/fs/cgroup/cgroup.procs"):
    attempt("w " + path, lambda: os.write(os.open(path, os.O_WRONLY), b"-1000") and "written")
attempt("others", lambda: [p for p in os.listdir("/proc") if p.isdigit()])
""",
    )
    others, above = tried.pop("others"), tried.pop("/job/..")
    assert tried.pop("/sys/fs/cgroup") in ("ENOENT", "EISDIR")  # seen in a container, not written
    assert "1" in others
    assert len(others) <= 3
    assert set(above) <= {
        *("bin", "dev", "etc", "job", "lib", "lib32", "lib64", "libx32", "opt", "proc", "sbin"),
        *("tmp", "usr", *IN_CONTAINERS),
    }
    assert set(tried.values()) <= {"ENOENT", "EACCES", "EPERM", "EROFS"}, tried


async def test_it_is_nobody(walled: Bench) -> None:
    """Not root inside, not the agent's user outside, no capability, no way to get one."""
    result = await walled.run("print(open('/proc/self/status').read(), flush=True)")
    facts = dict(line.split(":\t") for line in result.text.splitlines() if ":\t" in line)
    assert len(set(facts["Uid"].split())) == 1
    assert int(facts["Uid"].split()[0]) not in (0, os.geteuid() or -1)
    assert {facts[k] for k in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
    if os.geteuid() == 0:
        owner = (result.workdir / "main.py").stat()
        assert owner.st_uid > 2**30
        assert owner.st_gid > 2**30


async def test_two_jobs_have_different_users(walled: Bench) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    first, second = await walled.run(""), await walled.run("")
    assert first.workdir.stat().st_uid != second.workdir.stat().st_uid


async def test_no_network_and_no_memory_limit_means_no_start(
    walled: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not isinstance(walled.executor, BubblewrapExecutor):
        pytest.skip("the engine itself limits memory; check() sees whether it can")

    def none(name: str) -> Hierarchy:
        raise ExecutorError("No control groups here.")

    fresh = BubblewrapExecutor(walled.home)
    monkeypatch.setattr("computeswarm.seller.executors.bubblewrap.find_hierarchy", none)
    assert [p.what for p in await fresh.check()] == ["No memory limit can be set."]
    with pytest.raises(ExecutorError, match="No control groups"):
        await fresh.prepare("refused-too", SMALL)


async def test_a_sandbox_that_can_not_be_made_is_the_sellers_fault(walled: Bench) -> None:
    if isinstance(walled.executor, DockerExecutor):
        walled.image = replace(walled.image, container="sha256:" + "0" * 64)
        with pytest.raises(ExecutorError, match="isn't in Docker's engine"):
            await walled.start("print('ran')")
        return
    walled.image = replace(walled.image, root=Path("/nonexistent"))
    job, _ = await walled.start("print('ran')")
    with pytest.raises(ExecutorError, match="could not be made"):
        await job.wait()
    walled.image = replace(walled.image, root=None, site=Path("/nonexistent"))
    with pytest.raises(ExecutorError, match="is gone"):
        await walled.start("print('ran')")


async def test_a_job_sees_its_gpu_and_no_other(walled: Bench) -> None:
    if not isinstance(walled.executor, BubblewrapExecutor):
        pytest.skip("device files are bubblewrap's way")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        for minor, uuid in ((0, "GPU-a"), (1, "GPU-b")):
            facts = root / f"proc/driver/nvidia/gpus/0000:0{minor}:00.0/information"
            facts.parent.mkdir(parents=True)
            facts.write_text(f"Model: \t\t RTX\nGPU UUID: \t {uuid}\nDevice Minor: \t {minor}\n")
        (root / "dev").mkdir()
        for node in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
            (root / "dev" / node).touch()
        walled.executor._device_root = root
        gpu = GPUInfo(vendor="nvidia", model="RTX", memory_bytes=1, uuid="GPU-b")
        tried = await attempts(
            walled,
            "found['dev'] = [n for n in os.listdir('/dev') if 'nvidia' in n]\n"
            "found['cuda'] = os.environ['CUDA_VISIBLE_DEVICES']",
            gpus=(gpu,),
        )
        assert sorted(tried["dev"]) == ["nvidia-uvm", "nvidia1", "nvidiactl"]
        assert tried["cuda"] == "GPU-b"
        with pytest.raises(ExecutorError, match="gone"):
            await walled.run("", gpus=(gpu.model_copy(update={"uuid": "GPU-c"}),))
