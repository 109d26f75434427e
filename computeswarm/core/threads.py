"""Threads that work for later, beside one that somebody waits for."""

from __future__ import annotations

import os
import sys
import threading

_NICENESS = 10


def give_way() -> None:
    """Let this thread run when nobody else wants the processor, until it ends.

    Linux has niceness by thread; elsewhere it would be the whole process's, so nothing is done.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
