"""Audit of calls that a transport refuses itself, before the middleware of the server runs.

Among them are headers that contradict the body, malformed messages, unknown sessions and revisions.
"""

import json
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pvemcp_server.audit import Audit
from pvemcp_server.http.errors import Refused
from pvemcp_server.mcp.json_rpc import MOST_MESSAGES, Replay
from pvemcp_server.mcp.middleware import RECORDED_METHODS, has_reached, record_refusal


class TransportRefusals:
    """ASGI middleware around a transport to which messages are posted."""

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
                answer = _read(message.get("body", b""))
                error = answer.get("error") if isinstance(answer, dict) else None
                reason = error["message"] if isinstance(error, dict) else "malformed request"
                await self._record(scope, body, reason)
                await send(head)
                head = None
            await send(message)

        try:
            await self._app(scope, Replay(body, receive), recorded)
        except Refused as refused:
            if not has_reached(scope):
                await self._record(scope, body, refused.message)
            raise

    async def _record(self, scope: Scope, body: bytes, reason: str) -> None:
        read = _read(body)
        for request in read[:MOST_MESSAGES] if isinstance(read, list) else [read]:
            method = request.get("method") if isinstance(request, dict) else None
            if method in RECORDED_METHODS:
                params = request.get("params")
                await record_refusal(
                    self._audit,
                    scope["state"]["caller"],
                    method,
                    params if isinstance(params, dict) else {},
                    reason=reason,
                )


def _read(text: bytes) -> Any:
    """Return the JSON value; an empty object for another text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return {}
