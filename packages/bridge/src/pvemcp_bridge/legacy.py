"""The eras with a handshake, 2025-03-26 to 2025-11-25: the session, its renewal and its stream."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from pvemcp_bridge import retry
from pvemcp_bridge.errors import BridgeError, NoReply, Refused, SignInRequired
from pvemcp_bridge.exchange import (
    STREAM_READ_TIMEOUT,
    Cursor,
    Deliver,
    Exchange,
    OutgoingRequest,
    Reply,
    read_messages,
)
from pvemcp_bridge.messages import Kind, Message, notification
from pvemcp_bridge.provisional import LIST_CHANGES, empty_reply, provisional_reply

__all__ = ["Legacy"]

log = logging.getLogger(__name__)

_RENEWAL_ID = '"pvemcp-bridge-renewal"'
_FIRST_RECONNECT_SECONDS = 1.0
_MAX_RECONNECT_SECONDS = 30.0
_TRY_LATER = (429, 502, 503, 504)
_CLOSE_SECONDS = 2.0
_MAX_RENEWALS = 3  # for one request, while its server restarts again and again


@dataclass(frozen=True, eq=False)
class Session:
    """Session id and protocol version that the server returned for the handshake.

    A provisional one has neither: the user has not signed in.
    """

    id: str = ""
    version: str = ""
    provisional: bool = False

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of every message in the session."""
        headers = {"mcp-session-id": self.id, "mcp-protocol-version": self.version}
        return {name: value for name, value in headers.items() if value}


