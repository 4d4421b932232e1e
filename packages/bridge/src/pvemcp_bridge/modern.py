"""The era without sessions, 2026-07-28: every message says all that the server needs."""

import logging

from pvemcp_bridge import retry
from pvemcp_bridge.annotations import Tools
from pvemcp_bridge.errors import Refused
from pvemcp_bridge.exchange import Deliver, Exchange, Question
from pvemcp_bridge.headers import mirrored
from pvemcp_bridge.messages import Message, request

__all__ = ["Modern"]

log = logging.getLogger(__name__)

_HEADER_MISMATCH = -32020


class Modern:
    """Carries messages of the era without sessions."""

    def __init__(self, exchange: Exchange, tools: Tools) -> None:
        self._exchange = exchange
        self._tools = tools

    def question(self, message: Message, deliver: Deliver) -> Question:
        """A request with the headers that repeat it."""
        arguments = self._tools.headers(
            message.params.get("name") if message.method == "tools/call" else None
        )
        opening = message.method in ("server/discover", "subscriptions/listen")
        return Question(
            message,
            mirrored(message, message.version or "", arguments),
            deliver,
            retry.OPENING_PATIENCE if opening else retry.PATIENCE,
        )

    async def request(self, message: Message, deliver: Deliver) -> Message:
        """The server's reply; once more when it expected headers of a list we had not seen."""
        try:
            return (await self._exchange.ask(self.question(message, deliver))).message
        except Refused as refused:
            expected = refused.reply and refused.reply.error_code == _HEADER_MISMATCH
            if not expected or message.method != "tools/call":
                raise
        log.info("The server expects other headers; reading its list of tools.")
        await self._learn(message)
        return (await self._exchange.ask(self.question(message, deliver))).message

    async def tell(self, message: Message) -> None:
        """Passes a notification on."""
        await self._exchange.tell(message, mirrored(message, message.version or "", {}))

    async def _learn(self, message: Message) -> None:
        """Reads the list of tools to its end, as the client that made this call would."""
        cursor: object = None
        while True:
            params = {"_meta": message.params["_meta"]} | ({"cursor": cursor} if cursor else {})
            listing = request("pvemcp-bridge-tools", "tools/list", params)
            reply = await self._exchange.ask(self.question(listing, _ignore))
            self._tools.learn(reply.message.result.get("tools"))
            cursor = reply.message.result.get("nextCursor")
            if not cursor:
                return


async def _ignore(message: Message) -> None:
    log.debug("%s came with a list the bridge asked for itself.", message.method)
