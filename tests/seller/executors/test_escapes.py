"""A hostile job looks for what it must not find, and leaves traps in its outputs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from docker_engine import ask
from sandbox_bench import SMALL, Bench, alive
from test_walls import attempts

from computeswarm.core.nodes import Isolation
from computeswarm.seller.executors.base import Launch
from computeswarm.seller.executors.docker import DockerExecutor
from computeswarm.seller.outputs import OutputsTooLarge, collect

CANARY = "canary-3f1c0b9d"
TOKEN = "token-77ab01c4"

HUNT = f"""
import os
word = {CANARY[:6]!r}.encode() + {CANARY[6:]!r}.encode()
seen, looked = [], 0
def look(path):
    global looked
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        looked += 1
        for _ in range(64):
            chunk = os.read(descriptor, 1 << 20)
            if word in chunk:
                seen.append(path)
            if word in chunk or not chunk:
                return
    except OSError:
        pass
    finally:
        os.close(descriptor)
for process in filter(str.isdigit, os.listdir("/proc")):
    for name in ("environ", "cmdline", "mem", "maps", "mountinfo"):
        if process != str(os.getpid()) or name == "mountinfo":
            look(f"/proc/{{process}}/{{name}}")
for top in os.listdir("/"):
    if top in ("proc", "sys", "dev", "usr", "lib", "lib64", "root"):
        continue  # the image's own, or looked at above
    for where, folders, files in os.walk("/" + top):
        for name in files:
            look(os.path.join(where, name))
for name in ("/root", "/home", "/var/lib", "/run", "/tmp"):
    for where, folders, files in os.walk(name):
        for file in files:
            if file.endswith((".json", ".db", ".token", ".key", "password")):
                look(os.path.join(where, file))
print(seen, looked > 3)
"""


async def test_the_sellers_key_and_other_jobs_secrets_are_nowhere(
    walled: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("wallet.json", "seller/owner.json", "seller/jobs.db"):
        file = walled.home / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"key {CANARY}")
        file.chmod(0o644)  # however careless the seller was
    monkeypatch.setenv("COMPUTESWARM_PASSWORD", CANARY)
    careless = subprocess.Popen(  # noqa: ASYNC220 - it lives as long as the test
        [sys.executable, "-c", "import time; time.sleep(600)", CANARY]
    )
    try:
        other, space = await walled.start(
            "import os, time\nopen('mine', 'w').write(os.environ['TOKEN'])\n"
            "print('up'); time.sleep(600)",
            env={"TOKEN": CANARY},
        )
        await anext(other.output())
        assert (space.path / "mine").read_text() == CANARY  # it is there to be found
        result = await walled.run(HUNT)
        assert result.text == "[] True\n", result.stderr
        assert result.exit.code == 0
    finally:
        careless.kill()
        careless.wait()


async def test_processes_outside_are_out_of_reach(walled: Bench) -> None:
    bystander, _ = await walled.start("print('up'); import time; time.sleep(600)")
    await anext(bystander.output())
    tried = await attempts(
        walled,
        f"""
import signal
attempt("its number", lambda: os.kill({bystander.pid}, 9))
attempt("the agent", lambda: os.kill({os.getpid()}, 9))
attempt("priority", lambda: os.setpriority(os.PRIO_PROCESS, 0, -5))
signal.signal(15, signal.SIG_IGN)
attempt("all", lambda: os.kill(-1, 15))
""",
    )
    # numbers of outside name nobody inside
    assert tried["its number"] == tried["the agent"] == "ESRCH"
    assert tried["priority"] in ("EACCES", "EPERM")
    assert alive(bystander.pid)


async def test_limits_are_not_the_jobs_to_raise(walled: Bench) -> None:
    tried = await attempts(
        walled,
        """
import fcntl, resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
found["core"] = resource.getrlimit(resource.RLIMIT_CORE)[1]
def raising(what, value):
    try:
        resource.setrlimit(what, (value, value))
    except ValueError as error:
        raise OSError(1, str(error)) from None
attempt("files", lambda: raising(resource.RLIMIT_NOFILE, hard + 1))
attempt("core", lambda: raising(resource.RLIMIT_CORE, 1))
attempt("type for the owner", lambda: fcntl.ioctl(0, 0x5412, b"x"))
attempt("console", lambda: fcntl.ioctl(0, 0x541C, b"x"))
attempt("hostname", lambda: open("/proc/sys/kernel/hostname", "w").write("x"))
attempt("user", lambda: os.setuid(0))
attempt("group", lambda: os.setgroups([0]))
attempt("keys", lambda: open("/proc/keys").read(1) and None)
""",
    )
    denied = {"EPERM", "EACCES", "EROFS", "ENOENT"}
    tried.pop("keys")  # of its own session only, see keyctl
    # where nobody is mapped to 0, there is no such user
    assert {tried.pop("group"), tried.pop("user")} <= {"EPERM", "EINVAL"}
    assert set(tried.values()) <= denied, tried


async def test_setuid_programs_give_nothing(walled: Bench) -> None:
    result = await walled.run(
        "import os, shutil, subprocess, sys\n"
        "shutil.copy(sys.executable, '/tmp/own')\n"
        "os.chmod('/tmp/own', 0o6755)\n"
        "print(subprocess.run(['/tmp/own', '-c', 'import os; print(os.geteuid())'],"
        " capture_output=True, text=True).stdout.strip() != '0', os.geteuid() != 0)"
    )
    assert result.text == "True True\n", result.stderr


async def test_traps_in_the_outputs(walled: Bench, tmp_path: Path) -> None:
    result = await walled.run(
        """
