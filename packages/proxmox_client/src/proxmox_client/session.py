"""How requests prove who we are: a token in a header, or a ticket that is renewed."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from msgspec import field

from proxmox_client.auth import ApiToken, Password
from proxmox_client.errors import Unauthenticated
from proxmox_client.json_decoder import Answer

# a ticket lives two hours; one that is half as old is exchanged for a new one
RENEW_AFTER = 3600.0
EXPIRES_AFTER = 7200.0

SignIn = Callable[[Mapping[str, str]], Awaitable["Ticket"]]


class Ticket(Answer, frozen=True):
    """What a sign-in gives; with `need_tfa` the ticket is only good for the second step."""

    ticket: str = ""
    csrf_token: str = field(name="CSRFPreventionToken", default="")
    username: str = ""
    need_tfa: bool = field(name="NeedTFA", default=False)

    def __repr__(self) -> str:
        return f"Ticket(username={self.username!r})"


class Session(Protocol):
    """Proves who we are."""

    async def headers(self, method: str) -> dict[str, str]:
        """The headers for a request."""
        ...

    def forget(self, refused: Mapping[str, str]) -> bool:
        """Drop what was refused with these headers; true when another try may go better."""
        ...


class TokenSession:
    """An API token goes with every request as it is."""

    def __init__(self, token: ApiToken) -> None:
        self._headers = {"Authorization": f"PVEAPIToken={token.token_id}={token.secret}"}

    async def headers(self, method: str) -> dict[str, str]:  # noqa: ARG002 - same for all
        """The token's header."""
        return self._headers

    def forget(self, refused: Mapping[str, str]) -> bool:  # noqa: ARG002 - nothing is kept
        """A token that was refused will be refused again."""
        return False


class TicketSession:
    """A user signs in once and renews the ticket long before it ends."""

    def __init__(
        self, auth: Password, sign_in: SignIn, clock: Callable[[], float] = time.time
    ) -> None:
        self._auth = auth
        self._sign_in = sign_in
        self._clock = clock
        self._lock = asyncio.Lock()
        self._ticket: Ticket | None = None
        self._since = 0.0

    async def headers(self, method: str) -> dict[str, str]:
        """The ticket's cookie, and for writes the token against forged requests."""
        async with self._lock:
            ticket = await self._fresh()
        headers = {"Cookie": _cookie(ticket)}
        if method != "GET":
            headers["CSRFPreventionToken"] = ticket.csrf_token
        return headers

    def forget(self, refused: Mapping[str, str]) -> bool:
        """Drop the ticket, unless another request has brought a new one since."""
        if self._ticket is not None and _cookie(self._ticket) == refused.get("Cookie"):
            self._ticket = None
        return True

    async def _fresh(self) -> Ticket:
        age = self._clock() - self._since
        if self._ticket is not None and 0 <= age < RENEW_AFTER:
            return self._ticket
        if self._ticket is not None and 0 <= age < EXPIRES_AFTER:
            self._ticket = await self._renewed(self._ticket)
        else:
            self._ticket = await self._signed_in()
        self._since = self._clock()
        return self._ticket

    async def _renewed(self, ticket: Ticket) -> Ticket:
        # a ticket in place of the password spares the second factor too
        try:
            return await self._ask(ticket.ticket)
        except Unauthenticated:
            return await self._signed_in()

    async def _signed_in(self) -> Ticket:
        ticket = await self._ask(self._auth.password)
        if not ticket.need_tfa:
            return ticket
        if self._auth.totp is None:
            name = self._auth.username
            raise Unauthenticated(
                401, "", f"{name} has a second factor: give totp, or better an API token"
            )
        return await self._ask(f"totp:{self._auth.totp()}", challenge=ticket.ticket)

    async def _ask(self, password: str, challenge: str | None = None) -> Ticket:
        form = {"username": self._auth.username, "password": password}
        if challenge is not None:
            form["tfa-challenge"] = challenge
        return await self._sign_in(form)


def open_session(auth: ApiToken | Password, sign_in: SignIn) -> Session:
    """The session for an account."""
    return TokenSession(auth) if isinstance(auth, ApiToken) else TicketSession(auth, sign_in)


def _cookie(ticket: Ticket) -> str:
    return f"PVEAuthCookie={ticket.ticket}"
