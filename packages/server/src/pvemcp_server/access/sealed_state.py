"""Sealed states: what a browser keeps between two steps, readable by this server only."""

import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pvemcp_server.errors import AccessDenied, ConfigError
from pvemcp_server.store import Store
from pvemcp_server.store.columns import CLOCK_SKEW, utc_now

LONGEST: Final = 4096


@dataclass(frozen=True, slots=True)
class SealedState:
    """An opened state; `nonce` is random, and also serves as the challenge of a passkey."""

    values: dict[str, Any] = field(repr=False)
    nonce: str = field(repr=False)
    expires: datetime


class SealedStates:
    """Seals states under the vault's keys; each has one purpose, an end and a single use."""

    def __init__(self, store: Store, clock: Callable[[], datetime] = utc_now) -> None:
        self._store = store
        self._clock = clock

    def seal(self, purpose: str, life: timedelta, *, bound: str = "", **values: Any) -> str:
        """Return a text that only `open` with the same purpose and `bound` reads."""
        now = self._clock()
        state = {
            "values": values,
            "nonce": secrets.token_urlsafe(32),
            "begun": now.timestamp(),
            "expires": (now + life).timestamp(),
        }
        sealed = self._store.vault.encrypt(json.dumps(state), *_place(purpose), bound=bound)
        return urlsafe_b64encode(sealed).decode()

    async def open(self, purpose: str, sealed: str, *, bound: str = "") -> SealedState:
        """Return the state; raise AccessDenied if it is forged, expired, used or of another use.

        A used one is refused here already, so that a recovery code sent with it is not used up.
        """
        if not sealed or len(sealed) > LONGEST:
            raise AccessDenied("this browser has no such step in progress")
        try:
            encrypted = urlsafe_b64decode(sealed.encode())
            text = await self._store.vault.decrypt(encrypted, *_place(purpose), bound=bound)
        except (ConfigError, ValueError):
            raise AccessDenied("this browser has no such step in progress") from None
        state = json.loads(text)
        begun, expires = (datetime.fromtimestamp(state[at], UTC) for at in ("begun", "expires"))
        now = self._clock()
        if expires <= now or begun > now + CLOCK_SKEW:  # the latter: the clock was set back since
            raise AccessDenied("the step took too long")
        if await self._store.spent_tokens.is_spent(state["nonce"]):
            raise AccessDenied("this step was done before")
        return SealedState(state["values"], state["nonce"], expires)

    async def spend(self, state: SealedState) -> None:
        """Use the state up; raise AccessDenied if it was before, in any process."""
        if not await self._store.spent_tokens.spend(state.nonce, self._clock(), state.expires):
            raise AccessDenied("this step was done before")


def _place(purpose: str) -> tuple[str, str, str]:
    return ("sealed states", purpose, "state")
