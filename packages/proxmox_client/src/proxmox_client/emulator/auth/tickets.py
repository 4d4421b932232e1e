"""Tickets of signed-in users and the tokens against forged requests that go with them."""

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

LIFETIME: Final = 2 * 3600
GRACE: Final = 300
"""Seconds by which clocks may differ."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a ticket says once its signature is right."""

    subject: str
    issued: int
    half: bool = False
    """Whether the second factor is still owed."""


class TicketOffice:
    """Issues and reads the tickets of one cluster."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def issue(self, userid: str, now: float) -> str:
        """A ticket of a user who is signed in."""
        return self._signed(f"PVE:{userid}:{int(now):08X}", "")

    def issue_half(self, userid: str, factors: list[str], now: float) -> str:
        """A ticket good for nothing but the second factor."""
        offered = ",".join(f'"{quote(kind)}"%3Atrue' for kind in factors)
        return self._signed(f"PVE:!tfa!{{{offered}}}:{int(now):08X}", userid)

    def read(self, text: str, now: float, *, userid: str = "") -> Ticket | None:
        """What a ticket says, or None if it is forged, too old or from the future."""
        body, _, signature = text.partition("::")
        fields = body.split(":")
        if len(fields) != 3 or fields[0] != "PVE" or not signature:
            return None
        half = fields[1].startswith("!tfa!")
        if not hmac.compare_digest(self._signed(body, userid if half else ""), text):
            return None
        issued = int(fields[2], 16)
        if not -GRACE < now - issued < LIFETIME + GRACE:
            return None
        return Ticket(userid if half else fields[1], issued, half)

    def csrf(self, userid: str, now: float) -> str:
        """The token that must come with every change."""
        stamp = f"{int(now):08X}"
        return f"{stamp}:{self._digest(f'csrf:{stamp}:{userid}')}"

    def csrf_is_right(self, text: str, userid: str, now: float) -> bool:
        """Whether this token belongs to the user and is young enough."""
        stamp, _, digest = text.partition(":")
        if not hmac.compare_digest(self._digest(f"csrf:{stamp}:{userid}"), digest):
            return False
        return -GRACE < now - int(stamp, 16) < LIFETIME + GRACE

    def _signed(self, body: str, extra: str) -> str:
        return f"{body}::{self._digest(f'{body}:{extra}')}=="

    def _digest(self, text: str) -> str:
        digest = hmac.digest(self._key, text.encode(), hashlib.sha256)
        return base64.b64encode(digest).decode().rstrip("=")
