"""A shell that has joined a job's control groups and waits to become its sandbox.

Joining a control group takes the kernel 13 ms (it waits for an RCU grace period), which is more
than bubblewrap takes for everything else. It is done while the workspace is made, and the buyer's
first line comes that much earlier.

The shell reads its commands from a pipe held by the agent: if the agent dies, it ends.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
from collections.abc import Sequence

from computeswarm.core.errors import ExecutorError
from computeswarm.seller.executors.base import Limits
from computeswarm.seller.executors.cgroups import Group
from computeswarm.seller.executors.running import spawn


class Status:
    """What bubblewrap says of itself on ``--json-status-fd``."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._text = b""

    def _read(self) -> bytes:
        with contextlib.suppress(BlockingIOError):
            while self._fd >= 0 and (chunk := os.read(self._fd, 4096)):
                self._text += chunk
        return self._text

    @property
    def init(self) -> int | None:
        """Host pid of the sandbox's process 1."""
        found = re.search(rb'"child-pid": *(\d+)', self._read())
        return int(found[1]) if found else None

    @property
    def exit_code(self) -> int | None:
        """``None``: the command was never run."""
        found = re.search(rb'"exit-code": *(\d+)', self._read())
        return int(found[1]) if found else None

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Holder:
    """Made in ``prepare``; ``become`` or ``discard`` ends it, whichever comes first.

    Raises:
        ExecutorError: no shell can be started.
    """

    def __init__(self, group: Group, limits: Limits, seccomp_filter: bytes) -> None:
        self.group = group
        self.limits = limits
        with contextlib.ExitStack() as on_error, contextlib.ExitStack() as childs:
            self._arguments = os.memfd_create("arguments")
            on_error.callback(os.close, self._arguments)
            self._filter = os.memfd_create("filter")
            childs.callback(os.close, self._filter)
            os.write(self._filter, seccomp_filter)
            os.lseek(self._filter, 0, os.SEEK_SET)
            self._gate, self._gate_end = os.pipe()
            childs.callback(os.close, self._gate)
            on_error.callback(os.close, self._gate_end)
            status, self._status_end = os.pipe()
            childs.callback(os.close, self._status_end)
            self.status = Status(status)
            on_error.callback(self.status.close)
            commands, self._commands = os.pipe()
            childs.callback(os.close, commands)
            on_error.callback(os.close, self._commands)
            self.process, self.stdout, self.stderr = spawn(
                ["/bin/sh"],
                env={"PATH": os.defpath},
                cwd="/",
                stdin=commands,
                pass_fds=(self._arguments, self._filter, self._status_end, self._gate),
            )
            on_error.pop_all()
        lines = [f"echo 0 > {shlex.quote(str(f))} || exit 97" for f in group.join_files]
        lines.append(f"ulimit -c 0 && ulimit -n {limits.open_files} || exit 98")
        self._tell("\n".join(lines))

    def become(self, prefix: Sequence[str], inside: Sequence[str], command: Sequence[str]) -> None:
        """Turn into ``prefix bwrap inside -- command``, which waits for ``release``.

        ``inside`` goes through a memory file: command lines are readable for every user.

        Raises:
            ExecutorError: the shell has ended; the control groups could not be joined.
        """
        filters = ["--seccomp", str(self._filter), "--json-status-fd", str(self._status_end)]
        filters += ["--block-fd", str(self._gate)]
        packed = b"".join(os.fsencode(word) + b"\0" for word in (*inside, *filters))
        view = memoryview(packed)
        while view:
            view = view[os.write(self._arguments, view) :]
        os.lseek(self._arguments, 0, os.SEEK_SET)
        argv = [*prefix, "bwrap", "--args", str(self._arguments), "--", *command]
        self._tell(f"exec {shlex.join(argv)} < /dev/null")
        os.close(self._commands)
        os.close(self._arguments)
        self._commands = self._arguments = -1

    def _tell(self, line: str) -> None:
        text = memoryview(os.fsencode(line + "\n"))
        try:
            while text:
                text = text[os.write(self._commands, text) :]
        except BrokenPipeError as error:
            raise ExecutorError(
                "The job's limits can't be set: its control groups could not be joined."
            ) from error

    def release(self) -> None:
        """Let the command run: its sandbox is complete. Again is fine."""
        if self._gate_end >= 0:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._gate_end, b"\n")
            os.close(self._gate_end)
            self._gate_end = -1

    def discard(self) -> None:
        """End the shell and remove its groups; blocks for milliseconds."""
        for fd in (self._commands, self._arguments, self._gate_end, self.stdout, self.stderr):
            if fd >= 0:
                os.close(fd)
        self._commands = self._arguments = self._gate_end = self.stdout = self.stderr = -1
        self.status.close()
        self.process.kill()
        self.process.wait()
        self.group.destroy()

    def streams(self) -> tuple[subprocess.Popen[bytes], int, int]:
        """Hand over the process and the read ends of its output."""
        given = (self.process, self.stdout, self.stderr)
        self.stdout = self.stderr = -1
        return given
