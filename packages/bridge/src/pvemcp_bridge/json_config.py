"""Configuration of clients in JSON: add a server and keep every other character."""

import json
import re
from collections.abc import Mapping
from typing import Any

from pvemcp_bridge import jsontext
from pvemcp_bridge.config_file import UnusableConfig

__all__ = ["hidden", "with_server"]

_STRING_OR_COMMENT = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
_STRING_OR_LAST_COMMA = re.compile(r'"(?:\\.|[^"\\])*"|,(?=\s*[}\]])')
_NAME_OR_STRING = re.compile(r'(?P<name>"(?:\\.|[^"\\])*"\s*:)|"(?:\\.|[^"\\])*"?')
_INDENT = "  "


def with_server(text: str, section: str, name: str, server: Mapping[str, Any]) -> str:
    """Return the configuration with this server added or replaced.

    All other characters stay, also comments and trailing commas, which editors allow in JSON.
    A file with line ends of Windows gets these in what is added. Raise UnusableConfig when the text
    is not a JSON object.
    """
    if "\r\n" in text:
        changed = with_server(text.replace("\r\n", "\n"), section, name, server)
        return changed.replace("\n", "\r\n")
    if not text.strip():
        return json.dumps({section: {name: server}}, indent=_INDENT, ensure_ascii=False) + "\n"
    # JSON of the same length, so that positions are valid in both texts
    plain = _STRING_OR_LAST_COMMA.sub(_blank, _STRING_OR_COMMENT.sub(_blank, text))
    try:
        config = jsontext.parse(plain)
    except jsontext.BadJson as error:
        raise UnusableConfig(f"This file is not JSON: {error}.") from None
    if not isinstance(config, dict):
        raise UnusableConfig("This file does not contain a JSON object.")
    if section not in config:
        return _with_member(text, plain, section, {name: server}, depth=1)
    if not isinstance(config[section], dict):
        raise UnusableConfig(f"{section!r} is not an object in this file.")
    start, end = jsontext.span(plain, section) or (0, 0)
    servers = _with_member(text[start:end], plain[start:end], name, server, depth=2)
    return text[:start] + servers + text[end:]


def _blank(match: re.Match[str]) -> str:
    """Replace a comment or comma by spaces; keep a string."""
    text = match[0]
    return text if text.startswith('"') else re.sub(r"[^\n]", " ", text)


def _with_member(text: str, plain: str, name: str, value: Any, *, depth: int) -> str:
    """Return the text of an object with one member set; a new member becomes the first one.

    `plain` is the same text as strict JSON.
    """
    inner = "\n" + _INDENT * depth
    written = json.dumps(value, indent=_INDENT, ensure_ascii=False).replace("\n", inner)
    if position := jsontext.span(plain, name):
        return text[: position[0]] + written + text[position[1] :]
    start = plain.index("{") + 1
    end = "," if jsontext.parse(plain) else "\n" + _INDENT * (depth - 1)
    return f"{text[:start]}{inner}{json.dumps(name)}: {written}{end}{text[start:]}"


def hidden(line: str) -> str:
    """Return a line of a configuration without its values."""
    return _NAME_OR_STRING.sub(lambda match: match["name"] or '"***"', line)
