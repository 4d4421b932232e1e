"""Authentication of requests by API token or ticket."""

import hmac
import re
from typing import Final
from urllib.parse import unquote

from proxmox_client.emulator.access.principal import Principal
from proxmox_client.emulator.auth.tickets import TicketIssuer
from proxmox_client.emulator.errors import Unauthorized
from proxmox_client.emulator.http.messages import Request
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.user_config import User

_TOKEN: Final = re.compile(r"PVEAPIToken[= ]([^!=\s]+)!([^=\s]+)=(\S+)")
_COOKIE: Final = re.compile(r"(?:^|;)\s*PVEAuthCookie=([^;]*)")
_TOKEN_ID: Final = re.compile(r"[^\s:/!]+@[A-Za-z][A-Za-z0-9.\-_]+![A-Za-z][A-Za-z0-9.\-_]+")
NO_TICKET: Final = "No ticket"
FAILED: Final = "Authentication failed!"
BAD_CSRF: Final = "Permission denied - invalid csrf token"


class Authentication:
    """The authentication of one cluster."""

    def __init__(self, state: ClusterState, tickets: TicketIssuer) -> None:
        self._state, self._tickets = state, tickets
        self._revoked_before = 0.0

    def revoke_tickets(self) -> None:
        """Invalidate every ticket issued until now."""
        self._revoked_before = self._state.now

    def authenticate(self, request: Request, *, is_upload: bool = False) -> Principal:
        """Return the principal of a request; raise Unauthorized.

        A ticket needs its CSRF token for changes, except for uploads.
        """
        authorization = request.headers.get("authorization", "")
        if authorization.startswith("PVEAPIToken"):
            return self._by_token(authorization)
        cookie = _COOKIE.search(request.headers.get("cookie", ""))
        if cookie is None:
            raise Unauthorized(NO_TICKET)
        principal = self._by_ticket(unquote(cookie[1]))
        if request.method != "GET" and not is_upload:
            self._require_csrf(request, principal)
        return principal

    def _by_token(self, text: str) -> Principal:
        match = _TOKEN.fullmatch(unquote(text.partition(";")[0].strip()))
        if match is None:
            raise Unauthorized(FAILED)
        name = f"{match[1]}!{match[2]}"
        if not _TOKEN_ID.fullmatch(name):
            split = "not able to split into user and token parts"
            raise self._error(f"'{name}' is not a valid token ID - {split}")
        user = self._active_user(match[1])
        token = user.tokens.get(match[2])
        if token is None:
            raise self._error(f"no such token '{match[2]}' for user '{match[1]}'")
        if _expired(token.expire, self._state.now):
            raise self._error(f"token '{match[2]}' access expired")
        if not hmac.compare_digest(token.secret.encode(), match[3].encode()):
            raise self._error("invalid token value!")
        return Principal(match[1], token.name, token.privsep)

    def _by_ticket(self, text: str) -> Principal:
        ticket = self._tickets.read(text, self._state.now)
        if ticket is None or ticket.half or ticket.issued < self._revoked_before:
            raise self._error("permission denied - invalid PVE ticket")
        self._active_user(ticket.subject)
        return Principal(ticket.subject)

    def _error(self, detail: str) -> Unauthorized:
        """Return the error; Proxmox VE 9 no longer reports the reason."""
        return Unauthorized(detail if self._state.release < (9, 0) else FAILED)

    def _require_csrf(self, request: Request, principal: Principal) -> None:
        token = request.headers.get("csrfpreventiontoken", "")
        if not self._tickets.is_valid_csrf(token, principal.userid, self._state.now):
            raise Unauthorized(BAD_CSRF)

    def _active_user(self, userid: str) -> User:
        user = self._state.user_config.users.get(userid)
        if user is None:
            raise self._error(f"no such user ('{userid}')")
        if not user.enabled:
            raise self._error(f"user '{userid}' is disabled")
        if _expired(user.expire, self._state.now):
            raise self._error(f"user '{userid}' access expired")
        return user


def _expired(expire: int, now: float) -> bool:
    return 0 < expire <= now
