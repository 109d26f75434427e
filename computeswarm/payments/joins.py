"""One task for each payment, which all who present it wait for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from computeswarm.core.errors import AuthorizationReused, ComputeSwarmError, PaymentPending
from computeswarm.core.x402 import Reason
from computeswarm.payments.claims import Claim, ClaimState
from computeswarm.payments.present import refused

_log = logging.getLogger(__name__)

Key = tuple[str, str]
"""Payer and nonce, in lower case; ``tx`` and hash for a buyer's own transfer."""
Steps = Coroutine[Any, Any, Claim]


@dataclass(frozen=True, slots=True)
class _Running:
    """A settlement under way."""

    binding: str
    task: asyncio.Task[Claim]


class Joins:
    """The settlements under way. ``seconds``: how long a caller waits for one."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._running: dict[Key, _Running] = {}

    async def close(self) -> None:
        """Stop them all."""
        tasks = [running.task for running in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def join(
        self,
        key: Key,
        binding: str,
        find: Callable[[], Claim | None],
        begin: Callable[[Claim | None], Steps],
    ) -> Claim:
        """The settled claim: of the task that runs, of what is known, or of a task begun now.

        Raises:
            AuthorizationReused: the payment was presented with another ``binding``.
            PaymentPending: it takes longer than a caller waits.
            PaymentRequired: it was turned away, or the chain took it back.
        """
        running = self._running.get(key)
        if running is not None:
            _check_binding(running.binding, binding)
        else:
            known = find()
            if known is not None:
                _check_binding(known.binding, binding)
                if known.state in (ClaimState.CONSUMED, ClaimState.REFUNDED, ClaimState.REVERTED):
                    return _kept(known)
            running = self.spawn(key, binding, begin(known))
        try:
            async with asyncio.timeout(self.seconds):
                return _kept(await asyncio.shield(running.task))
        except TimeoutError:
            raise PaymentPending(
                "The payment is not confirmed yet; present the same payment again.",
                reason=Reason.SETTLEMENT_PENDING,
            ) from None

    def spawn(self, key: Key, binding: str, steps: Steps) -> _Running:
        """Settle in a task of its own: no caller that goes away takes it along."""
        task = asyncio.create_task(steps)
        self._running[key] = running = _Running(binding, task)

        def finished(task: asyncio.Task[Claim]) -> None:
            del self._running[key]
            if not task.cancelled() and (error := task.exception()) is not None:
                expected = isinstance(error, ComputeSwarmError)
                _log.log(
                    logging.INFO if expected else logging.ERROR,
                    "a settlement ended with: %s",
                    error,
                    exc_info=None if expected else error,
                )

        task.add_done_callback(finished)
        return running


def _kept(claim: Claim) -> Claim:
    if claim.state is ClaimState.REVERTED:
        raise refused(
            Reason.SETTLEMENT_FAILED,
            "The chain took this payment back, and it can't be made any more; sign a new one.",
        )
    if claim.turned_away:
        raise refused(
            Reason.NONCE_USED,
            "This payment came when it was refused, so it goes back; sign a new one.",
        )
    return claim


def _check_binding(first: str, now: str) -> None:
    if first != now:
        raise AuthorizationReused(
            "This payment was presented with another request; sign a new one for this request."
        )