import os, socket
os.chdir("outputs")
open("good", "w").write("good")
os.symlink("/etc/shadow", "link")
os.symlink("/", "root")
os.mkfifo("fifo")
socket.socket(socket.AF_UNIX).bind("socket")
for place in ("/etc/passwd", "/usr/bin/env"):
    try:
        os.link(place, "hard")
    except OSError:
        pass
with open("sparse", "wb") as file:
    try:
        file.truncate(1 << 40)
    except OSError:
        file.truncate(6 << 20)
os.makedirs("/".join(["deep"] * 40))
open(b"not utf-8 \\xff", "w").write("x")
open("line\\nbreak", "w").write("x")
os.mkdir("swap"); open("swap/inner", "w").write("x")
""",
        limits=SMALL,
    )
    assert result.exit.code == 0, result.stderr
    store = tmp_path / "store"
    try:
        found = collect(
            result.workdir / "outputs", max_files=100, max_bytes=SMALL.disk_bytes, store=store
        )
    except OutputsTooLarge:
        return  # the giant, which is refused whole
    kept = {file.path for file in found.files}
    assert {"good", "swap/inner"} <= kept
    assert not {"link", "root", "fifo", "socket", "hard", "line\nbreak"} & kept
    assert all(path.is_file() and not path.is_symlink() for path in store.rglob("*") if path.suffix)
    assert sum(file.size for file in found.files) <= SMALL.disk_bytes


async def test_names_of_inputs_stay_inside(walled: Bench) -> None:
    """A link that one job leaves behind is not followed by what the agent writes for the next."""
    first = await walled.run("import os; os.symlink('/tmp', 'outputs/way')")
    second = await walled.run("import os; print(os.listdir('.'), os.listdir('outputs'))")
    assert first.workdir != second.workdir or not (second.workdir / "outputs/way").exists()
    assert "way" not in second.text


async def test_many_at_once_are_kept_apart(walled: Bench) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    script = (
        "import os, socket, sys\n"
        "sock = socket.create_server(('127.0.0.1', 4999))\n"  # each has a loopback of its own
        "open('/tmp/mark', 'x').close(); open('/dev/shm/mark', 'x').close()\n"
        "open('mark', 'x').close()\n"
        "print(len([p for p in os.listdir('/proc') if p.isdigit()]) <= 3)"
    )
    with server:
        results = await asyncio.gather(*(walled.run(script) for _ in range(6)))
    assert [r.text for r in results] == ["True\n"] * 6, [r.stderr for r in results]
    assert len({r.workdir for r in results}) == 6


async def test_a_job_that_ignores_everything_ends(walled: Bench) -> None:
    job, _ = await walled.start(
        "import os, signal, time\n"
        "for n in range(1, 65):\n"
        "    try: signal.signal(n, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\n"
        "for _ in range(3):\n"
        "    if os.fork() == 0: os.setsid()\n"
        "print('up', flush=True)\n"
        "while True: time.sleep(1)"
    )
    await anext(job.output())
    async with asyncio.timeout(20):
        ended = await job.terminate(0.3)
    assert ended.signal == signal.SIGKILL


async def test_what_a_seller_says_of_his_walls_is_what_a_job_gets(walled: Bench) -> None:
    said = walled.executor.isolation
    assert said in (Isolation.NAMESPACE, Isolation.CONTAINER, Isolation.GVISOR)
    release = (await walled.run("print(open('/proc/version').read())")).text
    assert ("gVisor" in release) == (said is Isolation.GVISOR)


async def test_secrets_are_in_no_description(walled: Bench) -> None:
    """The job has them in its environment; its processes' arguments and its container do not."""
    space = await walled.executor.prepare("secretive", SMALL, image=walled.image)
    walled._spaces.append(space)
    launch = Launch("secretive", ("python", "-c", "x"), {}, space.path, walled.image, SMALL)
    code = "import os, time; print(os.environ['TOKEN'], flush=True); time.sleep(600)"
    launch = replace(launch, command=("python", "-c", code), secrets={"TOKEN": TOKEN})
    assert TOKEN not in repr(launch)
    job = await walled.executor.start(launch)
    walled._jobs.append(job)
    assert (await anext(job.output()))[1].startswith(TOKEN.encode())
    lines = [
        path.read_bytes()
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if path.exists() and path.parent.name != str(os.getpid())
    ]
    assert not any(TOKEN.encode() in line for line in lines)
    if walled.executor.name == "docker":
        assert isinstance(walled.executor, DockerExecutor)
        listed = ask(walled.executor.engine.path, "GET", "/containers/json?all=1")[1]
        for entry in json.loads(listed):
            told = ask(walled.executor.engine.path, "GET", f"/containers/{entry['Id']}/json")[1]
            assert TOKEN.encode() not in told
    await job.kill()
