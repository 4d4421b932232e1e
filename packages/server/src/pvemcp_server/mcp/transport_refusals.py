"""Audit of calls that the SDK's transport refuses itself, before its middleware runs.

Among them are headers that contradict the body, malformed envelopes and unknown revisions.
"""

import json
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pvemcp_server.audit import Audit
from pvemcp_server.mcp.json_rpc import Replay
from pvemcp_server.mcp.middleware import RECORDED_METHODS, has_reached, record_refusal


class TransportRefusals:
    """ASGI middleware around the SDK's transport of single messages."""

    def __init__(self, app: ASGIApp, audit: Audit) -> None:
        self._app = app
        self._audit = audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request; record it first if its error is no answer of the server."""
        if scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        body = (await receive())["body"]  # whole: the gate has read it
        head: Message | None = None

        async def recorded(message: Message) -> None:
            nonlocal head
            if message["type"] == "http.response.start":
                if message["status"] >= 400 and not has_reached(scope):
                    head = message
                    return
            elif head is not None:
                await self._record(scope, body, message.get("body", b""))
                await send(head)
                head = None
            await send(message)

        await self._app(scope, Replay(body, receive), recorded)

    async def _record(self, scope: Scope, body: bytes, answer: bytes) -> None:
        request = _object(body)
        method, params = request.get("method"), request.get("params")
        if method not in RECORDED_METHODS:
            return
        error = _object(answer).get("error") or {}
        await record_refusal(
            self._audit,
            scope["state"]["caller"],
            method,
            params if isinstance(params, dict) else {},
            reason=error.get("message", "malformed request"),
        )


def _object(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
