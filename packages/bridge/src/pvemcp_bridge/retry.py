"""Retries: which failed requests are sent again, and for how long.

A request that was never sent can always be sent. A request that was sent and got no reply is sent
again only when it is idempotent. HTTP 429 means that the server has not processed the request.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import tenacity

from pvemcp_bridge.annotations import ToolAnnotations
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

__all__ = ["OPENING_RETRY_SECONDS", "RETRY_SECONDS", "is_idempotent", "with_retries"]

log = logging.getLogger(__name__)

Outcome = TypeVar("Outcome")

# Seconds from the first attempt until the client gets an error; a server may still be starting
# when a session opens
OPENING_RETRY_SECONDS = 45.0
RETRY_SECONDS = 20.0

_IDEMPOTENT_METHODS = frozenset({
    "completion/complete", "initialize", "logging/setLevel", "ping", "prompts/get", "prompts/list",
    "resources/list", "resources/read", "resources/subscribe", "resources/templates/list",
    "resources/unsubscribe", "server/discover", "subscriptions/listen", "tasks/get", "tasks/list",
    "tasks/result", "tools/list",
})  # fmt: skip
_MAX_ATTEMPTS = 4


def is_idempotent(message: Message, tools: ToolAnnotations) -> bool:
    """Return whether a server may process this message twice without harm."""
    if message.method == "tools/call":
        return tools.is_idempotent(message.params.get("name"))
    return message.method in _IDEMPOTENT_METHODS or message.kind is Kind.NOTIFICATION


async def with_retries(
    name: str,
    send: Callable[[], Awaitable[Outcome]],
    seconds: float,
    idempotent: Callable[[], bool],
) -> Outcome:
    """Call `send` until it succeeds, `seconds` have passed or a retry cannot help.

    Raise the last error unchanged. `name` is for the log; `idempotent` is evaluated after each
    failure, because a request whose first messages were delivered must not be sent again.
    An unreachable server is retried until the time is over; one that fails gets four attempts.
    """
    deadline = time.monotonic() + seconds
    is_too_late = tenacity.stop_before_delay(seconds)
    attempts = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(lambda error: _is_retryable(error, idempotent)),
        wait=_wait,
        stop=lambda state: is_too_late(state) or _has_used_its_attempts(state),
        before_sleep=lambda state: _log_first_failure(name, state, deadline),
        reraise=True,
    )
    async for attempt in attempts:
        with attempt:
            return await send()
    raise AssertionError("unreachable: the last attempt returns or raises")


def _is_retryable(error: BaseException, idempotent: Callable[[], bool]) -> bool:
    if isinstance(error, CertificateRefused | ProxyRefused | Silent):
        return False
    if isinstance(error, Unreachable | Busy):
        return True
    return isinstance(error, Lost | Unavailable) and idempotent()


def _has_used_its_attempts(state: tenacity.RetryCallState) -> bool:
    return not isinstance(_error(state), Unreachable) and state.attempt_number >= _MAX_ATTEMPTS


_backoff = tenacity.wait_exponential(multiplier=0.1, max=0.9) + tenacity.wait_random(0, 0.1)


def _wait(state: tenacity.RetryCallState) -> float:
    """Return the seconds of `Retry-After` if the server sent it, else exponential backoff."""
    error = _error(state)
    retry_after = error.retry_after if isinstance(error, Refused) else None
    return _backoff(state) if retry_after is None else retry_after


def _log_first_failure(name: str, state: tenacity.RetryCallState, deadline: float) -> None:
    """Log at once what is wrong: until the retries end, the log is all that a user can see."""
    error = _error(state)
    if state.attempt_number == 1 and isinstance(error, BridgeError):
        left = deadline - time.monotonic()
        log.warning("%s: %s Trying again for up to %.0f s. %s", name, error.fact, left, DOCTOR)


def _error(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None
