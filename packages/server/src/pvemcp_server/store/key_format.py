"""The format of an API key: `pvemcp_<id>_<secret><checksum>`, all in base62.

A service token of the admin REST API begins with `pvemcp_admin_` instead, and the tokens of a
connection (OAuth) with `pvemcp_code_`, `pvemcp_access_` and `pvemcp_refresh_`.

The id (8) identifies the key and is no secret; the secret (43) has 256 random bits; the checksum
(6) is the CRC-32 of everything before it: typing errors and secret scanners need no database.
"""

import re
import secrets
import zlib
from string import ascii_lowercase, ascii_uppercase, digits
from typing import Final

from pvemcp_server.store.records import TokenKind

ALPHABET = digits + ascii_uppercase + ascii_lowercase
PREFIX = "pvemcp"
SERVICE_PREFIX = f"{PREFIX}_admin"
TOKEN_PREFIXES: Final = {kind: f"{PREFIX}_{kind}" for kind in TokenKind}
ID_LENGTH = 8
SECRET_LENGTH = 43
CHECKSUM_LENGTH = 6
ACCESS_PREFIX: Final = TOKEN_PREFIXES[TokenKind.ACCESS]
ID = slice(len(PREFIX) + 1, len(PREFIX) + 1 + ID_LENGTH)  # where a key has its id
TOKEN_ID = slice(len(ACCESS_PREFIX) + 1, len(ACCESS_PREFIX) + 1 + ID_LENGTH)  # of an access token

_KINDS = "|".join(("admin", *TokenKind))

# Matches every kind; `id_of` accepts one of them
KEY_PATTERN = re.compile(
    rf"({PREFIX}(?:_(?:{_KINDS}))?)_([0-9A-Za-z]{{{ID_LENGTH}}})"
    rf"_[0-9A-Za-z]{{{SECRET_LENGTH + CHECKSUM_LENGTH}}}"
)

# Also matches a mistyped or truncated key, which still holds most of its secret
KEY_LIKE = re.compile(rf"({PREFIX}_(?:(?:{_KINDS})_)?[0-9A-Za-z]{{{ID_LENGTH}}}_)[0-9A-Za-z]+")


def new_id() -> str:
    """Return a random key id."""
    return "".join(secrets.choice(ALPHABET) for _ in range(ID_LENGTH))


def new_secret(key_id: str, prefix: str = PREFIX) -> str:
    """Return a complete key, or service token, with a new random secret."""
    body = f"{prefix}_{key_id}_{base62(secrets.randbits(256), SECRET_LENGTH)}"
    return body + checksum(body)


def id_of(text: str, prefix: str = PREFIX) -> str | None:
    """Return the id of a well-formed key; None when prefix, format or checksum is wrong."""
    match = KEY_PATTERN.fullmatch(text)
    if (
        match is None
        or match[1] != prefix
        or checksum(text[:-CHECKSUM_LENGTH]) != text[-CHECKSUM_LENGTH:]
    ):
        return None
    return match[2]


def checksum(body: str) -> str:
    """Return the CRC-32 of the text in base62."""
    return base62(zlib.crc32(body.encode()), CHECKSUM_LENGTH)


def base62(number: int, length: int) -> str:
    """Return the number in base62, padded with zeros to `length`."""
    letters = []
    while number:
        number, rest = divmod(number, 62)
        letters.append(ALPHABET[rest])
    return "".join(reversed(letters)).rjust(length, "0")
