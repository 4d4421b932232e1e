"""Subscriptions that outlive the connection they were made on."""

import asyncio
import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from pvemcp_bridge.errors import BridgeError
from pvemcp_bridge.exchange import Deliver, Exchange
from pvemcp_bridge.messages import Message, notification
from pvemcp_bridge.modern import Modern

__all__ = ["METHOD", "Subscription"]

log = logging.getLogger(__name__)

METHOD = "subscriptions/listen"
_ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
_SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
_LISTS = {
    "toolsListChanged": "notifications/tools/list_changed",
    "promptsListChanged": "notifications/prompts/list_changed",
    "resourcesListChanged": "notifications/resources/list_changed",
}
_PAUSE = 1.0


class Subscription:
    """One `subscriptions/listen` request, renewed when its stream is lost."""

    def __init__(
        self, message: Message, modern: Modern, exchange: Exchange, deliver: Deliver
    ) -> None:
        self._message = message
        self._modern = modern
        self._exchange = exchange
        self._deliver = deliver
        self._granted: Mapping[str, Any] | None = None

    async def last_word(self) -> str:
        """Hands on what the stream brings; the end of the subscription as the client is told it."""
        while True:
            question = self._modern.question(self._message, self._hand_on)
            question.endless = True
            try:
                return (await self._exchange.ask(question)).message.text
            except BridgeError as error:
                if self._granted is None:
                    raise
                if not question.delivered:  # it could not be renewed
                    log.warning("The subscription is over: %s", error.fact)
                    return notification(
                        "notifications/cancelled",
                        f'{{"requestId":{self._message.raw_id},"reason":{json.dumps(error.fact)}}}',
                    ).text
                log.info("The stream of a subscription broke; renewing it.")
            await asyncio.sleep(_PAUSE)

    async def _hand_on(self, message: Message) -> None:
        if message.method != _ACKNOWLEDGED:
            await self._deliver(message)
        elif self._granted is None:
            self._granted = _mapping(message.params.get("notifications"))
            await self._deliver(message)
        else:
            for missed in self._missed():
                await self._deliver(missed)

    def _missed(self) -> Iterator[Message]:
        """What may have changed while nobody listened, said so that the client looks again."""
        meta = f'"_meta":{{{json.dumps(_SUBSCRIPTION)}:{self._message.raw_id}}}'
        granted = self._granted or {}
        for kind, method in _LISTS.items():
            if granted.get(kind):
                yield notification(method, f"{{{meta}}}")
        for uri in granted.get("resourceSubscriptions") or ():
            yield notification(
                "notifications/resources/updated", f'{{"uri":{json.dumps(uri)},{meta}}}'
            )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
