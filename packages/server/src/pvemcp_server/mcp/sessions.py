"""Sessions of the handshake eras: bounded for each key, so that none takes the place of others."""

import math
from typing import Final

from mcp.server.auth.middleware.bearer_auth import AuthorizationContext
from mcp.server.streamable_http import StreamableHTTPServerTransport
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.types import Receive, Scope, Send

# More than the streams a key may hold, so that one of them is idle whenever there are so many
SESSIONS_PER_KEY: Final = 512


class Sessions(StreamableHTTPSessionManager):
    """The SDK's sessions, of which it bounds the sum only; whoever is forgotten begins anew."""

    async def handle_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Streams are not resumable: who tells the last event of a lost one gets a new one."""
        headers = [header for header in scope["headers"] if header[0] != b"last-event-id"]
        await super().handle_request({**scope, "headers": headers}, receive, send)

    def _admit_session(
        self, requestor: AuthorizationContext | None
    ) -> StreamableHTTPServerTransport | None:
        theirs = [
            self._server_instances[session]
            for session, owner in self._session_owners.items()
            if owner == requestor
        ]
        if len(theirs) >= SESSIONS_PER_KEY and not _forget_longest_idle(theirs):
            return None
        return super()._admit_session(requestor)


def _forget_longest_idle(sessions: list[StreamableHTTPServerTransport]) -> bool:
    """Ends the session that nobody has used for the longest time; whether there was one."""
    idle = [one.idle_scope for one in sessions if one.idle_scope is not None]
    longest = min(idle, key=lambda scope: scope.deadline, default=None)
    if longest is None or longest.deadline == math.inf:
        return False
    longest.cancel()
    return True
