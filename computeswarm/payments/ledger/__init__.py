"""The books of both sides: every payment, refund, debt and channel step, and their audit."""

from computeswarm.payments.ledger.entries import Entry, Kind, Role, Standing, Totals, total
from computeswarm.payments.ledger.seller import Earnings, earned, ledger

__all__ = [
    "Earnings",
    "Entry",
    "Kind",
    "Role",
    "Standing",
    "Totals",
    "earned",
    "ledger",
    "total",
]
