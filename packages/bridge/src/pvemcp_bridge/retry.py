"""When a request is sent again, and how long that goes on.

What was never sent may always be sent again. Once a request was sent, only those are repeated that
do no harm twice. A server that says 429 has not handled the request.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import tenacity

from pvemcp_bridge.annotations import Tools
from pvemcp_bridge.errors import (
    DOCTOR,
    BridgeError,
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

__all__ = ["OPENING_PATIENCE", "PATIENCE", "Patience", "patiently", "repeatable"]

log = logging.getLogger(__name__)

Outcome = TypeVar("Outcome")

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


async def patiently(
    what: str,
    work: Callable[[], Awaitable[Outcome]],
    patience: Patience,
    harmless: Callable[[], bool],
) -> Outcome:
    """What comes of the work, done again where that helps; the last error is raised as it is."""
    began = time.monotonic()
    try:
        return await work()  # nearly always all there is to it
    except BridgeError as error:
        failed = error
    left = patience.seconds - (time.monotonic() - began)
    if left > 0 and _worth_it(failed, harmless):
        # the log is all that a person sees until the client is told
        log.warning("%s: %s Trying again for up to %.0f s. %s", what, failed.fact, left, DOCTOR)
    async for attempt in _attempts(left, harmless):
        with attempt:
            if attempt.retry_state.attempt_number > 1:
                return await work()
            raise failed
    raise failed  # for type checkers: the last attempt has raised


def _attempts(seconds: float, harmless: Callable[[], bool]) -> tenacity.AsyncRetrying:
    too_late = tenacity.stop_before_delay(seconds)
    return tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(lambda error: _worth_it(error, harmless)),
        wait=_pause,
        stop=lambda state: too_late(state) or _enough(state),
        reraise=True,
    )


def _worth_it(error: BaseException, harmless: Callable[[], bool]) -> bool:
    if isinstance(error, CertificateRefused | ProxyRefused | Silent):
        return False
    if isinstance(error, Unreachable | Busy):
        return True
    return isinstance(error, Lost | Unavailable) and harmless()


_backoff = tenacity.wait_exponential(multiplier=0.1, max=0.9) + tenacity.wait_random(0, 0.1)


def _pause(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, Refused) else None
    return asked if asked is not None else _backoff(state)


def _enough(state: tenacity.RetryCallState) -> bool:
    """An unreachable server is awaited as long as patience lasts; one that fails, a few times."""
    error = state.outcome.exception() if state.outcome else None
    return not isinstance(error, Unreachable) and state.attempt_number >= _REPETITIONS
