"""Runs as a program of its own beside each unsandboxed job, and buries the job's whole tree.

``python -I -S supervisor.py COMMAND…``: starts the command, adopts every process that it leaves
behind, hands SIGTERM on to all of them, and kills all of them when the command ends or when stdin
does, which is when the agent dies, however it dies. Its exit status is the command's.

It imports nothing of this project: it has to start within milliseconds.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import sys

_STOP_TRIES = 50
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
LINUX = sys.platform == "linux"
FREEZE, THAW = b"s", b"c"
"""Written to stdin: the job's whole tree is to stand still, or to go on."""


def _prctl(option: int, value: int) -> None:
    if LINUX:
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _descendants() -> set[int]:
    """All processes below this one; orphans count, because they are handed to it."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib takes 8 ms to import
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                    parent = int(file.read().rpartition(b")")[2].split()[1])
            except OSError:
                continue  # it has ended meanwhile
            children.setdefault(parent, []).append(int(name))
    found: set[int] = set()
    todo = [os.getpid()]
    while todo:
        for child in children.get(todo.pop(), ()):
            found.add(child)
            todo.append(child)
    return found


def _signal_all(number: int, group: int) -> None:
    targets = _descendants() if LINUX else {-group}
    for pid in targets:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue


def _stop_all(group: int) -> None:
    """Again until all stand still, and are the same: what is forked meanwhile gets no signal."""
    before: set[int] = set()
    for _ in range(_STOP_TRIES):
        _signal_all(signal.SIGSTOP, group)
        now = _descendants() if LINUX else before
        if now == before and all(_stopped(pid) for pid in now):
            return
        before = now


def _stopped(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            return file.read().rpartition(b")")[2].split()[0] in b"TtZX"
    except OSError:
        return not LINUX  # it has ended, and may have left a child


def _bury(group: int) -> None:
    while True:
        _signal_all(signal.SIGKILL, group)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            select.select([], [], [], 0.001)
        except ChildProcessError:
            return


def _start(argv: list[str], nofile: int) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(137)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        soft = min(nofile, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, soft))
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.execvpe(argv[0], argv, os.environ)  # noqa: S606
    except OSError as error:
        os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
    os._exit(127)


def main(argv: list[str]) -> int:
    nofile = int(argv[1])
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    job = _start(argv[2:], nofile)
    status = None
    while status is None:
        ready, _, _ = select.select([0, wake_read], [], [])
        wish = os.read(0, 1) if 0 in ready else None
        if wish == b"":
            break
        woken = os.read(wake_read, 512) if wake_read in ready else b""
        if signal.SIGTERM in woken:
            _signal_all(signal.SIGTERM, job)
        if wish == FREEZE:
            _stop_all(job)
        if wish == THAW:
            _signal_all(signal.SIGCONT, job)
        status = _reaped(job)
    _bury(job)
    return _repeat(status)


def _reaped(job: int) -> int | None:
    """Collect the dead; the job's own status if it is among them."""
    try:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == job:
                return status
            if pid == 0:
                return None
    except ChildProcessError:
        return None


def _repeat(status: int | None) -> int:
    if status is None:
        os.kill(os.getpid(), signal.SIGKILL)
    elif os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    return os.WEXITSTATUS(status or 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
