"""The shape of an API key: `pvemcp_<id>_<secret><checksum>`, all in base62.

The id (8) names the key and is no secret; the secret (43) holds 256 random bits; the checksum (6)
is the CRC-32 of all before it, so that typing errors and secret scanners need no database.
"""

import re
import secrets
import zlib
from string import ascii_lowercase, ascii_uppercase, digits

ALPHABET = digits + ascii_uppercase + ascii_lowercase
PREFIX = "pvemcp"
ID_LENGTH = 8
SECRET_LENGTH = 43
CHECKSUM_LENGTH = 6
ID_START = len(PREFIX) + 1

KEY_PATTERN = re.compile(
    rf"{PREFIX}_([0-9A-Za-z]{{{ID_LENGTH}}})_[0-9A-Za-z]{{{SECRET_LENGTH + CHECKSUM_LENGTH}}}"
)

# What may be a key, mistyped or cut off: nearly all of its secret would still be in it
KEY_LIKE = re.compile(rf"({PREFIX}_[0-9A-Za-z]{{{ID_LENGTH}}}_)[0-9A-Za-z]+")


def new_id() -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(ID_LENGTH))


def new_secret(key_id: str) -> str:
    """A whole key with a fresh secret."""
    body = f"{PREFIX}_{key_id}_{base62(secrets.randbits(256), SECRET_LENGTH)}"
    return body + checksum(body)


def stated_id(text: str) -> str:
    """What stands in the place of the id, whatever the text is."""
    return text[ID_START : ID_START + ID_LENGTH]


def id_of(text: str) -> str | None:
    """The id in a well-formed key; None when its shape or checksum is wrong."""
    found = KEY_PATTERN.fullmatch(text)
    if found is None or checksum(text[:-CHECKSUM_LENGTH]) != text[-CHECKSUM_LENGTH:]:
        return None
    return found.group(1)


def checksum(body: str) -> str:
    return base62(zlib.crc32(body.encode()), CHECKSUM_LENGTH)


def base62(number: int, length: int) -> str:
    """The number in base62, filled with zeros to `length`."""
    letters = []
    while number:
        number, rest = divmod(number, 62)
        letters.append(ALPHABET[rest])
    return "".join(reversed(letters)).rjust(length, "0")
