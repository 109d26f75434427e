"""The audit: all of one home's books against the chain, atom by atom.

The chain's head is read before the books. What was mined by then is in them, because both sides
write down what they send before they send it; so a seller may go on selling meanwhile.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.usdc import Usdc
from computeswarm.chain.wire import Block
from computeswarm.core.chains import ChainInfo
from computeswarm.core.crypto import is_address, to_checksum
from computeswarm.core.errors import ConfigError
from computeswarm.core.settings import Paths
from computeswarm.payments.ledger.books import Books
from computeswarm.payments.ledger.channel_audit import check_channels
from computeswarm.payments.ledger.entries import Entry, total
from computeswarm.payments.ledger.evidence import Evidence, block_at, gather, second_opinion
from computeswarm.payments.ledger.findings import Difference, Report, usdc
from computeswarm.payments.ledger.judge import Judge

_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Audit:
    """The reports of all wallets that the books speak of; ``elsewhere`` counts the entries of other
    chains, which were not looked at."""

    reports: tuple[Report, ...]
    elsewhere: int

    @property
    def clean(self) -> bool:
        """Whether all of it could be compared, and agrees."""
        return all(report.clean for report in self.reports)

    @property
    def different(self) -> bool:
        """Whether something surely disagrees."""
        return any(report.differences for report in self.reports)


@dataclass(frozen=True, slots=True)
class _Anchors:
    """Where the books begin, by other records than their own lines: the first may be missing."""

    job: float | None
    block: int | None

    def earliest(self, entries: Sequence[Entry]) -> float:
        """The first moment (unix seconds) that any of them names."""
        return min([one.at for one in entries] + ([] if self.job is None else [self.job]))


class Auditor:
    """Compares one home's books with one chain.

    Args:
        wallet: the wallet now in use, for entries that name none.
        witness: another node, which has to say the same.
    """

    def __init__(
        self,
        paths: Paths,
        chain: ChainInfo,
        rpc: RpcClient,
        *,
        wallet: str = "",
        witness: RpcClient | None = None,
    ) -> None:
        self._paths = paths
        self._chain = chain
        self._rpc = rpc
        self._usdc = Usdc(rpc, chain)
        self._wallet = wallet.lower()
        self._witness = witness

    async def run(self, since: float | None = None) -> Audit:
        """Audit the books since a moment (unix seconds), or since they begin.

        Raises:
            ConfigError: the RPC serves another chain, or the books can't be read.
            RpcUnavailable: the chain doesn't say, or two nodes contradict each other.
        """
        await self._rpc.verify_chain(self._chain.chain_id)
        if self._witness is not None:
            await self._witness.verify_chain(self._chain.chain_id)
        head = await self._rpc.head()
        with Books(self._paths, self._chain.chain_id) as books:
            everything = list(books.entries())
            anchors = _Anchors(books.first_job(), books.first_block())
        entries = [one for one in everything if one.chain_id == self._chain.chain_id]
        if len(entries) < len(everything):
            anchors = replace(anchors, block=None)  # whose chain's block it is, nobody says
        wallets = _by_wallet(entries, self._wallet)
        if not wallets and since is not None and self._wallet:
            wallets[self._wallet] = []
        reports = []
        for wallet, own in wallets.items():
            if not is_address(wallet):
                raise ConfigError(f"{wallet[:60]!r} in the books is no wallet; they are damaged.")
            reports.append(await self._audit(to_checksum(wallet), own, since, anchors, head))
        return Audit(tuple(reports), len(everything) - len(entries))

    async def _audit(
        self,
        wallet: str,
        entries: Sequence[Entry],
        since: float | None,
        anchors: _Anchors,
        head: Block,
    ) -> Report:
        whole = since is None
        start = anchors.earliest(entries) if since is None else since
        begin = await block_at(self._rpc, math.ceil(start), head)
        if whole and anchors.block is not None:
            begin = min(begin, anchors.block)
        recent = [one for one in entries if whole or one.at >= start - _DAY]
        hashes = [one.transaction for one in recent if one.transaction]
        found = await gather(
            self._rpc, self._usdc, wallet, hashes, head=head, begin=begin, whole=whole
        )
        if self._witness is not None:
            witness_usdc = Usdc(self._witness, self._chain)
            await second_opinion(self._witness, witness_usdc, wallet, found)
        chosen = [one for one in entries if _concerned(one, found, whole, start)]
        judge = Judge(self._usdc, wallet, found)
        judge.judge(chosen)
        differences = [*judge.differences]
        if whole:  # a channel's sums need all of its steps
            differences += await check_channels(self._rpc, self._usdc, chosen, found)
        report = self._report(wallet, found, chosen, judge)
        report.differences = [*differences, *_sum_up(report)]
        return report

    def _report(
        self, wallet: str, found: Evidence, chosen: Sequence[Entry], judge: Judge
    ) -> Report:
        changes = [transfer.within(wallet) for transfer in found.transfers]
        return Report(
            wallet=wallet,
            chain=self._chain,
            first=found.first,
            last=found.last,
            opening=found.opening,
            closing=found.closing,
            received=sum(change for change in changes if change > 0),
            sent=-sum(change for change in changes if change < 0),
            checked=len(chosen),
            pending=judge.pending,
            books=total(chosen),
            arrivals=judge.arrivals,
            returned=judge.returned,
            witnesses=1 if self._witness is None else 2,
        )


def _by_wallet(entries: Sequence[Entry], current: str) -> dict[str, list[Entry]]:
    """The entries of each wallet; those that name none are of the one now in use, or of the one
    that was used last."""
    named = [one.wallet.lower() for one in entries if one.wallet]
    spare = current or (named[-1] if named else "")
    wallets: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        wallet = entry.wallet.lower() or spare
        wallets[wallet].append(entry if entry.wallet else replace(entry, wallet=wallet))
    return wallets


def _concerned(entry: Entry, found: Evidence, whole: bool, start: float) -> bool:
    """Whether an entry belongs to the period: by its block where it has one, else by its time."""
    receipt = found.receipts.get(entry.transaction)
    if whole:
        return True
    if receipt is not None:
        return receipt.block_number >= found.first
    return entry.at >= start


def _sum_up(report: Report) -> list[Difference]:
    """Opening balance, and what came and went: that has to be the balance now."""
    if report.opening is None:
        return []
    expected = report.opening + report.received - report.sent
    if expected == report.closing:
        return []
    return [
        Difference(
            "sum",
            f"{report.wallet} held {usdc(report.opening)} before block {report.first}; with"
            f" {usdc(report.received)} in and {usdc(report.sent)} out it should hold"
            f" {usdc(expected)}, but holds {usdc(report.closing)}: the RPC keeps transfers back.",
            amount=report.closing - expected,
        )
    ]
