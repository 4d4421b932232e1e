"""Authentication of requests with a password: a ticket that is renewed."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from proxmox_client.auth import Password, Ticket
from proxmox_client.errors import Unauthenticated

# seconds; a ticket is valid for two hours and renewed after half of them
RENEW_AFTER = 3600.0
EXPIRES_AFTER = 7200.0

RequestTicket = Callable[[Mapping[str, str]], Awaitable[Ticket]]


class TicketSession:
    """A session of a user: one sign-in, and renewals of the ticket long before it expires.

    Concurrent requests share one lock, so only the first of them signs in or renews.
    """

    def __init__(
        self, auth: Password, sign_in: RequestTicket, clock: Callable[[], float] = time.time
    ) -> None:
        self._auth = auth
        self._sign_in = sign_in
        self._clock = clock
        self._lock = asyncio.Lock()
        self._ticket: Ticket | None = None
        self._issued_at = 0.0

    async def headers(self, method: str) -> dict[str, str]:
        """Return the ticket's cookie, for writes also the token against cross-site requests."""
        async with self._lock:
            ticket = await self._valid_ticket()
        return ticket.headers(method)

    def invalidate(self, rejected: Mapping[str, str]) -> None:
        """Drop the ticket that was rejected with a 401, unless a request has replaced it."""
        if self._ticket is not None and self._ticket.headers("GET").items() <= rejected.items():
            self._ticket = None

    async def _valid_ticket(self) -> Ticket:
        age = self._clock() - self._issued_at
        if self._ticket is not None and 0 <= age < RENEW_AFTER:
            return self._ticket
        if self._ticket is not None and 0 <= age < EXPIRES_AFTER:
            self._ticket = await self._renew(self._ticket)
        else:
            self._ticket = await self._sign_in_with_password()
        self._issued_at = self._clock()
        return self._ticket

    async def _renew(self, ticket: Ticket) -> Ticket:
        # the ticket in place of the password: no code of the second factor is needed
        try:
            return await self._request_ticket(ticket.ticket)
        except Unauthenticated:
            return await self._sign_in_with_password()

    async def _sign_in_with_password(self) -> Ticket:
        ticket = await self._request_ticket(self._auth.password)
        if not ticket.need_tfa:
            return ticket
        if self._auth.totp is None:
            name = self._auth.username
            text = f"{name} has a second factor, and no code was given; an API token needs none"
            raise Unauthenticated(401, "", text)
        return await self._request_ticket(f"totp:{self._auth.totp()}", challenge=ticket.ticket)

    async def _request_ticket(self, password: str, challenge: str | None = None) -> Ticket:
        form = {"username": self._auth.username, "password": password}
        if challenge is not None:
            form["tfa-challenge"] = challenge
        return await self._sign_in(form)
