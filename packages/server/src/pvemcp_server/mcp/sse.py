"""HTTP+SSE, the transport of 2024-11-05: one event stream to listen on, one URL to post to."""

from typing import Any

from mcp.server.lowlevel import Server
from mcp.server.sse import SseServerTransport
from starlette.types import Receive, Scope, Send

from pvemcp_server.http.credentials import MESSAGES
from pvemcp_server.http.exchange import BODY_BYTES


class SseEndpoint:
    """The two ASGI applications of the transport."""

    def __init__(self, server: Server[Any]) -> None:
        self._server = server
        self._transport = SseServerTransport(f"/{MESSAGES}", max_request_body_size=BODY_BYTES)

    async def stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a stream; the URL it names repeats the key if the key came in the path."""
        credential = scope["state"]["credential"]
        key = f"/{credential.secret}" if credential.in_path else ""
        mounted = {**scope, "root_path": f"/sse{key}"}
        async with self._transport.connect_sse(mounted, receive, send) as (incoming, outgoing):
            options = self._server.create_initialization_options()
            await self._server.run(incoming, outgoing, options)

    async def messages(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Accept a message; its response comes over the stream."""
        await self._transport.handle_post_message(scope, receive, send)
