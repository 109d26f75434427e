"""What the owner keeps for himself: a held GPU takes no new job; one that runs on it goes on.

Kept over restarts, as a pause is, by the GPU's own id: its number may change. On a machine without
a GPU the whole of it is held.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from computeswarm.core.errors import NotFound
from computeswarm.seller.usage import CPU

if TYPE_CHECKING:
    from computeswarm.seller.agent import SellerAgent

_HOLDS = "owner_holds"
HELD = "Held by you: no new job until you release it."


class Holds:
    """Which GPUs are held. ``recall`` first: what was held before a restart still is."""

    def __init__(self, agent: SellerAgent) -> None:
        self._agent = agent
        gpus = agent.config.hardware.gpus
        self._names = [gpu.uuid or f"gpu-{index}" for index, gpu in enumerate(gpus)] or [CPU]
        self._held: set[str] = set()

    @property
    def gpus(self) -> frozenset[int]:
        """Those that take no new job."""
        if self.machine:
            return frozenset()
        return frozenset(i for i, name in enumerate(self._names) if name in self._held)

    @property
    def machine(self) -> bool:
        """A machine without a GPU is held."""
        return CPU in self._held and CPU in self._names

    def recall(self) -> None:
        """Take up what was held before a restart."""
        kept = self._agent.desk.store.fact(_HOLDS)
        self._held = set(json.loads(kept)) if kept is not None else set()
        for index, name in enumerate(self._names):
            if name in self._held:
                text = f"{self._title(index)} is still held by you; release it to sell it again."
                self._agent.notices.tell(text, "warning")

    def hold(self, index: int, held: bool) -> None:
        """Keep a GPU, or give it back to buyers; 0 is the machine where it has none.

        Raises:
            NotFound: there is no such GPU.
        """
        if not 0 <= index < len(self._names):
            last = len(self._names) - 1
            has = f"they are numbered 0 to {last}" if last else "0 is the only number"
            raise NotFound(f"There is no GPU {index} here; {has}.")
        agent, name = self._agent, self._names[index]
        if held == (name in self._held):
            return
        agent.bookkeeper.tick()  # up to now it was as before
        kept = self._held | {name} if held else self._held - {name}
        agent.desk.store.keep_fact(_HOLDS, json.dumps(sorted(kept)).encode())
        self._held = kept
        agent.notices.tell(self._told(index, held))
        agent.market.refresh()
        agent.dispatcher.schedule()

    def _told(self, index: int, held: bool) -> str:
        if not held:
            return f"{self._title(index)} takes jobs again."
        runs = self._agent.running if self.machine else self._agent.slots.holder(index)
        end = "; what runs there goes on" if runs else ""
        return f"{self._title(index)} is held by you: no new job{end}."

    def _title(self, index: int) -> str:
        return "The machine" if self._names == [CPU] else f"GPU {index}"
