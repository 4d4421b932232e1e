"""Writes the bridge into a client's configuration, changing nothing else in it."""

import difflib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pvemcp_bridge import jsontext

__all__ = ["Unusable", "changed", "difference", "own_command", "write"]

_STRING_OR_COMMENT = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
_STRING_OR_LAST_COMMA = re.compile(r'"(?:\\.|[^"\\])*"|,(?=\s*[}\]])')
_INDENT = "  "


class Unusable(Exception):
    """The client's file cannot be changed safely; says why."""


def changed(text: str, servers_key: str, name: str, server: Mapping[str, Any]) -> str:
    """The configuration with this server in it; every other character stays as it is."""
    if not text.strip():
        return json.dumps({servers_key: {name: server}}, indent=_INDENT, ensure_ascii=False) + "\n"
    plain = _plain(text)
    config = _object(plain)
    if servers_key not in config:
        return _with(text, plain, servers_key, {name: server}, depth=1)
    if not isinstance(config[servers_key], dict):
        raise Unusable(f"{servers_key!r} is not an object in this file.")
    start, end = jsontext.span(plain, servers_key) or (0, 0)
    servers = _with(text[start:end], plain[start:end], name, server, depth=2)
    return text[:start] + servers + text[end:]


def _plain(text: str) -> str:
    """JSON of the same length: comments and trailing commas, which editors allow, made blank."""
    return _STRING_OR_LAST_COMMA.sub(_blank, _STRING_OR_COMMENT.sub(_blank, text))


def _blank(match: re.Match[str]) -> str:
    found = match[0]
    return found if found.startswith('"') else re.sub(r"[^\n]", " ", found)


def _object(plain: str) -> dict[str, Any]:
    try:
        config = jsontext.parse(plain)
    except jsontext.BadJson as error:
        raise Unusable(f"This file is not JSON: {error}.") from None
    if not isinstance(config, dict):
        raise Unusable("This file does not hold a JSON object.")
    return config


def _with(text: str, plain: str, name: str, value: Any, *, depth: int) -> str:
    """The text of an object with one member set; a new one comes first."""
    inner = "\n" + _INDENT * depth
    written = json.dumps(value, indent=_INDENT, ensure_ascii=False).replace("\n", inner)
    found = jsontext.span(plain, name)
    if found:
        return text[: found[0]] + written + text[found[1] :]
    at = plain.index("{") + 1
    end = "," if jsontext.parse(plain) else "\n" + _INDENT * (depth - 1)
    return f"{text[:at]}{inner}{json.dumps(name)}: {written}{end}{text[at:]}"


def difference(before: str, after: str, path: Path, mask: Callable[[str], str]) -> str:
    """The change as people read it, secrets masked."""
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), str(path), str(path), lineterm=""
    )
    return mask("\n".join(lines))


def write(path: Path, text: str) -> Path | None:
    """Replaces the file in one step, readable by its owner alone; the former one is kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path = path.resolve()  # a link into somebody's repository of settings stays a link
    backup = _backup(path) if path.exists() else None
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    fresh.replace(path)
    return backup


def _backup(path: Path) -> Path:
    number = 1
    while (backup := Path(f"{path}.backup-{number}")).exists():
        number += 1
    shutil.copy2(path, backup)
    backup.chmod(0o600)
    return backup


def own_command() -> str:
    """How this very bridge is started."""
    if getattr(sys, "frozen", False):
        return str(Path(sys.executable).resolve())
    beside = Path(sys.executable).with_name(f"pvemcp-bridge{'.exe' if os.name == 'nt' else ''}")
    return str(beside) if beside.exists() else shutil.which("pvemcp-bridge") or "pvemcp-bridge"
