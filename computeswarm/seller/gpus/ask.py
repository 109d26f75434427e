"""Asking a driver that may never answer.

A card that falls off the bus can leave a call in the kernel that not even SIGKILL ends. Such a
call is left alone in a thread that keeps nobody from leaving, and nothing is asked until it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from computeswarm.seller.gpus.backends import GpuFault

_T = TypeVar("_T")


class Asking:
    """One question at a time.

    Args:
        patience: seconds; a driver that starts many cards takes some.
    """

    def __init__(self, patience: float = 10.0) -> None:
        self._patience = patience
        self._open: asyncio.Future[Any] | None = None
        self._lock = asyncio.Lock()

    @property
    def hangs(self) -> bool:
        """Whether an old question is still without an answer."""
        return self._open is not None and not self._open.done()

    async def ask(self, question: Callable[[], _T]) -> _T:
        """The answer.

        Raises:
            GpuFault: it takes too long, or an earlier question does.
            Exception: whatever the question raises.
        """
        async with self._lock:
            if self.hangs and self._open is not None:
                await asyncio.wait({self._open}, timeout=self._patience)
            if self.hangs:
                raise self._fault()
            answer = _in_thread(question)
            self._open = answer
            await asyncio.wait({answer}, timeout=self._patience)
            if self.hangs:
                raise self._fault()
            return answer.result()

    def _fault(self) -> GpuFault:
        return GpuFault(
            f"The GPU's driver has not answered for {self._patience:g} s; reboot if it stays so."
        )


def _in_thread(question: Callable[[], _T]) -> asyncio.Future[_T]:
    """A thread of its own: those of asyncio's pool are waited for at the program's end."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[_T] = loop.create_future()

    def unless_over(act: Callable[[], None]) -> None:
        if not answer.done():
            act()

    def tell(act: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(unless_over, act)

    def run() -> None:
        try:
            result = question()
        except Exception as error:
            failure = error  # the name of an except clause ends with it
            tell(lambda: answer.set_exception(failure))
        else:
            tell(lambda: answer.set_result(result))

    threading.Thread(target=run, name="gpu-driver", daemon=True).start()
    return answer
