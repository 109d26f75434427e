"""JSON-RPC 2.0 over HTTP: single requests, batches, and the standard's errors."""

from __future__ import annotations

import inspect
import json
import logging
from typing import Any

from aiohttp import web

from computeswarm.chain.devnet.pyevm import params
from computeswarm.chain.devnet.pyevm.methods import METHODS
from computeswarm.chain.devnet.pyevm.node import Node

MAX_BODY_BYTES = 1024**2  # aiohttp's own limit
_MAX_BATCH = 100
# py-evm lifts the interpreter's recursion limit so far that deep JSON would overrun the stack
_MAX_NESTING = 10_000
_log = logging.getLogger(__name__)
_HEADERS = {"Content-Type": "application/json"}
_ARITY = {name: inspect.signature(method) for name, method in METHODS.items()}


class RpcServer:
    """Answers for one node. One request at a time: the interpreter has one thread anyway."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """The only route: POST anywhere."""
        if request.method != "POST":
            return web.Response(status=405, text="POST JSON-RPC here.", headers={"Allow": "POST"})
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return web.Response(status=413, text=f"At most {MAX_BODY_BYTES} bytes.")
        reply = self.answer(body)
        if reply is None:
            return web.Response(status=204)
        return web.Response(body=json.dumps(reply).encode(), headers=_HEADERS)

    def answer(self, body: bytes) -> Any:
        """The reply document to a request document; None for notifications."""
        if body.count(b"[") + body.count(b"{") > _MAX_NESTING:
            return _error(None, params.Fault(params.INVALID_REQUEST, "too many brackets"))
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError):
            return _error(None, params.Fault(params.PARSE_ERROR, "parse error"))
        self._node.advance()
        if not isinstance(asked, list):
            return self._one(asked)
        if not 0 < len(asked) <= _MAX_BATCH:
            fault = params.Fault(params.INVALID_REQUEST, f"a batch holds 1 to {_MAX_BATCH} calls")
            return _error(None, fault)
        replies = [reply for one in asked if (reply := self._one(one)) is not None]
        return replies or None

    def _one(self, asked: Any) -> dict[str, Any] | None:
        if not isinstance(asked, dict) or not isinstance(asked.get("method"), str):
            request_id = asked.get("id") if isinstance(asked, dict) else None
            return _error(request_id, params.Fault(params.INVALID_REQUEST, "invalid request"))
        try:
            result = self._dispatch(asked["method"], asked.get("params"))
        except params.Fault as fault:
            return _error(asked.get("id"), fault)
        if "id" not in asked:
            return None
        return {"jsonrpc": "2.0", "id": asked["id"], "result": result}

    def _dispatch(self, name: str, arguments: Any) -> Any:
        method = METHODS.get(name)
        if method is None:
            message = f"the method {name[:60]} does not exist/is not available"
            raise params.Fault(params.METHOD_NOT_FOUND, message)
        arguments = [] if arguments is None else arguments
        if not isinstance(arguments, list):
            raise params.invalid("expected a list")
        try:
            _ARITY[name].bind(self._node, *arguments)
        except TypeError as error:
            raise params.invalid(str(error)) from None
        try:
            return method(self._node, *arguments)
        except params.Fault:
            raise
        except Exception as error:
            _log.exception("the devnet failed at %s", name)
            message = f"internal error: {type(error).__name__}"
            raise params.Fault(params.INTERNAL_ERROR, message) from error


def _error(request_id: Any, fault: params.Fault) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "error": fault.as_json()}
