"""Configuration of clients in YAML: add a server and keep every other character.

Python has no parser of YAML, so this reads the block style that clients write, and refuses a file
in any other: it never guesses.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pvemcp_bridge.config_file import UnusableConfig

__all__ = ["hidden", "with_server"]

_ANCHOR = re.compile(r"(?:^|\s)&\w")
_EMPTY = re.compile(r"(?:\{\s*\}|\[\s*\]|null|~)?\s*(?:#.*)?")
_ENTRY_NAME = re.compile(r"(?P<name>\s*(?:- )?[\w.-]+:)(?P<value>\s.*|$)")
_OPEN_QUOTE = re.compile(r"""(?:^\s*|[:-]\s+)(?:"(?:\\.|[^"\\])*|'(?:[^']|'')*)$""")
_PLAIN_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_RESERVED = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})
_SCALAR = r"""(?P<text>"(?:\\.|[^"\\])*"|'[^']*'|[^\s'"#:](?:[^#:]*[^\s#:])?)"""
_KEY = re.compile(rf"{_SCALAR}\s*:(?:\s|$)")
_STRING = re.compile(rf"\s*{_SCALAR}\s*(?:\s#.*)?")


def with_server(text: str, section: str, name: str, server: Mapping[str, Any]) -> str:
    """Return the configuration with this server added as the first one, or replaced in its place.

    The servers are a list if the entry holds its own name first, else a mapping. Raise
    UnusableConfig for a file in another style than blocks.
    """
    if "\r\n" in text:
        changed = with_server(text.replace("\r\n", "\n"), section, name, server)
        return changed.replace("\n", "\r\n")
    lines = text.splitlines()
    _check_style(lines, section)
    in_list = next(iter(server)) == "name"
    top = next((at for at, line in enumerate(lines) if line.startswith(f"{section}:")), None)
    if top is None:
        block = _entry(server, name, "  ", in_list=in_list)
        return "\n".join([*lines, f"{section}:", *block]) + "\n"
    rest = lines[top].removeprefix(f"{section}:")
    if not _EMPTY.fullmatch(rest.strip()):
        raise UnusableConfig(f"{section!r} is not written as a block in this file.")
    end = _end_of_section(lines, top)
    indent = _indent_of(lines[top + 1 : end])
    start, stop = _place(lines, range(top + 1, end), indent, name, in_list=in_list)
    if any(map(_ANCHOR.search, lines[start:stop])):
        raise UnusableConfig(f"Other parts of this file may refer to an anchor in {name!r}.")
    comment = rest.partition("#")
    lines[top] = f"{section}:" + (f" #{comment[2]}" if comment[1] else "")
    lines[start:stop] = _entry(server, name, indent, in_list=in_list)
    return "\n".join(lines) + "\n"


def _check_style(lines: list[str], section: str) -> None:
    content = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if any(line.startswith(("...", "---")) for line in content[1:]):
        raise UnusableConfig("This file holds several YAML documents.")
    if any(map(_OPEN_QUOTE.search, content)):
        raise UnusableConfig("A text in quotes goes over several lines of this file.")
    if any("\t" in line[: len(line) - len(line.lstrip())] for line in content):
        raise UnusableConfig("This file is indented with tabs, which YAML does not allow.")
    first = next((line for line in content if not line.startswith(("---", "%"))), "a:")
    if not re.match(r"[^\s{\[&*!|>'\"-][^:]*:(?:\s|$)", first):
        raise UnusableConfig("This file is not a YAML mapping in blocks.")
    other_form = re.compile(rf"""["']{re.escape(section)}["']\s*:|{re.escape(section)}\s+:""")
    if any(map(other_form.match, content)):
        raise UnusableConfig(f"{section!r} is not written as a block in this file.")
    if sum(line.startswith(f"{section}:") for line in content) > 1:
        raise UnusableConfig(f"{section!r} is in this file twice.")


def _end_of_section(lines: list[str], top: int) -> int:
    """Return the line after the last one of the block that begins at `top`."""
    end = top + 1
    for at in range(top + 1, len(lines)):
        line = lines[at]
        if not line.strip() or line.startswith("#"):
            continue
        if not line.startswith((" ", "-")):
            break
        end = at + 1
    return end


def _indent_of(block: list[str]) -> str:
    """Return the indentation of the entries in a block."""
    for line in block:
        if line.strip() and not line.lstrip().startswith("#"):
            return line[: len(line) - len(line.lstrip())]
    return "  "


def _place(
    lines: list[str], block: range, indent: str, name: str, *, in_list: bool
) -> tuple[int, int]:
    """Return start and end of the server's lines in a block; its start twice for a new server."""
    for start, stop in _entries(lines, block, indent, in_list=in_list):
        if in_list:
            keys = (line[len(indent) + 2 :] for line in lines[start:stop])
            names = [_STRING.fullmatch(key[5:]) for key in keys if key.startswith("name:")]
        else:
            names = [_KEY.match(lines[start][len(indent) :])]
        if any(_value(each) == name for each in names):
            return start, stop
    return block.start, block.start


def _entries(
    lines: list[str], block: range, indent: str, *, in_list: bool
) -> Iterator[tuple[int, int]]:
    """Yield start and end of each entry; comments and blank lines after one are not in it."""
    start = stop = None
    for at in block:
        line = lines[at]
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        depth = len(line) - len(line.lstrip())
        if depth < len(indent):
            raise UnusableConfig("This file is not indented evenly.")
        if depth == len(indent):
            if line.lstrip().startswith("-") != in_list:
                kind = "a list" if in_list else "a mapping"
                raise UnusableConfig(f"The servers in this file are not {kind}.")
            if start is not None and stop is not None:
                yield start, stop
            start = at
        stop = at + 1
    if start is not None and stop is not None:
        yield start, stop


def _value(match: re.Match[str] | None) -> str | None:
    """Return the value of a string on one line; None for anything else."""
    if match is None:
        return None
    text = match["text"]
    if text.startswith('"'):
        try:
            return str(json.loads(text))
        except ValueError:  # an escape that only YAML has
            return None
    return text.strip("'")


def _entry(server: Mapping[str, Any], name: str, indent: str, *, in_list: bool) -> list[str]:
    if not in_list:
        return [f"{indent}{_key(name)}:", *_mapping(server, indent + "  ")]
    first, *others = _mapping(server, indent + "  ")
    return [f"{indent}- {first.lstrip()}", *others]


def _mapping(values: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield f"{indent}{_key(key)}:"
            yield from _mapping(value, indent + "  ")
        else:  # JSON in a flow style is YAML
            yield f"{indent}{_key(key)}: {json.dumps(value, ensure_ascii=False)}"


def _key(name: str) -> str:
    is_plain = _PLAIN_KEY.fullmatch(name) and name.lower() not in _RESERVED
    return name if is_plain else json.dumps(name, ensure_ascii=False)


def hidden(line: str) -> str:
    """Return a line of a configuration without its value: the name alone."""
    match = _ENTRY_NAME.match(line)
    if match and not match["value"].strip():
        return line
    return f"{match['name']} ***" if match else "***" if line.strip() else line
