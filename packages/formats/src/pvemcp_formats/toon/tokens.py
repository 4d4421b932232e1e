"""Parts of a TOON line: quoted texts, delimiters, keys and scalars."""

import re
from functools import cache

from pvemcp_formats.errors import Unreadable
from pvemcp_formats.numbers import read_number
from pvemcp_formats.toon.strings import unquoted
from pvemcp_formats.values import Value

QUOTED = r'"(?:[^"\\]|\\.)*+"'
_OPEN_QUOTED = r'"(?:[^"\\]|\\(?:.|\Z))*+(?:"|\Z)'
_QUOTED = re.compile(QUOTED, re.DOTALL)
_QUOTED_KEY = re.compile(rf"({QUOTED}) *:", re.DOTALL)
_CONSTANTS: dict[str, Value] = {"": "", "true": True, "false": False, "null": None}


@cache
def _up_to(char: str) -> re.Pattern[str]:
    return re.compile(rf'(?:[^"{re.escape(char)}]|{_OPEN_QUOTED})*+', re.DOTALL)


def find(content: str, char: str) -> int:
    """Return the first position of the character outside quotes, or -1."""
    if '"' not in content:
        return content.find(char)
    match = _up_to(char).match(content)
    return match.end() if match and match.end() < len(content) else -1


def split(content: str, delimiter: str) -> list[str]:
    """Split at delimiters and strip spaces."""
    if not content:
        return []
    if '"' not in content:
        return [token.strip(" ") for token in content.split(delimiter)]
    tokens = []
    while (end := find(content, delimiter)) >= 0:
        tokens.append(content[:end].strip(" "))
        content = content[end + 1 :]
    return [*tokens, content.strip(" ")]


def scalar(token: str) -> Value:
    """Return the value of a token."""
    if token.startswith('"'):
        return text(token)
    if token in _CONSTANTS:
        return _CONSTANTS[token]
    return read_number(token, otherwise=token)


def text(token: str) -> str:
    """Return the text of a token, quoted or not."""
    if not token.startswith('"'):
        return token
    if not _QUOTED.fullmatch(token):
        raise Unreadable("a quoted text must end with its closing quote")
    return unquoted(token)


def key_and_rest(content: str) -> tuple[str, str]:
    """Return the key of a line and the text after the colon."""
    if content.startswith('"'):
        match = _QUOTED_KEY.match(content)
        if not match:
            raise Unreadable("a quoted key must be followed by a colon")
        return unquoted(match[1]), content[match.end() :].strip(" ")
    colon = find(content, ":")
    if colon < 0:
        raise Unreadable("a key must be followed by a colon")
    return content[:colon].strip(" "), content[colon + 1 :].strip(" ")
