"""Holds a wallet's entries against the evidence, each movement on chain for one entry only.

A payment is known by its authorization's nonce, wherever it was mined; everything else by its
transaction, accounts and amount. What no entry explains is a movement that the books don't know.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from computeswarm.chain.usdc import Usdc
from computeswarm.core.channels import BATCH_SETTLEMENT
from computeswarm.core.crypto import same_address
from computeswarm.core.ids import WEB_PURCHASE
from computeswarm.payments.ledger.entries import Entry, Kind, Role, Standing
from computeswarm.payments.ledger.evidence import Evidence
from computeswarm.payments.ledger.findings import Arrival, Code, Difference, named, usdc
from computeswarm.payments.ledger.movements import Movement, Movements

_NEVER = (Standing.EXPIRED, Standing.REVERTED)
"""By these books it moved nothing."""


class Judge:
    """One wallet's entries against one collection of evidence."""

    def __init__(self, usdc_: Usdc, wallet: str, found: Evidence) -> None:
        self._wallet = wallet
        self._found = found
        self._movements = Movements(usdc_, wallet, found)
        self.differences: list[Difference] = []
        self.arrivals: list[Arrival] = []
        self.pending = 0
        self.returned = 0

    def judge(self, entries: Sequence[Entry]) -> None:
        """Compare all of them, then name what none of them explains."""
        by_nonce = [one for one in entries if one.nonce]
        for entry in by_nonce:
            self._payment(entry)
        others = [one for one in entries if not one.nonce and one.direction]
        groups: dict[tuple[Role, str, str, str], list[Entry]] = defaultdict(list)
        for entry in others:
            if entry.transaction:
                apart = entry.row if entry.kind is Kind.TRANSFER or entry.kind.of_channel else ""
                other = self._source(entry) if entry.direction == "in" else entry.peer.lower()
                groups[entry.role, entry.transaction, other, apart].append(entry)
        for group in groups.values():
            self._transfer(group)
        for entry in others:
            if not entry.transaction:
                self._nameless(entry)
        self._look_for_debts([one for one in entries if _owed_to_us(one)])
        self._look_for_change(entries)
        self._leave_payouts(entries)
        self._name_unknown({one.peer.lower() for one in entries if one.peer})

    def _payment(self, entry: Entry) -> None:
        buyer = entry.role is Role.BUYER
        payer = (self._wallet if buyer else entry.peer).lower()
        movement = self._movements.of_nonce(payer, entry.nonce)
        if movement is None:
            self._unpaid(entry)
            return
        transfer = movement.transfer
        if entry.state in _NEVER or entry.state is Standing.REFUSED:
            self._say(
                "taken",
                f"The books call {named(entry)} {entry.state}, but it was taken in transaction"
                f" {transfer.transaction}.",
                entry,
                tx=transfer.transaction,
            )
        elif entry.transaction and entry.transaction != transfer.transaction:
            self._say(
                "other_transaction",
                f"The books name {entry.transaction} for {named(entry)}; it was paid in"
                f" {transfer.transaction}.",
                entry,
                tx=transfer.transaction,
            )
        payee = self._wallet if not buyer else entry.peer
        if not entry.kind.of_channel and not same_address(transfer.to, payee):
            self._say(
                "account",
                f"In {transfer.transaction}, {named(entry)} went to {transfer.to}, not to {payee}.",
                entry,
                tx=transfer.transaction,
            )
        self._amount(movement, [entry])
        self._explain(movement, [entry])

    def _unpaid(self, entry: Entry) -> None:
        """No transfer carries this authorization."""
        if entry.state in _NEVER:
            return
        if not entry.state.moved:
            self.pending += 1
        elif not entry.transaction:
            self._say(
                "not_paid",
                f"No transfer on the chain shows {named(entry)}, which the books count as paid.",
                entry,
            )
        elif not self._no_receipt([entry]):
            self._say(
                "not_paid",
                f"Transaction {entry.transaction} does not carry {named(entry)}.",
                entry,
                tx=entry.transaction,
            )

    def _transfer(self, group: list[Entry]) -> None:
        """One transfer of a transaction: refunds to the same account travel together."""
        entry, amount = group[0], sum(one.amount for one in group)
        tx, source = entry.transaction, self._source(entry)
        target = self._wallet if entry.direction == "in" else entry.peer
        candidates = [
            movement
            for movement in self._movements.in_transaction(tx)
            if same_address(movement.transfer.from_, source)
            and same_address(movement.transfer.to, target)
        ]
        free = [one for one in candidates if entry.role not in one.explained]
        exact = [one for one in free if one.transfer.amount == amount]
        if exact or free:
            movement = (exact or free)[0]
            self._amount(movement, group)
            self._explain(movement, group)
        elif candidates:
            self._explain(candidates[0], group)
        elif entry.state is Standing.OPEN:
            self.pending += len(group)
        elif not self._no_receipt(group):
            self._say(
                "not_paid",
                f"Transaction {tx} moves nothing from {source} to {target}, as"
                f" {_all(group)} would have it.",
                *group,
                tx=tx,
            )

    def _nameless(self, entry: Entry) -> None:
        """Money whose transaction the books don't know: any movement that fits, explains it."""
        if not entry.state.moved:
            self.pending += 1
            return
        source = self._source(entry)
        for movement in self._movements:
            transfer = movement.transfer
            if (
                not movement.explained
                and transfer.amount == entry.amount
                and same_address(transfer.from_, source)
                and (entry.direction == "in") == same_address(transfer.to, self._wallet)
            ):
                self._explain(movement, [entry])
                return
        self._say("not_paid", f"No transfer on the chain shows {named(entry)}.", entry)

    def _look_for_debts(self, owed: list[Entry]) -> None:
        """A seller who is gone may have paid all the same: one debt of his, or all of them."""
        by_peer: dict[str, list[Entry]] = defaultdict(list)
        for entry in owed:
            by_peer[entry.peer.lower()].append(entry)
        for movement in self._movements:
            transfer = movement.transfer
            debts = by_peer.get(transfer.from_, [])
            if movement.explained or not debts or not same_address(transfer.to, self._wallet):
                continue
            paid = next(([one] for one in debts if one.amount == transfer.amount), None)
            if paid is None and sum(one.amount for one in debts) == transfer.amount:
                paid = list(debts)
            if paid is None:
                continue
            self.arrivals.append(Arrival(tuple(paid), transfer.transaction, transfer.block))
            self._explain(movement, paid)
            by_peer[transfer.from_] = [one for one in debts if one not in paid]

    def _look_for_change(self, entries: Sequence[Entry]) -> None:
        """A server of the web may give back what it did not use; we know no more of it than that
        it was paid as much."""
        paid: dict[str, list[Entry]] = defaultdict(list)
        for entry in entries:
            if entry.job_id.startswith(WEB_PURCHASE) and entry.state.moved:
                paid[entry.peer.lower()].append(entry)
        left = {peer: sum(one.amount for one in bought) for peer, bought in paid.items()}
        for movement in self._movements:
            transfer = movement.transfer
            room = left.get(transfer.from_, 0)
            if movement.explained or not same_address(transfer.to, self._wallet):
                continue
            if transfer.amount <= room:
                left[transfer.from_] = room - transfer.amount
                self.returned += transfer.amount
                self._explain(movement, paid[transfer.from_][:1])

    def _leave_payouts(self, entries: Sequence[Entry]) -> None:
        """What a payout of channels brings is booked when its receipt has been read; until then the
        books know its transaction by the claims in it."""
        sent = {
            one.transaction: one for one in entries if one.kind.of_channel and one.state.at_risk
        }
        for movement in self._movements:
            claim = sent.get(movement.transfer.transaction)
            from_contract = same_address(movement.transfer.from_, BATCH_SETTLEMENT)
            if claim is not None and from_contract and not movement.explained:
                movement.explained[claim.role] = claim
                self.pending += 1

    def _name_unknown(self, peers: set[str]) -> None:
        for movement in self._movements:
            transfer = movement.transfer
            inside = self._found.first <= transfer.block <= self._found.last
            if movement.explained or not inside or transfer.within(self._wallet) == 0:
                continue
            code: Code = "unknown_in" if transfer.within(self._wallet) > 0 else "unknown_out"
            other = transfer.from_ if code == "unknown_in" else transfer.to
            way = f"came from {other}" if code == "unknown_in" else f"went to {other}"
            if other in peers:
                way += ", with whom the books have other business,"
            self.differences.append(
                Difference(
                    code,
                    f"{usdc(transfer.amount)} {way} in transaction {transfer.transaction} (block"
                    f" {transfer.block}), and the books don't know it.",
                    transfer.transaction,
                    (),
                    transfer.amount,
                )
            )

    def _source(self, entry: Entry) -> str:
        """From which account the money of an entry without an authorization comes."""
        if entry.direction == "out":
            return self._wallet.lower()
        return (BATCH_SETTLEMENT if entry.kind.of_channel else entry.peer).lower()

    def _no_receipt(self, group: list[Entry]) -> bool:
        """Say so where the transaction is in no block, or moved nothing."""
        tx = group[0].transaction
        receipt = self._found.receipts.get(tx)
        if receipt is None:
            self._say(
                "no_receipt",
                f"Transaction {tx} of {_all(group)} is in no block: it never was, or the chain took"
                " it back.",
                *group,
                tx=tx,
            )
        elif not receipt.succeeded:
            self._say("reverted", f"Transaction {tx} of {_all(group)} reverted.", *group, tx=tx)
        return receipt is None or not receipt.succeeded

    def _amount(self, movement: Movement, group: list[Entry]) -> None:
        booked, moved = sum(one.amount for one in group), movement.transfer.amount
        if booked != moved:
            tx = movement.transfer.transaction
            self._say(
                "amount",
                f"The books have {usdc(booked)} for {_all(group)}; transaction {tx} moved"
                f" {usdc(moved)}.",
                *group,
                tx=tx,
                amount=moved - booked,
            )

    def _explain(self, movement: Movement, group: list[Entry]) -> None:
        entry = group[0]
        first = movement.explained.setdefault(entry.role, entry)
        if first is not entry:
            tx = movement.transfer.transaction
            self._say(
                "used_twice",
                f"One transfer of {usdc(movement.transfer.amount)} in {tx} stands for two entries:"
                f" {named(first)}, and {_all(group)}.",
                first,
                *group,
                tx=tx,
            )

    def _say(
        self, code: Code, text: str, *entries: Entry, tx: str = "", amount: int | None = None
    ) -> None:
        total = sum(one.amount for one in entries) if amount is None else amount
        rows = tuple(f"{one.role} {one.row}" for one in entries)
        self.differences.append(Difference(code, text, tx, rows, total))


def _owed_to_us(entry: Entry) -> bool:
    return entry.role is Role.BUYER and entry.state is Standing.OWED


def _all(group: Iterable[Entry]) -> str:
    return " and ".join(named(one) for one in group)
