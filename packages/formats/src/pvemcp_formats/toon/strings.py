"""Names and texts of TOON, quoted where they would be ambiguous."""

import re
from collections.abc import Callable

from pvemcp_formats.errors import Unreadable

_BARE_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_LIKE_A_NUMBER = r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_ESCAPED = str.maketrans({**{chr(code): f"\\u{code:04x}" for code in range(0x20)}, **_ESCAPES})
_UNESCAPES = {escape[1]: char for char, escape in _ESCAPES.items()}
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.?))", re.DOTALL)


def quoted(text: str) -> str:
    """Return the text in quotes with control characters escaped."""
    return f'"{text.translate(_ESCAPED)}"'


def key(name: str) -> str:
    """Return a name, quoted unless it consists of identifiers joined by dots."""
    return name if _BARE_KEY.fullmatch(name) else quoted(name)


def text_writer(delimiter: str) -> Callable[[str], str]:
    """Return the function that writes texts where this delimiter separates values."""
    special = rf'\x00-\x1f:"\\\[\]{{}}{re.escape(delimiter)}'
    bare = re.compile(
        rf"(?!(?:true|false|null|{_LIKE_A_NUMBER})\Z)"
        rf"[^{special}\-# ](?:[^{special}]*[^{special} ])?"
    )

    def write(text: str) -> str:
        return text if bare.fullmatch(text) else quoted(text)

    return write


def unquoted(token: str) -> str:
    """Return the text of a token in quotes."""
    return _ESCAPE.sub(_character, token[1:-1])


def _character(match: re.Match[str]) -> str:
    code, char = match.groups()
    if code is None and char in _UNESCAPES:
        return _UNESCAPES[char]
    if code is None or 0xD800 <= int(code, 16) <= 0xDFFF:
        raise Unreadable(f"invalid escape {match[0]}")
    return chr(int(code, 16))
