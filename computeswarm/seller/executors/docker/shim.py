"""Process 1 of a job's container. It is run by the image's own Python, and imports nothing of ours.

It waits for its order on stdin (a line with a length, then so many bytes of JSON: ``argv``,
``env`` and ``filter``), so that neither a command nor a secret stands in the container's
description, and one that was made ahead fits any job. It then starts the command, hands SIGTERM on
to everybody, and ends when the command does. When stdin ends, the seller is gone, and so is the
job: the kernel kills every process of a container whose process 1 has ended.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import os
import select
import signal
import sys
from typing import Any, NoReturn

PR_SET_DUMPABLE, PR_SET_SECCOMP = 4, 22
SECCOMP_MODE_FILTER = 2
RULE_BYTES = 8
NOT_FOUND, NOT_EXECUTABLE = 127, 126
JOB_DIR = "/job"


def order() -> Any:
    """What to run; the end of the process where the seller leaves before it says."""
    stdin = sys.stdin.buffer
    size = stdin.readline()
    text = stdin.read(int(size)) if size else b""
    if not size or len(text) < int(size):
        sys.exit(0)
    return json.loads(text)


class Program(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def confine(rules: bytes) -> None:
    """Load the seccomp filter: by number, where the engine's profile goes by names that it may not
    know.
    """
    program = Program(len(rules) // RULE_BYTES, rules)
    if ctypes.CDLL(None, use_errno=True).prctl(
        PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "the system calls can't be filtered")


def become(argv: list[str], env: dict[str, str], rules: bytes) -> NoReturn:
    """In the child: turn into the job."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.chdir(JOB_DIR)  # it was shut until now
        confine(rules)
        os.execvpe(argv[0], argv, env)  # noqa: S606
    except FileNotFoundError:
        code, why = NOT_FOUND, "not found"
    except (OSError, ValueError) as error:
        code, why = NOT_EXECUTABLE, getattr(error, "strerror", None) or str(error)
    os.write(2, ("%s: %s\n" % (argv[0], why)).encode("utf-8", "replace"))  # noqa: UP031 - old Pythons
    os._exit(code)


def ended(main: int) -> int | None:
    """Bury whoever has ended; the exit status once the command has."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        if pid == 0:
            return None
        if pid == main:
            if os.WIFSIGNALED(status):
                return 128 + os.WTERMSIG(status)
            return os.WEXITSTATUS(status)


def hand_on(number: int, _frame: object) -> None:
    """A signal for all of the job."""
    with contextlib.suppress(OSError):
        os.kill(-1, number)


def main() -> NoReturn:
    # the job is the same user; without this it could write into /proc/1/mem
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    told = order()
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGTERM, hand_on)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    pid = os.fork()
    if pid == 0:
        become(told["argv"], told["env"], base64.b64decode(told["filter"]))
    del told
    while True:
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(woken, 4096)
            code = ended(pid)
            if code is not None:
                os._exit(code)
        if 0 in ready and not os.read(0, 4096):
            os._exit(128 + signal.SIGKILL)


main()