class Legacy:
    """Client of the eras with a handshake.

    A server that restarts forgets its sessions and answers 404. The client behind the bridge does
    not notice: the bridge repeats the client's handshake and sends the request in the new session.
    """

    def __init__(self, exchange: Exchange, deliver: Deliver) -> None:
        self._exchange = exchange
        self._deliver = deliver
        self._session = Session()
        self._initialize: Message | None = None
        self._initialized: Message | None = None
        self._renewal_lock = asyncio.Lock()
        self._stream: asyncio.Task[None] | None = None
        self._sign_in_watch: asyncio.Task[None] | None = None

    async def request(self, message: Message, deliver: Deliver) -> Message:
        """Return the server's reply, from a new session if the server has forgotten the old one."""
        if message.method == "initialize":
            return await self._open(message, deliver)
        session = self._session
        if session.provisional:
            if message.method == "ping":
                return empty_reply(message)
            session = await self._renew(session)
        for _ in range(_MAX_RENEWALS):
            try:
                return await self._request(message, session, deliver)
            except Refused as refused:
                if not _is_session_lost(refused, session):
                    raise
            session = await self._renew(session)
        return await self._request(message, session, deliver)

    async def notify(self, message: Message) -> None:
        """Send a notification or a response.

        A response is not sent in a new session: it belongs to a request of the lost one.
        """
        session = self._session
        if session.provisional:  # the renewal sends what belongs to the handshake
            if message.method == "notifications/initialized":
                self._initialized = message
            return
        try:
            await self._exchange.notify(message, session.headers)
        except Refused as refused:
            if not _is_session_lost(refused, session) or message.kind is Kind.RESPONSE:
                raise
            await self._exchange.notify(message, (await self._renew(session)).headers)
        if message.method == "notifications/initialized":
            self._initialized = message
            self._start_stream()

    async def close(self) -> None:
        """End the stream and the session."""
        self._stop_stream()
        if self._sign_in_watch:
            self._sign_in_watch.cancel()
        session, self._session = self._session, Session()
        if session.id:
            await self._delete(session)

    async def _request(self, message: Message, session: Session, deliver: Deliver) -> Message:
        request = OutgoingRequest(message, session.headers, deliver, resumable=True)
        return (await self._exchange.request(request)).message

    async def _open(self, message: Message, deliver: Deliver) -> Message:
        """Open the session for the client's handshake; close the one of an earlier handshake."""
        self._stop_stream()
        former, self._session = self._session, Session()
        try:
            reply = await self._exchange.request(
                OutgoingRequest(message, {}, deliver, retry.OPENING_RETRY_SECONDS, resumable=True)
            )
        except SignInRequired as required:
            return self._open_provisionally(message, required)
        if "result" in reply.message.body:
            self._initialize, self._session = message, _session(reply)
            self._initialized = None
        if former.id:
            await self._delete(former)
        return reply.message

    def _open_provisionally(self, message: Message, required: SignInRequired) -> Message:
        """Answer a handshake in place of the server, which needs the user's sign-in first.

        A client ends a bridge that answers the handshake with an error, and with it the sign-in.
        """
        if not required.signed_in:
            raise required
        self._initialize, self._initialized = message, None
        self._session = Session(provisional=True)
        self._sign_in_watch = asyncio.get_running_loop().create_task(
            self._open_after(required.signed_in, self._session)
        )
        log.warning("initialize: %s", required)
        return provisional_reply(message, required)

    async def _open_after(self, signed_in: asyncio.Task[None], session: Session) -> None:
        """Open the real session as soon as the user has signed in."""
        await asyncio.wait({signed_in})
        await self._renew_for_stream(session)

    async def _renew(self, lost: Session) -> Session:
        """Return the session that replaces a lost one; open it if no other request has done so.

        All requests that fail in the same session arrive here. The lock lets one of them repeat
        the handshake; the others find that `self._session` is no longer the lost one and use it.
        """
        async with self._renewal_lock:
            if self._session is lost and self._initialize:
                if not lost.provisional:
                    log.warning("The server has forgotten the session; opening a new one.")
                self._session = await self._repeat_handshake(self._initialize)
                if lost.provisional:
                    await self._announce()
            return self._session

    async def _announce(self) -> None:
        """Begin the stream of a session that follows a provisional one; its lists are new."""
        if self._initialized:
            self._start_stream()
        for method in LIST_CHANGES:
            await self._deliver(notification(method, "{}"))

    async def _repeat_handshake(self, initialize: Message) -> Session:
        request = OutgoingRequest(
            initialize.with_id(_RENEWAL_ID), {}, self._deliver, resumable=True
        )
        reply = await self._exchange.request(request)
        if "result" not in reply.message.body:
            raise NoReply("The server did not open a new session.")
        session = _session(reply)
        if self._initialized:
            await self._exchange.notify(self._initialized, session.headers)
        return session

    async def _delete(self, session: Session) -> None:
        try:
            async with self._exchange.transport.send(
                "DELETE", session.headers, read_timeout=_CLOSE_SECONDS
            ) as response:
                log.debug("The session is closed (HTTP %d).", response.status)
        except BridgeError as error:
            log.debug("The session could not be closed: %s", error.fact)

    def _start_stream(self) -> None:
        self._stop_stream()
        self._stream = asyncio.get_running_loop().create_task(self._run_stream())

    def _stop_stream(self) -> None:
        if self._stream:
            self._stream.cancel()
            self._stream = None

    async def _run_stream(self) -> None:
        """Read the session's own stream and reconnect, until the server says that it has none.

        Each reconnection resumes after the last event, also of a stream that broke. Only a new
        session, or a server that refuses the position, begins without one. No error ends the task,
        because nothing would start it again.
        """
        pause, session, cursor = _FIRST_RECONNECT_SECONDS, self._session, Cursor()
        while True:
            if session is not self._session:
                session, cursor = self._session, Cursor()
            before = cursor.id
            try:
                await self._read_stream(session, cursor)
                pause = _FIRST_RECONNECT_SECONDS
            except Refused as refused:
                if _is_session_lost(refused, session):
                    await self._renew_for_stream(session)
                elif refused.status in _TRY_LATER:
                    log.debug("The stream of the session is not available now: %s", refused.fact)
                elif cursor.id:
                    cursor = Cursor()
                else:
                    log.debug("The server has no stream for sessions (HTTP %s).", refused.status)
                    return
            except BridgeError as error:
                log.debug("The stream of the session broke: %s", error.fact)
            if cursor.id != before:
                pause = _FIRST_RECONNECT_SECONDS
            await asyncio.sleep(pause)
            pause = min(2 * pause, _MAX_RECONNECT_SECONDS)

    async def _renew_for_stream(self, session: Session) -> None:
        """Renew the session; log a failure, because the stream tries again later."""
        try:
            await self._renew(session)
        except BridgeError as error:
            log.warning("The session could not be renewed: %s", error.fact)

    async def _read_stream(self, session: Session, cursor: Cursor) -> None:
        """Deliver the messages of the stream from the cursor on, and move it with each event."""
        headers = {"accept": "text/event-stream", **session.headers}
        if cursor.id:
            headers["last-event-id"] = cursor.id
        async with self._exchange.transport.send(
            "GET", headers, read_timeout=STREAM_READ_TIMEOUT
        ) as response:
            if response.status >= 400 or not response.is_stream:
                raise Refused(f"No stream (HTTP {response.status}).", status=response.status)
            async for event in response.events():
                for message in read_messages(event.data.decode("utf-8", "replace")):
                    if message.kind is not Kind.RESPONSE:  # replies belong on their own stream
                        await self._deliver(message)
                cursor.update(event)


def _session(reply: Reply) -> Session:
    version = reply.message.result.get("protocolVersion")
    return Session(
        reply.headers.get("mcp-session-id", ""), version if isinstance(version, str) else ""
    )


def _is_session_lost(refused: Refused, session: Session) -> bool:
    return refused.status == 404 and bool(session.id)
