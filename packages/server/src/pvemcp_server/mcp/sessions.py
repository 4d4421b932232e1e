"""Sessions of the handshake eras: limited per key or user, and opened again after a restart."""

import json
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

import anyio
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from pvemcp_server.http.errors import Refused
from pvemcp_server.http.exchange import check_kept
from pvemcp_server.http.gate import user_of
from pvemcp_server.mcp.json_rpc import Replay
from pvemcp_server.mcp.question_ids import process_of
from pvemcp_server.mcp.relay import Relay
from pvemcp_server.mcp.session_ids import Params, SessionIds

# More than the streams a key may hold, so that a key at this limit always has an idle session
SESSIONS_PER_KEY: Final = 512
ENDED_SESSIONS: Final = 10_000
_SESSION: Final = "mcp-session-id"
_SUBSCRIPTIONS: Final = ("resources/subscribe", "resources/unsubscribe")
_OWN_HEADERS: Final = frozenset(
    name.encode() for name in (_SESSION, "accept", "content-type", "content-length")
)
_JSON: Final = (
    (b"content-type", b"application/json"),
    (b"accept", b"application/json, text/event-stream"),
)
_ID_IN_USE: Final = Refused(
    400, "A request of this session with the same id is in progress: send it with another id."
)


@dataclass(slots=True)
class _Session:
    inner: str  # the SDK's id
    requests: int = 0  # in progress
    ids: set[str] = field(default_factory=set)  # of these, as the SDK compares them


_Held = OrderedDict[tuple[str, str], _Session]
"""Sessions by the key and the client's id."""


