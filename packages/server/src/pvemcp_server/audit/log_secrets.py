"""Masking of secrets in lines of system logs, which programs write as they like."""

import re
from typing import Final

from pvemcp_server.audit.mask import MASK, NAMES_OF_VALUES, VALUE, mask_text

# lengths are bounded where a long line could take quadratic time
_ASSIGNED: Final = re.compile(
    rf"((?:{NAMES_OF_VALUES})[\"']?\s{{0,3}}[=:]\s{{0,3}}(?:(?:Bearer|Basic)\s+)?)(?!\*{{3}}){VALUE}",
    re.IGNORECASE,
)
_OPTION: Final = re.compile(rf"(--?\w*(?:{NAMES_OF_VALUES})\s+)\S+", re.IGNORECASE)
_BEARER: Final = re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9+/._~=-]{8,}", re.IGNORECASE)
_WHOLE: Final = re.compile(
    r"\beyJ[\w-]{1,400}\.[\w-]+\.[\w-]*"  # a JSON Web Token
    r"|\A[A-Za-z0-9+/]{60,76}={0,2}\Z"  # a line of a private key that was logged line by line
)
_HEADER: Final = re.compile(r"\b((?:authorization|cookie): ?).+", re.IGNORECASE)  # to its end


def mask_line(line: str) -> str:
    """Mask what looks like a secret: assigned to such a name, a header, a ticket, a key."""
    line = _WHOLE.sub(MASK, mask_text(line))
    line = _HEADER.sub(rf"\1{MASK}", line)
    line = _BEARER.sub(rf"\1 {MASK}", line)
    return _OPTION.sub(rf"\1{MASK}", _ASSIGNED.sub(rf"\1{MASK}", line))
