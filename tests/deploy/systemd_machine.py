"""A machine with a real systemd, in namespaces of its own over this machine's files.

Its root is an overlay: it sees what is installed here and writes into a folder of the test's. The
network is this machine's, so that it reaches chains and markets of the test.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

SYSTEMD = Path("/lib/systemd/systemd")
BOOT_SECONDS = 60.0
THIS_TREE = f"""#!/bin/sh
exec {sys.executable} -m computeswarm "$@"
"""
"""What stands for the installed program."""
_BOOT = """
set -e
cd "$1"
mount -t overlay overlay -o lowerdir=/,upperdir=up,workdir=work root
mount -t proc proc root/proc
mount -t sysfs -o ro sysfs root/sys
if [ "$(stat -f -c %T /sys/fs/cgroup)" = cgroup2fs ]; then
  mount -t cgroup2 cgroup2 root/sys/fs/cgroup
else
  mount -t tmpfs tmpfs root/sys/fs/cgroup
  mkdir root/sys/fs/cgroup/systemd
  mount -t cgroup -o none,name=systemd cgroup root/sys/fs/cgroup/systemd
  for controller in memory pids cpu cpuacct devices freezer; do
    mkdir root/sys/fs/cgroup/$controller
    mount -t cgroup -o $controller cgroup root/sys/fs/cgroup/$controller
  done
fi
mount -t tmpfs tmpfs root/run
# nothing but what the test starts: no sysctl, no device rules, no tidying of /tmp
rm -rf root/usr/lib/systemd/system/*.wants root/etc/systemd/system/*.wants root/etc/fstab
mount --rbind /dev root/dev
# test folders lie below /tmp, and are written from both sides
mount --rbind "$2" "root$2"
cd root
mkdir -p .old
pivot_root . .old
umount -l .old
# services hand their mounts on, as on any machine that systemd has booted
mount --make-rshared /
mkdir -p /etc/systemd/system
printf '[Unit]\\nDefaultDependencies=no\\nWants=systemd-journald.socket\\n' \\
  > /etc/systemd/system/nothing.target
exec chroot . env -i container=lxc PATH=/usr/sbin:/usr/bin:/sbin:/bin \
  /lib/systemd/systemd --system --unit=nothing.target
"""


@dataclass(frozen=True)
class Machine:
    """A booted one; ``pid`` is its process 1 as seen from here."""

    pid: int

    def run(self, *argv: str, seconds: float = 120.0) -> subprocess.CompletedProcess[str]:
        """A command inside."""
        enter = ("nsenter", "-t", str(self.pid), "-m", "-p", "-C", "-u", "-i", "-r", "-w")
        return subprocess.run(
            [*enter, *argv], capture_output=True, text=True, timeout=seconds, check=False
        )

    def must(self, *argv: str) -> str:
        """A command inside that succeeds; what it printed."""
        done = self.run(*argv)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def install(self, shared: Path, files: Mapping[str, tuple[str, int]]) -> None:
        """Files inside, by path: their text and mode. ``shared`` is the folder both sides have."""
        passing = shared / "passing"
        for path, (text, mode) in files.items():
            passing.write_text(text)
            self.must("install", "-D", "-m", f"{mode:o}", str(passing), path)
        passing.unlink()
        self.must("systemctl", "daemon-reload")

    def journal(self, unit: str) -> str:
        """What a unit wrote."""
        return self.must("journalctl", "--no-pager", "-u", unit)

    def property(self, unit: str, name: str) -> str:
        """What ``systemctl show`` says."""
        return self.must("systemctl", "show", "--value", "-p", name, unit).strip()


@contextmanager
def booted(folder: Path, shared: Path) -> Iterator[Machine]:
    """A machine that writes into ``folder``; ``shared`` is the same on both sides.

    Skips the test, with the reason, where there can be none.
    """
    if os.geteuid() != 0:
        pytest.skip("only root can boot a machine of its own")
    if not SYSTEMD.exists() or shutil.which("systemctl") is None:
        pytest.skip("systemd is not installed")
    for name in ("up", "work", "root"):
        (folder / name).mkdir(parents=True)
    log = folder / "boot.log"
    with log.open("wb") as out:
        boot = subprocess.Popen(
            [
                *("unshare", "--mount", "--pid", "--fork", "--cgroup", "--uts", "--ipc"),
                *("--kill-child", "bash", "-c", _BOOT, "boot", str(folder), str(shared)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield _up(boot, log)
    finally:
        boot.kill()  # process 1 goes with it, and everything inside goes with that
        boot.wait()


def _up(boot: subprocess.Popen[bytes], log: Path) -> Machine:
    deadline = time.monotonic() + BOOT_SECONDS
    children = Path(f"/proc/{boot.pid}/task/{boot.pid}/children")
    while time.monotonic() < deadline and boot.poll() is None:
        for pid in children.read_text().split():
            machine = Machine(int(pid))
            if Path(f"/proc/{pid}/comm").read_text() == "systemd\n":
                state = machine.run("systemctl", "is-system-running").stdout.strip()
                if state in ("running", "degraded"):
                    return machine
        time.sleep(0.1)
    pytest.skip(f"systemd does not boot here: {log.read_text(errors='replace')[-300:]}")
