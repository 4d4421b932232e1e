"""The eras with a handshake, 2025-03-26 to 2025-11-25: a session, its stream, its renewal."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from pvemcp_bridge import retry
from pvemcp_bridge.errors import BridgeError, NoReply, Refused
from pvemcp_bridge.exchange import (
    STREAM_SILENCE,
    Deliver,
    Exchange,
    Question,
    Reply,
    messages_of,
)
from pvemcp_bridge.messages import Kind, Message
from pvemcp_bridge.transport import Answer

__all__ = ["Legacy"]

log = logging.getLogger(__name__)

_RENEWAL_ID = '"pvemcp-bridge-renewal"'
_LONGEST_PAUSE = 30.0
_FIRST_PAUSE = 1.0
_MOST_RENEWALS = 3  # for one request, while its server restarts again and again


@dataclass(frozen=True, eq=False)
class Session:
    """What the server gave at the handshake."""

    id: str = ""
    version: str = ""

    @property
    def headers(self) -> Mapping[str, str]:
        """What every message of the session carries."""
        names = {"mcp-session-id": self.id, "mcp-protocol-version": self.version}
        return {name: value for name, value in names.items() if value}


class Legacy:
    """Carries messages of the handshake eras."""

    def __init__(self, exchange: Exchange, deliver: Deliver) -> None:
        self._exchange = exchange
        self._deliver = deliver
        self._session = Session()
        self._initialize: Message | None = None
        self._initialized: Message | None = None
        self._renewing = asyncio.Lock()
        self._stream: asyncio.Task[None] | None = None

    async def request(self, message: Message, deliver: Deliver) -> Message:
        """The server's reply, over a new session when it has forgotten ours."""
        if message.method == "initialize":
            return await self._open(message, deliver)
        session = self._session
        for _ in range(_MOST_RENEWALS):
            try:
                return (await self._ask(message, session, deliver)).message
            except Refused as refused:
                if not _forgotten(refused, session):
                    raise
            session = await self._renewed(session)
        return (await self._ask(message, session, deliver)).message

    async def tell(self, message: Message) -> None:
        """Passes a notification or response on."""
        session = self._session
        try:
            await self._exchange.tell(message, session.headers)
        except Refused as refused:
            if not _forgotten(refused, session) or message.kind is Kind.RESPONSE:
                raise  # a response belongs to a request of the session that is gone
            await self._exchange.tell(message, (await self._renewed(session)).headers)
        if message.method == "notifications/initialized":
            self._initialized = message
            self._start_stream()

    async def close(self) -> None:
        """Ends the stream and the session."""
        self._stop_stream()
        session, self._session = self._session, Session()
        if session.id:
            await self._delete(session)

    async def _ask(self, message: Message, session: Session, deliver: Deliver) -> Reply:
        return await self._exchange.ask(Question(message, session.headers, deliver, resumable=True))

    async def _open(self, message: Message, deliver: Deliver) -> Message:
        self._stop_stream()
        former, self._session = self._session, Session()
        reply = await self._exchange.ask(
            Question(message, {}, deliver, retry.OPENING_PATIENCE, resumable=True)
        )
        if "result" in reply.message.body:
            self._initialize, self._session = message, _session(reply)
            self._initialized = None
        if former.id:
            await self._delete(former)
        return reply.message

    async def _renewed(self, seen: Session) -> Session:
        """A session in place of the one the server forgot: one for all who ask at the same time."""
        async with self._renewing:
            if self._session is seen and self._initialize:
                log.warning("The server has forgotten the session; opening it again.")
                self._session = await self._opened_again(self._initialize)
            return self._session

    async def _opened_again(self, initialize: Message) -> Session:
        own = initialize.with_id(_RENEWAL_ID)
        reply = await self._exchange.ask(Question(own, {}, self._deliver, resumable=True))
        if "result" not in reply.message.body:
            raise NoReply("The server did not open the session again.")
        session = _session(reply)
        if self._initialized:
            await self._exchange.tell(self._initialized, session.headers)
        return session

    async def _delete(self, session: Session) -> None:
        try:
            async with self._exchange.transport.send(
                "DELETE", session.headers, silence=2.0
            ) as answer:
                log.debug("The session is closed (HTTP %d).", answer.status)
        except BridgeError as error:
            log.debug("The session could not be closed: %s", error.fact)

    def _start_stream(self) -> None:
        self._stop_stream()
        self._stream = asyncio.get_running_loop().create_task(self._hear())

    def _stop_stream(self) -> None:
        if self._stream:
            self._stream.cancel()
            self._stream = None

    async def _hear(self) -> None:
        """Listens for what the server says unasked, until it says that it never does."""
        pause, cursor = _FIRST_PAUSE, ""
        while True:
            session = self._session
            try:
                cursor = await self._listen(session, cursor)
                pause = _FIRST_PAUSE
            except Refused as refused:
                if not await self._may_listen_again(refused, session):
                    return
                cursor = ""
            except BridgeError as error:
                log.debug("The stream of the session broke: %s", error.fact)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _listen(self, session: Session, cursor: str) -> str:
        headers = {"accept": "text/event-stream", **session.headers}
        if cursor:
            headers["last-event-id"] = cursor
        async with self._exchange.transport.send("GET", headers, silence=STREAM_SILENCE) as answer:
            _check_stream(answer)
            async for event in answer.events():
                cursor = event.id or cursor
                for message in messages_of(event.data.decode("utf-8", "replace")):
                    if message.kind is not Kind.RESPONSE:  # replies come where they were asked for
                        await self._deliver(message)
        return cursor

    async def _may_listen_again(self, refused: Refused, session: Session) -> bool:
        if refused.status in (429, 502, 503, 504):
            return True
        if not _forgotten(refused, session):
            log.debug("The server has no stream for the session (HTTP %s).", refused.status)
            return False
        await self._renewed(session)
        return True


def _session(reply: Reply) -> Session:
    version = reply.message.result.get("protocolVersion")
    known = version if isinstance(version, str) else ""
    return Session(reply.headers.get("mcp-session-id", ""), known)


def _forgotten(refused: Refused, session: Session) -> bool:
    return refused.status == 404 and bool(session.id)


def _check_stream(answer: Answer) -> None:
    if answer.status >= 400 or not answer.is_stream:
        raise Refused(f"No stream (HTTP {answer.status}).", status=answer.status)
