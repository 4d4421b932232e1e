"""Sessions of the handshake eras, limited per key: the SDK only limits their total."""

from collections import OrderedDict
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from pvemcp_server.http.errors import Refused

# More than the streams a key may hold, so that a key at this limit always has an idle session
SESSIONS_PER_KEY: Final = 512
_SESSION: Final = "mcp-session-id"


class Sessions:
    """The SDK's session manager behind a limit per key.

    A key at its limit loses the session that was idle for longest, whose client has to initialize
    again; when all its sessions are in use, a new one is refused. Only the protocol is used for
    this: ids come from the Mcp-Session-Id header of responses, and a session is ended by the
    DELETE that a client would send. The SDK ends idle sessions by itself after half an hour;
    such an id stays here until it is the longest idle one, or its client gets 404.
    """

    def __init__(self, server: Server[Any], *, max_request_body_size: int) -> None:
        self.manager = StreamableHTTPSessionManager(
            server, max_request_body_size=max_request_body_size
        )
        # By key, the requests in progress of each session, the least recently used first
        self._sessions: dict[str, OrderedDict[str, int]] = {}

    def run(self) -> AbstractAsyncContextManager[None]:
        """Run the sessions while inside."""
        return self.manager.run()

    async def handle_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request of the handshake eras.

        Streams are not resumable, so the Last-Event-ID of a lost one is ignored: the client
        gets a new stream instead of an error.
        """
        headers = [header for header in scope["headers"] if header[0] != b"last-event-id"]
        scope = {**scope, "headers": headers}
        key_id = scope["state"]["caller"].key_id
        sessions = self._sessions.setdefault(key_id, OrderedDict())
        session = Headers(scope=scope).get(_SESSION)
        if session is None:
            await self._open(sessions, scope, receive, send)
        elif session in sessions:
            await self._continue(sessions, session, scope, receive, send)
        else:
            await self.manager.handle_request(scope, receive, send)
        if not sessions:
            self._sessions.pop(key_id, None)

    async def _open(
        self, sessions: OrderedDict[str, int], scope: Scope, receive: Receive, send: Send
    ) -> None:
        if len(sessions) >= SESSIONS_PER_KEY and all(sessions.values()):
            raise Refused(503, "Too many open sessions of this key: end one of them first.")

        async def register(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                opened = Headers(raw=message["headers"]).get(_SESSION)
                if opened is not None:
                    sessions[opened] = 0
            await send(message)

        await self.manager.handle_request(scope, receive, register)
        if len(sessions) > SESSIONS_PER_KEY:
            await self._end_longest_idle(sessions, scope)

    async def _continue(
        self,
        sessions: OrderedDict[str, int],
        session: str,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        status = 0

        async def note_status(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        sessions[session] += 1
        sessions.move_to_end(session)
        try:
            await self.manager.handle_request(scope, receive, note_status)
        finally:
            if session in sessions:
                sessions[session] -= 1
                sessions.move_to_end(session)
            if status == 404 or (scope["method"] == "DELETE" and 0 < status < 400):
                sessions.pop(session, None)

    async def _end_longest_idle(self, sessions: OrderedDict[str, int], scope: Scope) -> None:
        idle = next((name for name, requests in sessions.items() if not requests), None)
        if idle is None:
            return
        del sessions[idle]
        headers = [(_SESSION.encode(), idle.encode())]
        delete = {**scope, "method": "DELETE", "headers": headers}

        async def no_body() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def ignore(_message: Message) -> None:
            pass

        await self.manager.handle_request(delete, no_body, ignore)
