"""Subscriptions that outlive the connection they were made on."""

import asyncio
import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from pvemcp_bridge.errors import BridgeError, SignInRequired
from pvemcp_bridge.exchange import Deliver, Exchange
from pvemcp_bridge.jsontext import as_object
from pvemcp_bridge.messages import Message, notification
from pvemcp_bridge.modern import Modern

__all__ = ["METHOD", "Subscription"]

log = logging.getLogger(__name__)

METHOD = "subscriptions/listen"
_ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
_SUBSCRIPTION_ID = "io.modelcontextprotocol/subscriptionId"
_LISTS = {
    "toolsListChanged": "notifications/tools/list_changed",
    "promptsListChanged": "notifications/prompts/list_changed",
    "resourcesListChanged": "notifications/resources/list_changed",
}
_RECONNECT_SECONDS = 1.0


class Subscription:
    """One `subscriptions/listen` request, renewed when its stream breaks.

    A renewal is invisible to the client: its second acknowledgement is replaced by notifications
    for everything that may have changed without a stream, so that the client fetches it again.
    """

    def __init__(
        self, message: Message, modern: Modern, exchange: Exchange, deliver: Deliver
    ) -> None:
        self._message = message
        self._modern = modern
        self._exchange = exchange
        self._deliver = deliver
        self._granted: Mapping[str, Any] | None = None
        self._began_late = False  # after a sign-in: what the client knows is of before

    async def run(self) -> str:
        """Forward the notifications; return the message that ends the subscription.

        Raise a BridgeError if the server never acknowledged it.
        """
        while True:
            request = self._modern.prepare(self._message, self._forward)
            request.long_lived = True
            try:
                return (await self._exchange.request(request)).message.text
            except SignInRequired as required:
                if not required.signed_in:
                    raise
                self._began_late = True
                await asyncio.wait({required.signed_in})
                continue
            except BridgeError as error:
                if self._granted is None:
                    raise
                if not request.delivered:  # the renewal failed
                    log.warning("The subscription has ended: %s", error.fact)
                    return notification(
                        "notifications/cancelled",
                        f'{{"requestId":{self._message.raw_id},"reason":{json.dumps(error.fact)}}}',
                    ).text
                log.info("The stream of a subscription broke; renewing it.")
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _forward(self, message: Message) -> None:
        if message.method != _ACKNOWLEDGED:
            await self._deliver(message)
            return
        may_have_missed = self._granted is not None or self._began_late
        if self._granted is None:
            self._granted = as_object(message.params.get("notifications"))
            await self._deliver(message)
        if may_have_missed:
            for change in self._possible_changes(self._granted):
                await self._deliver(change)

    def _possible_changes(self, granted: Mapping[str, Any]) -> Iterator[Message]:
        meta = f'"_meta":{{{json.dumps(_SUBSCRIPTION_ID)}:{self._message.raw_id}}}'
        for kind, method in _LISTS.items():
            if granted.get(kind):
                yield notification(method, f"{{{meta}}}")
        for uri in granted.get("resourceSubscriptions") or ():
            yield notification(
                "notifications/resources/updated", f'{{"uri":{json.dumps(uri)},{meta}}}'
            )
