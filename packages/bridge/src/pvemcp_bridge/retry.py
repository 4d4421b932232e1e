"""When a request is sent again, and how long that goes on.

What was never sent may always be sent again. Once a request was sent, only those are repeated that
do no harm twice. A server that says 429 has not handled the request.
"""

from collections.abc import Callable
from dataclasses import dataclass

import tenacity

from pvemcp_bridge.annotations import Tools
from pvemcp_bridge.errors import (
    Busy,
    CertificateRefused,
    Lost,
    ProxyRefused,
    Refused,
    Silent,
    Unavailable,
    Unreachable,
)
from pvemcp_bridge.messages import Kind, Message

__all__ = ["OPENING_PATIENCE", "PATIENCE", "Patience", "attempts", "repeatable"]

_HARMLESS = frozenset({
    "completion/complete", "initialize", "logging/setLevel", "ping", "prompts/get", "prompts/list",
    "resources/list", "resources/read", "resources/subscribe", "resources/templates/list",
    "resources/unsubscribe", "server/discover", "subscriptions/listen", "tasks/get", "tasks/list",
    "tasks/result", "tools/list",
})  # fmt: skip
_REPETITIONS = 4


@dataclass(frozen=True)
class Patience:
    """How many seconds a server may be away or busy before the client is told."""

    seconds: float


OPENING_PATIENCE = Patience(45.0)
PATIENCE = Patience(20.0)


def repeatable(message: Message, tools: Tools) -> bool:
    """Whether carrying out this message twice does no harm."""
    if message.method == "tools/call":
        return tools.repeatable(message.params.get("name"))
    return message.method in _HARMLESS or message.kind is Kind.NOTIFICATION


def attempts(patience: Patience, harmless: Callable[[], bool]) -> tenacity.AsyncRetrying:
    """The attempts at one message; the last error is raised as it is."""

    too_late = tenacity.stop_before_delay(patience.seconds)

    def again(error: BaseException) -> bool:
        if isinstance(error, CertificateRefused | ProxyRefused | Silent):
            return False
        if isinstance(error, Unreachable | Busy):
            return True
        return isinstance(error, Lost | Unavailable) and harmless()

    return tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(again),
        wait=_pause,
        stop=lambda state: too_late(state) or _enough(state),
        reraise=True,
    )


_backoff = tenacity.wait_exponential_jitter(initial=0.1, max=1.0, jitter=0.1)


def _pause(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, Refused) else None
    return asked if asked is not None else _backoff(state)


def _enough(state: tenacity.RetryCallState) -> bool:
    """An unreachable server is awaited as long as patience lasts; one that fails, a few times."""
    error = state.outcome.exception() if state.outcome else None
    return not isinstance(error, Unreachable) and state.attempt_number >= _REPETITIONS
