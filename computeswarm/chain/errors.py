"""The two ways a node can disappoint: it says no, or it says nothing."""

from __future__ import annotations

from typing import Any

from computeswarm.chain.abi import revert_reason
from computeswarm.core.errors import ChainUnavailable, ComputeSwarmError

_MAX_MESSAGE = 500


class RpcUnavailable(ChainUnavailable):
    """No usable answer. Whether the node acted on the request is *unknown*, never *failed*."""

    code = "rpc_unavailable"


class RpcError(ComputeSwarmError):
    """The node answered, and the answer is no.

    ``rpc_code`` and ``message`` are the node's own; ``data`` is what a contract reverted with and
    ``reason`` its decoded text. The texts come from the node: clean them before showing them.
    """

    code = "rpc_error"
    status = 502
    title = "The chain refused"

    def __init__(
        self, detail: str, *, rpc_code: int = 0, data: bytes | None = None, **extra: Any
    ) -> None:
        super().__init__(f"The chain refused: {detail[:_MAX_MESSAGE]}.", **extra)
        self.rpc_code = rpc_code
        self.message = detail[:_MAX_MESSAGE]
        self.data = data
        self.reason = revert_reason(data) if data else None

    @property
    def reverted(self) -> bool:
        """Whether a contract's code said no, rather than the node."""
        return bool(self.data) or "revert" in self.message.lower()