class Sessions:
    """The SDK's session manager behind a limit per key and ids that outlive the process.

    The id that a client gets is sealed (`session_ids.py`); the SDK has another one. When a request
    brings an id that this process does not know, the handshake that it holds is repeated with the
    SDK, and the request goes on in the new session. So a client notices neither a restart nor that
    its session was ended because it was idle: by the SDK after half an hour, or here when the key
    was at its limit. Nor does it notice that its user has granted it more: the new connection
    continues the session (`Caller.session_owner`). What a session was subscribed to
    (`resources/subscribe`) is lost with it, and so is in a process that starts later that its
    client has ended it. What concerns a call or stream of another process is passed on to it
    (`relay.py`).

    Only the protocol is used for this: ids come from the Mcp-Session-Id header of responses, a
    session is opened by the messages and ended by the DELETE that a client would send.
    """

    def __init__(
        self, server: Server[Any], ids: SessionIds, relay: Relay, *, max_request_body_size: int
    ) -> None:
        self.manager = StreamableHTTPSessionManager(
            server, max_request_body_size=max_request_body_size
        )
        self._ids = ids
        self._relay = relay
        # By the holder of keys, the least recently used first
        self._sessions: defaultdict[str, _Held] = defaultdict(OrderedDict)
        self._ended: OrderedDict[bytes, None] = OrderedDict()  # digests of ids
        self._opening = anyio.Lock()  # one request of a lost session opens it for the others

    @property
    def number(self) -> int:
        """The number of open sessions."""
        return sum(map(len, self._sessions.values()))

    def run(self) -> AbstractAsyncContextManager[None]:
        """Run the sessions while inside."""
        return self.manager.run()

    async def handle_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request of the handshake eras; raise Refused for an unknown session.

        Streams are not resumable, so the Last-Event-ID of a lost one is ignored: the client
        gets a new stream instead of an error.
        """
        headers = [header for header in scope["headers"] if header[0] != b"last-event-id"]
        scope = {**scope, "headers": headers}
        scope["state"]["process"] = self._relay.process  # for the ids of questions
        name = Headers(scope=scope).get(_SESSION)
        body = b""
        if scope["method"] == "POST":  # whole, and checked by json_rpc.Messages
            body = (await receive())["body"]
        if name is None:
            sessions = self._sessions[scope["state"]["caller"].holder]
            await self._begin(sessions, scope, _from_start(scope, body, receive), send, body)
            return
        message = json.loads(body) if body else {}
        asking = process_of(message.get("id")) if "method" not in message else None
        if asking is not None and asking != self._relay.process:
            if not await self._relay.pass_on(asking, scope, body, send):
                await Response(status_code=202)(scope, receive, send)  # as to any late answer
            return
        if self._is_for_all(message, scope, name):
            check_kept(body)  # every process serves it, and a subscription stays in memory
            await self._relay.announce(scope, body)
        await self._serve(scope, body, receive, send)

    async def serve_relayed(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a message that another process has received for this one, or for all.

        Only a subscription needs the session here; without it, all else concerns nothing.
        """
        caller, name = scope["state"]["caller"], Headers(scope=scope)[_SESSION]
        body = scope["state"]["body"]
        is_held = (caller.key_id, name) in self._sessions[caller.holder]
        if is_held or (body and json.loads(body).get("method") in _SUBSCRIPTIONS):
            await self._serve(scope, body, receive, send)
            return
        if scope["method"] == "DELETE":
            self._end(name)
        await Response(status_code=202)(scope, receive, send)

    def _is_for_all(self, message: Mapping[str, Any], scope: Scope, name: str) -> bool:
        """Return whether other processes have to know a message, which may run a call of it."""
        method = message.get("method")
        if method == "notifications/cancelled":
            caller = scope["state"]["caller"]
            session = self._sessions[caller.holder].get((caller.key_id, name))
            cancelled = str((message.get("params") or {}).get("requestId"))
            return session is None or cancelled not in session.ids
        return scope["method"] == "DELETE" or method in _SUBSCRIPTIONS

    async def _serve(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Serve a request of a session, which is opened again if it is not known here."""
        caller, name = scope["state"]["caller"], Headers(scope=scope)[_SESSION]
        sessions, place = self._sessions[caller.holder], (caller.key_id, name)
        ids = _ids(body)
        if place not in sessions or not await self._continue(
            sessions, place, ids, scope, _from_start(scope, body, receive), send
        ):
            await self._open_again(sessions, place, scope)
            start = _from_start(scope, body, receive)
            if not await self._continue(sessions, place, ids, scope, start, send):
                raise _not_found()

    async def _begin(
        self,
        sessions: _Held,
        scope: Scope,
        receive: Receive,
        send: Send,
        body: bytes,
    ) -> None:
        """Serve a request without a session: one that initializes opens it.

        Others have nothing to listen to or to end: they get 405, as in later revisions. Clients
        that reconnect give up after other errors, and send initialize after this one.
        """
        if scope["method"] != "POST":
            raise Refused(405, "Without a session, send initialize by POST.", {"Allow": "POST"})
        params: Params = json.loads(body).get("params") or {} if body else {}
        _require_room(sessions)
        name = ""

        async def register(message: Message) -> None:
            nonlocal name
            inner = _opened(message)
            if inner is not None:
                name = self._ids.seal(params, scope["state"]["caller"].session_owner) or inner
                sessions[scope["state"]["caller"].key_id, name] = _Session(inner)
            await send(_named(message, name))

        await self.manager.handle_request(scope, receive, register)
        await self._end_longest_idle(sessions, scope)

    async def _open_again(self, sessions: _Held, place: tuple[str, str], scope: Scope) -> None:
        """Repeat the handshake that the id holds; raise Refused if it holds none or has ended."""
        name = place[1]
        params = self._ids.open(name, scope["state"]["caller"].session_owner)
        if params is None or _digest(name) in self._ended:
            raise _not_found()
        async with self._opening:
            if place in sessions:  # by another request of the same client
                return
            _require_room(sessions)
            inner: str | None = None

            async def take(message: Message) -> None:
                nonlocal inner
                inner = inner or _opened(message)

            await self.manager.handle_request(*_posted(scope, "initialize", params), take)
            if inner is None:
                raise _not_found()
            ready = _posted(scope, "notifications/initialized", {}, inner)
            await self.manager.handle_request(*ready, _ignore)
            sessions[place] = _Session(inner)
        await self._end_longest_idle(sessions, scope)

    async def _continue(
        self,
        sessions: _Held,
        place: tuple[str, str],
        ids: set[str],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> bool:
        """Serve a request of a session; return False if the SDK has ended it, with nothing sent."""
        session, status, name = sessions[place], 0, place[1]
        if session.ids & ids:  # the SDK would send both answers to one of the two
            await _ID_IN_USE.response(scope, receive, send)
            return True

        async def pass_on(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            if status != 404:
                await send(_named(message, name))

        session.requests += 1
        session.ids |= ids
        sessions.move_to_end(place)
        try:
            await self.manager.handle_request(_within(scope, session.inner), receive, pass_on)
        finally:
            session.requests -= 1
            session.ids -= ids
            if sessions.get(place) is session:
                sessions.move_to_end(place)
                if scope["method"] == "DELETE" and 0 < status < 400:
                    self._end(name)
                    del sessions[place]
                elif status == 404:
                    del sessions[place]
        return status != 404

    def _end(self, name: str) -> None:
        """Remember that the client has ended this session."""
        self._ended[_digest(name)] = None
        if len(self._ended) > ENDED_SESSIONS:
            self._ended.popitem(last=False)

    async def _end_longest_idle(self, sessions: _Held, scope: Scope) -> None:
        """End one session of a holder beyond the limit: the one that was idle for longest."""
        if len(sessions) <= SESSIONS_PER_KEY:
            return
        idle = next((place for place, session in sessions.items() if not session.requests), None)
        if idle is None:
            return
        delete = {**_within(scope, sessions.pop(idle).inner), "method": "DELETE"}
        delete["user"] = user_of(idle[0])  # perhaps another connection of the same user
        await self.manager.handle_request(delete, Replay(b"", _no_more), _ignore)


def _from_start(scope: Scope, body: bytes, receive: Receive) -> Receive:
    """Return the request from its start."""
    return Replay(body, receive) if scope["method"] == "POST" else receive


def _require_room(sessions: _Held) -> None:
    """Raise Refused if all of the sessions that a key may have are in use."""
    if len(sessions) >= SESSIONS_PER_KEY and all(s.requests for s in sessions.values()):
        raise Refused(503, "Too many open sessions of this key: end one of them first.")


def _ids(body: bytes) -> set[str]:
    """Return the id of a request; nothing for other messages and methods."""
    message = json.loads(body) if body else {}
    return {str(message["id"])} if message.keys() >= {"method", "id"} else set()


def _not_found() -> Refused:
    """Return the response to an unknown session; clients of the protocol then initialize again."""
    return Refused(404, "Session not found: send initialize again, without Mcp-Session-Id.")


def _digest(name: str) -> bytes:
    return sha256(name.encode()).digest()


def _opened(message: Message) -> str | None:
    """Return the SDK's id of the session that this response opens."""
    if message["type"] != "http.response.start" or message["status"] >= 400:
        return None
    return Headers(raw=message["headers"]).get(_SESSION)


def _named(message: Message, name: str) -> Message:
    """Return the message of a response with the client's id of the session, not the SDK's.

    Without a session, it has none: the SDK names one in errors, too, that does not exist.
    """
    if message["type"] != "http.response.start":
        return message
    headers = [
        (key, name.encode() if key.lower() == _SESSION.encode() else value)
        for key, value in message["headers"]
        if name or key.lower() != _SESSION.encode()
    ]
    return {**message, "headers": headers}


def _within(scope: Scope, inner: str) -> Scope:
    """Return the request with the SDK's id of its session."""
    others = [header for header in scope["headers"] if header[0] != _SESSION.encode()]
    return {**scope, "headers": [*others, (_SESSION.encode(), inner.encode())]}


def _posted(scope: Scope, method: str, params: Params, inner: str = "") -> tuple[Scope, Receive]:
    """Return a message of the same client: a request, or a notification within a session."""
    message = {"jsonrpc": "2.0", "method": method, "params": params}
    body = json.dumps(message if inner else {**message, "id": 0}).encode()
    headers = [header for header in scope["headers"] if header[0] not in _OWN_HEADERS]
    headers += [*_JSON, (b"content-length", str(len(body)).encode())]
    posted = {**scope, "method": "POST", "headers": headers}
    return (_within(posted, inner) if inner else posted), Replay(body, _no_more)


async def _no_more() -> Message:
    """Wait as for a client that sends nothing after its request."""
    await anyio.sleep_forever()
    return {"type": "http.disconnect"}


async def _ignore(_message: Message) -> None:
    pass
