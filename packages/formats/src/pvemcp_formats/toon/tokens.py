"""The parts of a TOON line: where quotes end, where values part, what a value is."""

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
def _upto(char: str) -> re.Pattern[str]:
    return re.compile(rf'(?:[^"{re.escape(char)}]|{_OPEN_QUOTED})*+', re.DOTALL)


def find(content: str, char: str) -> int:
    """Where the character stands for the first time outside quotes; -1 for nowhere."""
    if '"' not in content:
        return content.find(char)
    found = _upto(char).match(content)
    return found.end() if found and found.end() < len(content) else -1


def split(content: str, delimiter: str) -> list[str]:
    """The values between delimiters, spaces around them gone."""
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
    """The value of a token."""
    if token.startswith('"'):
        return text(token)
    if token in _CONSTANTS:
        return _CONSTANTS[token]
    return read_number(token, otherwise=token)


def text(token: str) -> str:
    """The text of a token, in quotes or bare."""
    if not token.startswith('"'):
        return token
    if not _QUOTED.fullmatch(token):
        raise Unreadable("a quoted text must end with its closing quote")
    return unquoted(token)


def key_and_rest(content: str) -> tuple[str, str]:
    """The key of a line, and what stands behind the colon."""
    if content.startswith('"'):
        found = _QUOTED_KEY.match(content)
        if not found:
            raise Unreadable("a quoted key must be followed by a colon")
        return unquoted(found[1]), content[found.end() :].strip(" ")
    colon = find(content, ":")
    if colon < 0:
        raise Unreadable("a key must be followed by a colon")
    return content[:colon].strip(" "), content[colon + 1 :].strip(" ")
