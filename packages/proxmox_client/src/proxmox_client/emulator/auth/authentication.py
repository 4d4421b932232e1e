"""Who sends a request: by token, by ticket, or nobody."""

import hmac
import re
from typing import Final
from urllib.parse import unquote

from proxmox_client.emulator.access.caller import Caller
from proxmox_client.emulator.auth.tickets import TicketOffice
from proxmox_client.emulator.errors import SignInRefused
from proxmox_client.emulator.http.messages import Request
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.people import User

_TOKEN: Final = re.compile(r"PVEAPIToken[= ]([^!=\s]+)!([^=\s]+)=(\S+)")
_COOKIE: Final = re.compile(r"(?:^|;)\s*PVEAuthCookie=([^;]*)")
_TOKEN_ID: Final = re.compile(r"[^\s:/!]+@[A-Za-z][A-Za-z0-9.\-_]+![A-Za-z][A-Za-z0-9.\-_]+")
NO_TICKET: Final = "No ticket"
FAILED: Final = "Authentication failed!"
BAD_CSRF: Final = "Permission denied - invalid csrf token"


class Authentication:
    """Recognises the callers of one cluster."""

    def __init__(self, state: ClusterState, office: TicketOffice) -> None:
        self._state, self._office = state, office
        self._revoked_before = 0.0

    def revoke_tickets(self) -> None:
        """Make every ticket issued until now worthless."""
        self._revoked_before = self._state.now

    def caller(self, request: Request, *, is_upload: bool = False) -> Caller:
        """The caller, or SignInRefused."""
        authorization = request.headers.get("authorization", "")
        if authorization.startswith("PVEAPIToken"):
            return self._by_token(authorization)
        cookie = _COOKIE.search(request.headers.get("cookie", ""))
        if cookie is None:
            raise SignInRefused(NO_TICKET)
        caller = self._by_ticket(unquote(cookie[1]))
        if request.method != "GET" and not is_upload:
            self._require_csrf(request, caller)
        return caller

    def _by_token(self, text: str) -> Caller:
        match = _TOKEN.fullmatch(text.strip())
        if match is None:
            raise SignInRefused(FAILED)
        name = f"{match[1]}!{match[2]}"
        if not _TOKEN_ID.fullmatch(name):
            split = "not able to split into user and token parts"
            raise self._refused(f"'{name}' is not a valid token ID - {split}")
        user = self._live_user(match[1])
        if user is None:
            raise self._refused(f"no such user ('{match[1]}')")
        token = user.tokens.get(match[2])
        if token is None:
            raise self._refused(f"no such token '{match[2]}' for user '{match[1]}'")
        if _expired(token.expire, self._state.now):
            raise self._refused(f"token '{match[2]}' access expired")
        if not hmac.compare_digest(token.secret.encode(), match[3].encode()):
            raise self._refused("invalid token value!")
        return Caller(match[1], token.name, token.privsep)

    def _by_ticket(self, text: str) -> Caller:
        ticket = self._office.read(text, self._state.now)
        if ticket is None or ticket.half or ticket.issued < self._revoked_before:
            raise self._refused("permission denied - invalid PVE ticket")
        if self._live_user(ticket.subject) is None:
            raise self._refused(f"no such user ('{ticket.subject}')")
        return Caller(ticket.subject)

    def _refused(self, detail: str) -> SignInRefused:
        """The refusal: 9 stopped saying what was wrong."""
        return SignInRefused(detail if self._state.release < (9, 0) else FAILED)

    def _require_csrf(self, request: Request, caller: Caller) -> None:
        given = request.headers.get("csrfpreventiontoken", "")
        if not self._office.csrf_is_right(given, caller.userid, self._state.now):
            raise SignInRefused(BAD_CSRF)

    def _live_user(self, userid: str) -> User | None:
        user = self._state.people.users.get(userid)
        if user is None or not user.enabled or _expired(user.expire, self._state.now):
            return None
        return user


def _expired(expire: int, now: float) -> bool:
    return 0 < expire <= now
