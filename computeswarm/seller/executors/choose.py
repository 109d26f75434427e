"""Which sandbox a seller uses: the one that is set, or the strongest that works here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from computeswarm.core.errors import ConfigError, ExecutorError
from computeswarm.core.nodes import GPUInfo, Isolation
from computeswarm.seller.executors.base import Executor, Problem
from computeswarm.seller.executors.bubblewrap import BubblewrapExecutor
from computeswarm.seller.executors.docker import DockerExecutor
from computeswarm.seller.executors.macos import SandboxExecExecutor
from computeswarm.seller.executors.process import ProcessExecutor

_MAKERS: dict[str, Callable[[Path, Sequence[GPUInfo]], Executor]] = {
    "docker": lambda home, gpus: DockerExecutor(home, gpus=gpus),
    "bubblewrap": lambda home, _: BubblewrapExecutor(home),
    "sandbox-exec": lambda home, _: SandboxExecExecutor(home),
    "process": lambda home, _: ProcessExecutor(home),
}
"""Strongest first."""
NAMES = ("auto", *_MAKERS)
_TRUSTED = "Jobs run {walls}, so only your trusted wallets are served."
_WEAKER = "Jobs run in {name}, as stronger sandboxes can't be used here. {why}"


async def choose_executor(
    wanted: str, home: Path, trusted: Sequence[str], gpus: Sequence[GPUInfo] = ()
) -> tuple[Executor, tuple[str, ...]]:
    """The executor ``wanted`` names (``auto``: the strongest that works), and what to say about it.

    Args:
        home: the seller's state directory.
        trusted: wallets that may be served where there is no wall.

    Raises:
        ConfigError: there is no such executor.
        ExecutorError: it can't be used, and what to do.
    """
    if wanted not in NAMES:
        *others, last = NAMES
        raise ConfigError(
            f"There is no executor {wanted[:40]!r}; use {', '.join(others)} or {last}."
        )
    refused: list[Problem] = []
    for name, make in _MAKERS.items():
        if wanted not in ("auto", name):
            continue
        executor = make(home, gpus)
        problems = await executor.check()
        if not problems and (trusted or not executor.owner_only):
            if not executor.owner_only:
                stronger = " ".join(map(str, refused))
                return executor, ((_WEAKER.format(name=name, why=stronger),) if refused else ())
            walls = "without a sandbox" if executor.isolation is Isolation.NONE else f"in {name}"
            return executor, (" ".join([_TRUSTED.format(walls=walls), *map(str, refused)]),)
        await executor.close()
        if executor.owner_only and not problems:
            continue  # nobody is named whom it may serve
        if wanted == name:
            raise ExecutorError(f"{name} can't be used here. {' '.join(map(str, problems))}")
        refused += problems
    why = " ".join(map(str, refused))
    raise ExecutorError(
        f"No sandbox can be used here. {why} Without one, name the wallets you trust."
        if why
        else "Jobs without a sandbox are for your own wallets only; name the ones you trust."
    )


async def look_at_each(
    home: Path, gpus: Sequence[GPUInfo] = ()
) -> list[tuple[Executor, list[Problem]]]:
    """Every executor, strongest first, and why it can't be used; the caller closes them."""
    made = [make(home, gpus) for make in _MAKERS.values()]
    return [(executor, await executor.check()) for executor in made]
