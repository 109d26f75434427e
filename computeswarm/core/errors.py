"""One error tree for the whole project.

Each error carries a stable ``code``, the HTTP ``status`` a server answers with, the ``exit_code``
of the command line, and one sentence in ``detail`` that says what to do. Servers answer
``application/problem+json`` (RFC 9457) made from these, and clients turn such a document back into
the same class.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, ClassVar

PROBLEM_CONTENT_TYPE = "application/problem+json"
_DETAIL_LIMIT = 2_000


class ExitCode(IntEnum):
    """Exit codes of the command line; a job's own exit code passes through unchanged."""

    OK = 0
    DIFFERENT = 1
    """An audit found that books and chain differ, or that a record is not signed."""
    BUDGET_OR_TIME = 124
    OWN_ERROR = 125
    REFUSED = 126
    INTERRUPTED = 130


class ComputeSwarmError(Exception):
    """Base of every error that a user or another party may meet.

    Args:
        detail: one sentence that says what happened and what to do.
        extra: JSON-able members added to the problem document.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Something went wrong"
    exit_code: ClassVar[int] = ExitCode.OWN_ERROR

    def __init__(self, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.extra = extra

    def to_problem(self) -> dict[str, Any]:
        """The RFC 9457 document of this error."""
        return {
            "type": f"urn:computeswarm:error:{self.code}",
            "title": self.title,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            **self.extra,
        }


class BadRequest(ComputeSwarmError):
    """Input that can't be understood."""

    code = "bad_request"
    status = 400
    title = "The request can't be understood"


class InvalidQuery(BadRequest):
    """A search query with a word that can't be read; ``extra`` holds ``position`` and ``word``."""

    code = "invalid_query"
    title = "The query can't be read"


class Unauthorized(ComputeSwarmError):
    code = "unauthorized"
    status = 401
    title = "Not signed, or signed by somebody else"
    exit_code = ExitCode.REFUSED


class PaymentRequired(ComputeSwarmError):
    """A payment is missing or was not accepted; ``extra['reason']`` is the x402 error code."""

    code = "payment_required"
    status = 402
    title = "Payment required"


class Forbidden(ComputeSwarmError):
    code = "forbidden"
    status = 403
    title = "Not allowed"
    exit_code = ExitCode.REFUSED


class NotFound(ComputeSwarmError):
    code = "not_found"
    status = 404
    title = "Not found"


class NodeNotFound(NotFound):
    code = "node_not_found"
    title = "No such node"


class NoNodeFits(NodeNotFound):
    """No node that the market lists can run the job now."""

    code = "no_node_fits"
    title = "No node fits"


class JobNotFound(NotFound):
    code = "job_not_found"
    title = "No such job"


class Conflict(ComputeSwarmError):
    code = "conflict"
    status = 409
    title = "In conflict with the present state"


class InvalidTransition(Conflict):
    code = "invalid_transition"
    title = "The job can't go to that state"


class AuthorizationReused(Conflict):
    """The same payment authorization presented with another request."""

    code = "authorization_reused"
    title = "This payment was made for another request"


class Gone(ComputeSwarmError):
    code = "gone"
    status = 410
    title = "No longer there"


class NodeRevoked(Gone):
    """The node's owner took it off the market for good; only a newer record lists it again."""

    code = "node_revoked"
    title = "The node was revoked by its owner"


class TooLarge(ComputeSwarmError):
    code = "too_large"
    status = 413
    title = "Too large"


class Unprocessable(ComputeSwarmError):
    """Well-formed input that can't be honoured (a limit, an unknown image, a bad value)."""

    code = "unprocessable"
    status = 422
    title = "The request can't be honoured"


class QuoteExpired(Unprocessable):
    code = "quote_expired"
    title = "The quote has expired"


class TooManyRequests(ComputeSwarmError):
    """``extra['retry_after']`` holds the seconds to wait."""

    code = "too_many_requests"
    status = 429
    title = "Too many requests"


class Unavailable(ComputeSwarmError):
    """Somebody we need does not answer. What was asked of him is *unknown*, never *failed*."""

    code = "unavailable"
    status = 503
    title = "Not available"


class MarketUnavailable(Unavailable):
    code = "market_unavailable"
    title = "The market does not answer"


class SellerUnavailable(Unavailable):
    code = "seller_unavailable"
    title = "The seller does not answer"


class ChainUnavailable(Unavailable):
    code = "chain_unavailable"
    title = "The chain does not answer"


class InsufficientFunds(ComputeSwarmError):
    code = "insufficient_funds"
    status = 402
    title = "Not enough USDC"


class PolicyRefused(ComputeSwarmError):
    """The buyer's own guard said no; nothing was signed. ``extra['rule']`` names the rule."""

    code = "policy_refused"
    status = 403
    title = "Refused by your spending policy"
    exit_code = ExitCode.REFUSED


class RealMoneyRefused(PolicyRefused):
    """The network's money is real, and nobody has allowed to spend or to earn it here."""

    code = "real_money"
    title = "Real money is not allowed here"


class PaymentPending(Unavailable):
    """A signed payment whose fate is not known yet; the same one is presented again."""

    code = "payment_pending"
    title = "The payment is not confirmed yet"


class WalletError(ComputeSwarmError):
    code = "wallet"
    status = 400
    title = "The wallet can't be used"


class WrongPassword(WalletError):
    code = "wrong_password"
    title = "Wrong password"


class ConfigError(ComputeSwarmError):
    code = "config"
    status = 400
    title = "A setting is wrong"


class UsageError(ComputeSwarmError):
    """A command line that can't be understood."""

    code = "usage"
    status = 400
    title = "The command line is wrong"


class PortInUse(ComputeSwarmError):
    code = "port_in_use"
    title = "The port is taken"


class StorageFull(ComputeSwarmError):
    code = "storage_full"
    status = 507
    title = "The disk is full"


class ExecutorError(ComputeSwarmError):
    """The sandbox could not be made or started."""

    code = "executor"
    status = 503
    title = "The sandbox can't be used"


def _all_errors() -> dict[str, type[ComputeSwarmError]]:
    found: dict[str, type[ComputeSwarmError]] = {}
    stack: list[type[ComputeSwarmError]] = [ComputeSwarmError]
    while stack:
        cls = stack.pop()
        found.setdefault(cls.code, cls)
        stack.extend(cls.__subclasses__())
    return found


def from_problem(
    document: Any, *, status: int, fallback: type[ComputeSwarmError] = ComputeSwarmError
) -> ComputeSwarmError:
    """Turn a peer's problem document back into an error.

    The document comes from a stranger: its code only picks the class where that class's own HTTP
    status is the one that was answered, so a peer can't pose as a refusal of the buyer's own guard
    or wallet, and its text is capped. The caller cleans the text before showing it.
    """
    if not isinstance(document, dict):
        return _remote(fallback, f"The server answered {status} without saying why.")
    detail = document.get("detail") or document.get("error") or document.get("title")
    text = str(detail)[:_DETAIL_LIMIT] if detail else f"The server answered {status}."
    cls = _all_errors().get(str(document.get("code")))
    if cls is None or cls.status != status or cls.exit_code != ExitCode.OWN_ERROR:
        cls = fallback
    reserved = {"type", "title", "status", "code", "detail"}
    extra = {str(k): v for k, v in document.items() if str(k) not in reserved}
    return _remote(cls, text, **extra)


def _remote(cls: type[ComputeSwarmError], detail: str, **extra: Any) -> ComputeSwarmError:
    error = cls(detail)
    error.extra = extra
    return error
