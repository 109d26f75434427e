from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from computeswarm.core.threads import give_way


@pytest.mark.skipif(sys.platform != "linux", reason="niceness by thread is Linux's")
def test_only_that_thread_gives_way() -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before = niceness()
    with ThreadPoolExecutor(1, initializer=give_way) as pool:
        assert pool.submit(niceness).result() == max(before, 10)
    assert niceness() == before
