"""One request to the server and the way back of everything it says about it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

from pvemcp_bridge import jsontext, retry
from pvemcp_bridge.annotations import Tools
from pvemcp_bridge.errors import Lost, NoReply, Refused, Unreachable, refusal
from pvemcp_bridge.messages import Kind, Malformed, Message, parse_messages
from pvemcp_bridge.sse import Event
from pvemcp_bridge.transport import Answer, Transport

__all__ = ["STREAM_SILENCE", "Deliver", "Exchange", "Question", "Reply", "messages_of"]

log = logging.getLogger(__name__)

Deliver = Callable[[Message], Awaitable[None]]

_POST = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
_GET = {"accept": "text/event-stream"}
# servers keep their streams alive every few seconds; a computer that slept hears nothing of an
# end of the connection
STREAM_SILENCE = 300.0
_EMPTY_RESUMPTIONS = 5
_EXCERPT = 200


@dataclass
class Question:
    """A request, what goes along with it, and where its accompanying messages go."""

    message: Message
    headers: Mapping[str, str]
    deliver: Deliver
    patience: retry.Patience = retry.PATIENCE
    resumable: bool = False
    endless: bool = False
    delivered: bool = False

    async def hand_on(self, message: Message) -> None:
        """Gives the client a message that came before the reply."""
        self.delivered = True
        await self.deliver(message)


@dataclass(frozen=True)
class Reply:
    """The server's JSON-RPC reply and the headers it came with."""

    message: Message
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Cursor:
    """How far a stream has been read."""

    id: str = ""
    pause: float = 1.0

    def follow(self, event: Event) -> None:
        """Notes where to go on after this event."""
        self.id = event.id or self.id
        self.pause = self.pause if event.retry is None else event.retry


class Exchange:
    """Asks the server, again where that does no harm, and reads its answers to the end."""

    def __init__(
        self, transport: Transport, tools: Tools, silence: float | None, mask: Callable[[str], str]
    ) -> None:
        self.transport = transport
        self._tools = tools
        self._silence = silence
        self._mask = mask

    async def ask(self, question: Question) -> Reply:
        """The reply to a request; raises a BridgeError when there is none."""
        return await retry.patiently(
            question.message.method or "A request",
            lambda: self._once(question),
            question.patience,
            lambda: not question.delivered and retry.repeatable(question.message, self._tools),
        )

    async def tell(self, message: Message, headers: Mapping[str, str]) -> None:
        """Sends a notification or a response, which the server only acknowledges."""
        await retry.patiently(
            message.method or "A response",
            lambda: self._tell(message, headers),
            retry.PATIENCE,
            harmless=lambda: False,
        )

    async def _tell(self, message: Message, headers: Mapping[str, str]) -> None:
        async with self.transport.send(
            "POST", {**_POST, **headers}, message.text, silence=self._silence
        ) as answer:
            if answer.status >= 400:
                raise self._refused(answer, await answer.text(), None)

    async def _once(self, question: Question) -> Reply:
        cursor = Cursor()
        message = question.message
        silence = STREAM_SILENCE if question.endless else self._silence
        async with self.transport.send(
            "POST", {**_POST, **question.headers}, message.text, silence=silence
        ) as answer:
            if not (answer.is_stream and answer.status < 300):
                return await self._whole(answer, message)
            reply = await self._stream(answer, question, cursor)
            headers = answer.headers
        if reply is None:
            reply = await self._resumed(question, cursor)
        return Reply(reply, headers)

    async def _whole(self, answer: Answer, request: Message) -> Reply:
        text = await answer.text()
        found = (reply_to(request, message) for message in messages_of(text))
        replies = [reply for reply in found if reply]
        if answer.status >= 400:
            raise self._refused(answer, text, replies[0] if replies else None)
        if not replies:
            said = self._excerpt(text)
            raise NoReply(
                f"The server's reply is no JSON-RPC (HTTP {answer.status}){said and ': ' + said}.",
                status=answer.status,
            )
        return Reply(replies[0], answer.headers)

    async def _stream(self, answer: Answer, question: Question, cursor: Cursor) -> Message | None:
        """Hands on what the stream brings; the reply, or None when it ends early but can go on."""
        try:
            if reply := await self._heard(answer, question, cursor):
                return reply
        except Lost:
            if not (question.resumable and cursor.id):
                raise
        if not (question.resumable and cursor.id):
            raise Lost("The server ended the stream without a reply.", status=answer.status)
        return None

    async def _heard(self, answer: Answer, question: Question, cursor: Cursor) -> Message | None:
        """The reply on a stream, all that came before it handed on."""
        async with aclosing(answer.events()) as events:
            async for event in events:
                cursor.follow(event)
                for message in messages_of(event.data.decode("utf-8", "replace")):
                    if reply := reply_to(question.message, message):
                        return reply
                    if message.kind is not Kind.RESPONSE:
                        await question.hand_on(message)
        return None

    async def _resumed(self, question: Question, cursor: Cursor) -> Message:
        """Takes up a stream that ended early, from the last event that came."""
        empty = 0
        while empty < _EMPTY_RESUMPTIONS:
            before = cursor.id
            await asyncio.sleep(cursor.pause)
            if reply := await self._resume(question, cursor):
                return reply
            empty = empty + 1 if cursor.id == before else 0
        raise Lost("The stream with the reply ended and could not be taken up again.")

    async def _resume(self, question: Question, cursor: Cursor) -> Message | None:
        headers = {**_GET, **question.headers, "last-event-id": cursor.id}
        try:
            async with self.transport.send("GET", headers, silence=self._silence) as answer:
                if answer.is_stream and answer.status < 300:
                    return await self._stream(answer, question, cursor)
                # never a Refused: the request was sent, and its session may be gone with its result
                raise Lost("The server no longer has the reply.", status=answer.status)
        except Unreachable:
            return None

    def _refused(self, answer: Answer, text: str, reply: Message | None) -> Refused:
        return refusal(
            answer.status,
            reply=reply,
            retry_after=answer.retry_after,
            excerpt=self._excerpt(text),
        )

    def _excerpt(self, text: str) -> str:
        """The beginning of what the server says, unless it is a page."""
        said = " ".join(self._mask(text[: 4 * _EXCERPT]).split())
        return "" if said.startswith("<") else said[:_EXCERPT]


def messages_of(text: str) -> Iterator[Message]:
    """The JSON-RPC messages in a piece of an answer, each on one line."""
    if not text.strip():
        return
    for message in parse_messages(jsontext.one_line(text)):
        if isinstance(message, Malformed):
            log.warning("The server sent something that is no JSON-RPC message: %s", message)
        else:
            yield message


def reply_to(request: Message, message: Message) -> Message | None:
    """The message as the reply to this request, if it is that."""
    if message.kind is not Kind.RESPONSE:
        return None
    if message.key == request.key:
        return message
    # the server could not read our id; there is only this request
    if message.body.get("id") is None:
        return message.with_id(request.raw_id)
    log.warning("The server sent a reply to another request than this one.")
    return None
