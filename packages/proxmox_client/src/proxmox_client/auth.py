"""Credentials: an API token, a user with a password, or the ticket of a user who signed in."""

import base64
import hashlib
import hmac
import re
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from string import punctuation
from typing import Final
from urllib.parse import quote

import msgspec

from proxmox_client.json_decoder import Answer

# Proxmox reads a credential in a header up to a semicolon, and unescapes it (Formatter.pm)
_UNCHANGED: Final = punctuation.replace("%", "").replace(";", "")


def _escaped(text: str) -> str:
    """Return a text of a header; names of users may have any character."""
    return quote(text, safe=_UNCHANGED)


@dataclass(frozen=True)
class ApiToken:
    """An API token: its ID `user@realm!name` and its secret."""

    token_id: str
    secret: str = field(repr=False)

    def __post_init__(self) -> None:
        user, _, name = self.token_id.partition("!")
        if "@" not in user or not name:
            raise ValueError(f"{self.token_id!r} is not of the form user@realm!name")
        # httpx rejects other characters in a header, with the secret in its message
        if not re.fullmatch(r"[!-~]+", self.token_id) or not re.fullmatch(r"[!-~]+", self.secret):
            raise ValueError(
                f"Token {self.token_id!r} or its secret has spaces or non-ASCII characters"
            )

    @property
    def authorization(self) -> str:
        """The value of the header Authorization."""
        return f"PVEAPIToken={_escaped(self.token_id)}={self.secret}"

    def headers(self, _method: str) -> dict[str, str]:
        """Return the headers of a request."""
        return {"Authorization": self.authorization}


@dataclass(frozen=True)
class BackupServerToken(ApiToken):
    """An API token as Proxmox Backup Server takes it: a colon separates ID and secret."""

    @property
    def authorization(self) -> str:
        """The value of the header Authorization."""
        return f"PBSAPIToken={_escaped(self.token_id)}:{self.secret}"


@dataclass(frozen=True)
class Password:
    """A user and password; `totp` returns the current code of a second factor."""

    username: str
    password: str = field(repr=False)
    totp: Callable[[], str] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        # Proxmox would answer 401 after three seconds
        if "@" not in self.username:
            raise ValueError(f"{self.username!r} is not of the form user@realm")


@dataclass(frozen=True)
class Totp:
    """A generator of one-time codes from a base32 secret (TOTP, RFC 6238)."""

    secret: str = field(repr=False)
    clock: Callable[[], float] = field(default=time.time, repr=False)

    def __call__(self) -> str:
        text = self.secret.replace(" ", "").upper()
        key = base64.b32decode(text + "=" * (-len(text) % 8))
        counter = struct.pack(">Q", int(self.clock()) // 30)
        digest = hmac.new(key, counter, hashlib.sha1).digest()
        start = digest[-1] & 15
        number = int.from_bytes(digest[start : start + 4], "big") & 0x7FFFFFFF
        return f"{number % 1_000_000:06d}"


class Ticket(Answer, frozen=True):
    """The ticket of a user who signed in, valid for two hours, as Proxmox answers a sign-in.

    With `need_tfa` it is valid for the second factor only.
    """

    ticket: str = ""
    csrf_token: str = msgspec.field(name="CSRFPreventionToken", default="")
    username: str = ""
    need_tfa: bool = msgspec.field(name="NeedTFA", default=False)

    def __repr__(self) -> str:
        return f"Ticket(username={self.username!r})"

    def headers(self, method: str) -> dict[str, str]:
        """Return the cookie, for writes also the token against cross-site requests."""
        headers = {"Cookie": f"PVEAuthCookie={_escaped(self.ticket)}"}
        if method != "GET":
            headers["CSRFPreventionToken"] = _escaped(self.csrf_token)
        return headers


Credential = ApiToken | Password | Ticket
"""What a client signs its requests with; a password is exchanged for tickets."""
