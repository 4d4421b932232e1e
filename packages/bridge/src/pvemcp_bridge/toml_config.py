"""Configuration of clients in TOML: add a server and keep every other character."""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from pvemcp_bridge.config_file import UnusableConfig

__all__ = ["hidden", "with_server"]

_TEXT_QUOTES = re.compile(r"\"{3}|'{3}")  # around a text of several lines
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def with_server(text: str, section: str, name: str, server: Mapping[str, Any]) -> str:
    """Return the configuration with this server added at the end, or replaced in its place.

    All other characters stay. The result is read and compared: raise UnusableConfig when the text
    is not TOML, or is written in a way that tables cannot be added to.
    """
    before = _parse(text)
    existing = before.setdefault(section, {})
    if not isinstance(existing, dict):
        raise UnusableConfig(f"{section!r} is not a table in this file.")
    existing[name] = server
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = text.splitlines(keepends=True)
    own = [at for at, path in enumerate(_tables(lines)) if path[:2] == (section, name)]
    kept, place = _without(lines, own)
    added = [line + newline for line in _table((section, name), server)]
    if kept[:place] and kept[place - 1].strip():
        added = [*([] if kept[place - 1].endswith("\n") else [newline]), newline, *added]
    if kept[place:] and kept[place].strip():
        added = [*added, newline]
    after = "".join([*kept[:place], *added, *kept[place:]])
    if _parse(after, changed=True) != before:
        raise UnusableConfig(f"{section}.{name} is written in a form that cannot be replaced.")
    return after


def _parse(text: str, *, changed: bool = False) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        fact = "A table cannot be added to this file" if changed else "This file is not TOML"
        raise UnusableConfig(f"{fact}: {error}.") from None


def _tables(lines: list[str]) -> Iterator[tuple[str, ...]]:
    """Yield the path of the table that each line belongs to."""
    path: tuple[str, ...] = ()
    in_text = False
    for line in lines:
        if not in_text:
            path = _header(line) or path
        in_text ^= len(_TEXT_QUOTES.findall(line)) % 2 == 1
        yield path


def _header(line: str) -> tuple[str, ...]:
    """Return the path in the header of a table; empty for another line, as one in an array."""
    if not line.lstrip().startswith("["):
        return ()
    try:
        value: Any = tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return ()
    path = []
    while value:
        if isinstance(value, list):
            value = value[0]
        else:
            ((key, value),) = value.items()
            path.append(key)
    return tuple(path)


def _without(lines: list[str], own: list[int]) -> tuple[list[str], int]:
    """Return the lines without these, and where they began; the end without any.

    Comments and blank lines at the end of a table belong to the next one, and stay.
    """
    removed = set(own)
    for at in reversed(own):
        following = at + 1 >= len(lines) or at + 1 not in removed
        if following and (not lines[at].strip() or lines[at].lstrip().startswith("#")):
            removed.discard(at)
    kept = [line for at, line in enumerate(lines) if at not in removed]
    return kept, min(removed, default=len(lines))


def _table(path: tuple[str, ...], values: Mapping[str, Any]) -> list[str]:
    lines = [f"[{'.'.join(map(_key, path))}]"]
    tables = {key: value for key, value in values.items() if isinstance(value, Mapping)}
    for key, value in values.items():
        if key not in tables:
            lines.append(f"{_key(key)} = {json.dumps(value, ensure_ascii=False)}")
    for key, value in tables.items():
        lines += ["", *_table((*path, key), value)]
    return lines


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def hidden(line: str) -> str:
    """Return a line of a configuration without its values: the name, or the header of a table."""
    if not line.strip() or _header(line):
        return line
    name, equals, _ = line.partition("=")
    return f"{name}= ***" if equals and not name.lstrip().startswith("#") else "***"
