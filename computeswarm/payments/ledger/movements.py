"""A wallet's transfers as the evidence has them, by transaction and by the authorization used."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from computeswarm.chain.abi import topic_address
from computeswarm.chain.transfers import Transfer, all_transfers
from computeswarm.chain.usdc import AUTHORIZATION_USED_TOPIC, Usdc
from computeswarm.chain.wire import Log, Receipt
from computeswarm.core.crypto import same_address
from computeswarm.payments.ledger.entries import Entry, Role
from computeswarm.payments.ledger.evidence import Evidence


@dataclass(slots=True)
class Movement:
    """A transfer on chain, and the entries that explain it, at most one of each role."""

    transfer: Transfer
    explained: dict[Role, Entry] = field(default_factory=dict)


class Movements:
    """All of one wallet's: those in the evidence's range, and those of the receipts."""

    def __init__(self, usdc: Usdc, wallet: str, found: Evidence) -> None:
        self._usdc = usdc
        self._wallet = wallet.lower()
        self._all: list[Movement] = []
        self._by_tx: dict[str, list[Movement]] = defaultdict(list)
        self._by_nonce: dict[tuple[str, str], Movement] = {}
        for receipt in found.receipts.values():
            if receipt is not None:
                self._read(receipt)
        for transfer in found.transfers:
            if found.receipts.get(transfer.transaction) is None:
                self._keep(transfer)

    def __iter__(self) -> Iterator[Movement]:
        return iter(self._all)

    def in_transaction(self, tx: str) -> Sequence[Movement]:
        """Those of one transaction, in its order."""
        return self._by_tx.get(tx, ())

    def of_nonce(self, payer: str, nonce: str) -> Movement | None:
        """The one that an authorization (EIP-3009) made, in whatever transaction."""
        return self._by_nonce.get((payer.lower(), nonce.lower()))

    def _read(self, receipt: Receipt) -> None:
        for place, transfer in enumerate(all_transfers(receipt, self._usdc)):
            if transfer is None or self._wallet not in (transfer.from_, transfer.to):
                continue
            movement = self._keep(transfer)
            # USDC writes the two events one after the other; no transfer stands for two nonces
            before = receipt.logs[place - 1] if place else None
            if before is not None and self._used(before, transfer.from_):
                self._by_nonce[transfer.from_, before.topics[2]] = movement

    def _used(self, log: Log, payer: str) -> bool:
        return (
            same_address(log.address, self._usdc.address)
            and len(log.topics) == 3
            and log.topics[0] == AUTHORIZATION_USED_TOPIC
            and topic_address(log.topics[1]) == payer
        )

    def _keep(self, transfer: Transfer) -> Movement:
        movement = Movement(transfer)
        self._all.append(movement)
        self._by_tx[transfer.transaction].append(movement)
        return movement
