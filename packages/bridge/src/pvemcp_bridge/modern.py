"""The era without sessions, 2026-07-28: every message holds all that the server needs."""

import logging

from pvemcp_bridge import retry
from pvemcp_bridge.annotations import MOST_PAGES, ToolAnnotations
from pvemcp_bridge.errors import Refused, SignInRequired
from pvemcp_bridge.exchange import Deliver, Exchange, OutgoingRequest
from pvemcp_bridge.headers import mirrored_headers
from pvemcp_bridge.messages import Message, request
from pvemcp_bridge.provisional import provisional_reply

__all__ = ["Modern"]

log = logging.getLogger(__name__)

_HEADER_MISMATCH = -32020


class Modern:
    """Client of the era without sessions."""

    def __init__(self, exchange: Exchange, tools: ToolAnnotations) -> None:
        self._exchange = exchange
        self._tools = tools

    def prepare(self, message: Message, deliver: Deliver) -> OutgoingRequest:
        """Return a request with the headers that mirror its body."""
        tool = message.params.get("name") if message.method == "tools/call" else None
        is_opening = message.method in ("server/discover", "subscriptions/listen")
        return OutgoingRequest(
            message,
            mirrored_headers(message, message.version or "", self._tools.headers(tool)),
            deliver,
            retry.OPENING_RETRY_SECONDS if is_opening else retry.RETRY_SECONDS,
        )

    async def request(self, message: Message, deliver: Deliver) -> Message:
        """Return the server's reply.

        If the server rejects the headers of a tool call, fetch the tool list, which says what
        headers the tool needs, and send the call once more.
        """
        try:
            return (await self._exchange.request(self.prepare(message, deliver))).message
        except Refused as refused:
            mismatch = refused.reply and refused.reply.error_code == _HEADER_MISMATCH
            if not mismatch or message.method != "tools/call":
                raise
        except SignInRequired as required:
            if message.method != "server/discover" or not required.signed_in:
                raise
            return provisional_reply(message, required)
        log.info("The server expects other headers; fetching the tool list.")
        await self._fetch_tools(message)
        return (await self._exchange.request(self.prepare(message, deliver))).message

    async def notify(self, message: Message) -> None:
        """Send a notification."""
        await self._exchange.notify(message, mirrored_headers(message, message.version or "", {}))

    async def _fetch_tools(self, message: Message) -> None:
        """Fetch all pages of the tool list with the `_meta` of the client's call."""
        cursor: object = None
        for _ in range(MOST_PAGES):
            params = {"_meta": message.params["_meta"]} | ({"cursor": cursor} if cursor else {})
            listing = request("pvemcp-bridge-tools", "tools/list", params)
            reply = await self._exchange.request(self.prepare(listing, _discard))
            self._tools.record(reply.message.result.get("tools"))
            cursor = reply.message.result.get("nextCursor")
            if not cursor:
                return


async def _discard(message: Message) -> None:
    log.debug("Discarded %s, which preceded a tool list for the bridge.", message.method)
