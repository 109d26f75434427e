"""Committing vouchers: those of many channels together, and none of them waits for the disk.

A crash of ours takes no committed voucher back. The disk has it within ``SYNC_SECONDS``: so much of
the seller's own income a power cut may cost him, and nobody else anything.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from computeswarm.core.errors import PaymentRequired
from computeswarm.payments.channels.present import PresentedChannel
from computeswarm.payments.channels.reasons import ChannelReason
from computeswarm.payments.channels.records import Channel
from computeswarm.payments.channels.store import ChannelStore
from computeswarm.payments.present import refused

_log = logging.getLogger(__name__)

SYNC_SECONDS = 1.0
"""How long a committed voucher may be in the machine's memory only."""


@dataclass(frozen=True, slots=True)
class _Fresh:
    """A verified voucher that waits for the next commit."""

    payment: PresentedChannel
    amount: int
    subject: str
    binding: str
    check: Callable[[Channel], None]
    done: asyncio.Future[Channel]

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class TickCommits:
    """Commits into one store, whose file is ``path``."""

    def __init__(self, store: ChannelStore, path: Path) -> None:
        self._store = store
        self._log = path.with_name(path.name + "-wal")
        self._batch: list[_Fresh] = []
        self._sync: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """Let the disk have what it has not yet."""
        if self._sync is not None:
            self._sync.cancel()
            self._reach_disk()

    async def charge(
        self,
        payment: PresentedChannel,
        *,
        amount: int,
        subject: str,
        binding: str,
        check: Callable[[Channel], None],
    ) -> Channel:
        """Commit a voucher and what it pays for, together with all that are ready at this moment.

        A crash of ours takes none of it back. It does not wait for the disk, which would hold up
        all channels for longer than a tick is worth, but the disk has it within ``SYNC_SECONDS``:
        so much of our own income a power cut may cost us, and nobody else anything.

        Args:
            check: raises why the channel, as it then is, doesn't allow it.
        """
        loop = asyncio.get_running_loop()
        fresh = _Fresh(payment, amount, subject, binding, check, loop.create_future())
        self._batch.append(fresh)
        if len(self._batch) == 1:
            loop.call_soon(self._commit)
        return await fresh.done

    def _commit(self) -> None:
        batch, self._batch = self._batch, []
        refusals: dict[int, PaymentRequired] = {}
        try:
            with self._store.write(durable=False) as db:
                for index, fresh in enumerate(batch):
                    try:
                        fresh.check(self._store.get(fresh.payment.channel_id))
                        self._check_unfinished(fresh)
                    except PaymentRequired as error:
                        refusals[index] = error
                    else:
                        self._store.write_charge(
                            db,
                            fresh.payment,
                            amount=fresh.amount,
                            subject=fresh.subject,
                            binding=fresh.binding,
                        )
        except Exception as error:  # nothing was written: each caller has to know
            for fresh in batch:
                fresh.fail(error)
            return
        if self._sync is None:
            loop = asyncio.get_running_loop()
            self._sync = loop.call_later(SYNC_SECONDS, self._reach_disk)
        for index, fresh in enumerate(batch):
            if index in refusals:
                fresh.fail(refusals[index])
            elif not fresh.done.done():
                fresh.done.set_result(self._store.get(fresh.payment.channel_id))

    def _reach_disk(self) -> None:
        self._sync = None
        try:
            with self._log.open("rb+") as log:
                os.fsync(log.fileno())
        except FileNotFoundError:  # it was taken into the database, and is on the disk
            pass
        except OSError as error:
            _log.error("the record of channels can't be written through: %s", error)

    def _check_unfinished(self, fresh: _Fresh) -> None:
        """A job that ended since it was looked at is charged already: nothing more is."""
        if self._store.finished(fresh.subject.partition("#")[0], fresh.payment.channel_id):
            raise refused(ChannelReason.CHANNEL_BUSY, "The job has ended; nothing more is charged.")
