"""Client configuration files: add the bridge and keep every other character."""

import difflib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import count, islice
from pathlib import Path
from typing import Any

from pvemcp_bridge import jsontext

__all__ = ["UnusableConfig", "bridge_command", "diff", "with_server", "write"]

_STRING_OR_COMMENT = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
_STRING_OR_LAST_COMMA = re.compile(r'"(?:\\.|[^"\\])*"|,(?=\s*[}\]])')
_NAME_OR_STRING = re.compile(r'(?P<name>"(?:\\.|[^"\\])*"\s*:)|"(?:\\.|[^"\\])*"?')
_INDENT = "  "
_BINARY = getattr(os, "O_BINARY", 0)  # Windows: no conversion of line ends


class UnusableConfig(Exception):
    """The configuration cannot be changed safely; the message says why."""


def with_server(text: str, servers_key: str, name: str, server: Mapping[str, Any]) -> str:
    """Return the configuration with this server added or replaced.

    All other characters stay, also comments and trailing commas, which editors allow in JSON.
    A file with line ends of Windows gets these in what is added. Raise UnusableConfig when the text
    is not a JSON object.
    """
    if "\r\n" in text:
        changed = with_server(text.replace("\r\n", "\n"), servers_key, name, server)
        return changed.replace("\n", "\r\n")
    if not text.strip():
        return json.dumps({servers_key: {name: server}}, indent=_INDENT, ensure_ascii=False) + "\n"
    # JSON of the same length, so that positions are valid in both texts
    plain = _STRING_OR_LAST_COMMA.sub(_blank, _STRING_OR_COMMENT.sub(_blank, text))
    try:
        config = jsontext.parse(plain)
    except jsontext.BadJson as error:
        raise UnusableConfig(f"This file is not JSON: {error}.") from None
    if not isinstance(config, dict):
        raise UnusableConfig("This file does not contain a JSON object.")
    if servers_key not in config:
        return _with_member(text, plain, servers_key, {name: server}, depth=1)
    if not isinstance(config[servers_key], dict):
        raise UnusableConfig(f"{servers_key!r} is not an object in this file.")
    start, end = jsontext.span(plain, servers_key) or (0, 0)
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


def diff(
    before: str, after: str, path: Path, server: Mapping[str, Any], mask: Callable[[str], str]
) -> str:
    """Return the change as a unified diff with secrets masked; empty if there is none.

    Lines of others than this server, and of its former entry, show no values: they may hold keys
    that `mask` does not know.
    """
    own = {
        line.strip() for line in json.dumps(server, indent=_INDENT, ensure_ascii=False).split("\n")
    }
    head, lines = [f"--- {path}", f"+++ {path}"], []
    changes = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="")
    for line in islice(changes, 2, None):
        is_own = line.startswith("+") and line[1:].strip() in own
        lines.append(line if is_own else _NAME_OR_STRING.sub(_hide, line))
    return mask("\n".join([*head, *lines])) if lines else ""


def _hide(match: re.Match[str]) -> str:
    return match["name"] or '"***"'


def write(path: Path, text: str) -> Path | None:
    """Replace the file atomically and return the backup of the old one.

    Both are readable only by their owner.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path = path.resolve()  # a symbolic link, perhaps into a repository of settings, stays a link
    backup = _backup(path) if path.exists() else None
    # a random name, mode 0600, never through a link: the folder may be shared
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return backup


def _backup(path: Path) -> Path:
    """Copy the file to the first free name; O_EXCL neither replaces a file nor follows a link."""
    for number in count(1):
        backup = Path(f"{path}.backup-{number}")
        with suppress(FileExistsError):
            descriptor = os.open(backup, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(path.read_bytes())
            return backup
    raise AssertionError("count() does not end")


def bridge_command() -> str:
    """Return the command that starts this installation of the bridge."""
    if getattr(sys, "frozen", False):
        return str(Path(sys.executable).resolve())
    script = Path(sys.executable).with_name(f"pvemcp-bridge{'.exe' if os.name == 'nt' else ''}")
    return str(script) if script.exists() else shutil.which("pvemcp-bridge") or "pvemcp-bridge"
