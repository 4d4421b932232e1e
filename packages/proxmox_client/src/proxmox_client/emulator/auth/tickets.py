"""Tickets of signed-in users and their CSRF tokens."""

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

LIFETIME: Final = 2 * 3600
GRACE: Final = 300
"""The tolerated difference of clocks, in seconds."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """The content of a ticket with a valid signature."""

    subject: str
    issued: int
    half: bool = False
    """Whether a second factor is still required."""


class TicketIssuer:
    """Issues and verifies the tickets of one cluster."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def issue(self, userid: str, now: float) -> str:
        """Issue a ticket for a signed-in user."""
        return self._signed(f"PVE:{userid}:{int(now):08X}", "")

    def issue_half(self, userid: str, challenge: Mapping[str, Any], now: float) -> str:
        """Issue a ticket that is valid for the second factor only; it contains the challenge."""
        offered = quote(json.dumps(challenge, separators=(",", ":")), safe='{}[]",')
        return self._signed(f"PVE:!tfa!{offered}:{int(now):08X}", userid)

    def read(self, text: str, now: float, *, userid: str = "") -> Ticket | None:
        """Verify a ticket; return None if it is forged, expired or from the future."""
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
        """Issue the CSRF token that every change with a ticket needs."""
        stamp = f"{int(now):08X}"
        return f"{stamp}:{self._digest(f'csrf:{stamp}:{userid}')}"

    def is_valid_csrf(self, text: str, userid: str, now: float) -> bool:
        """Return whether a CSRF token belongs to the user and has not expired."""
        stamp, _, digest = text.partition(":")
        if not hmac.compare_digest(self._digest(f"csrf:{stamp}:{userid}"), digest):
            return False
        return -GRACE < now - int(stamp, 16) < LIFETIME + GRACE

    def _signed(self, body: str, extra: str) -> str:
        return f"{body}::{self._digest(f'{body}:{extra}')}=="

    def _digest(self, text: str) -> str:
        digest = hmac.digest(self._key, text.encode(), hashlib.sha256)
        return base64.b64encode(digest).decode().rstrip("=")
