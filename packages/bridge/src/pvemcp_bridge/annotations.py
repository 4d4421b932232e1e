"""What the lists of tools that pass by say about tools.

Two things matter to the carrier: which arguments travel as headers too (`x-mcp-header`), and which
tools may be called twice without harm.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pvemcp_bridge import jsontext
from pvemcp_bridge.messages import Message

__all__ = ["HeaderMap", "Tools", "header_map", "without"]

HeaderMap = Mapping[tuple[str, ...], str]

_KEY = "x-mcp-header"
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TYPES = ("string", "integer", "boolean")
# the JSON Schema keywords under which further schemas stand; `default` and the like hold data
_ONE = (
    "items", "contains", "additionalProperties", "unevaluatedItems", "unevaluatedProperties",
    "propertyNames", "contentSchema", "not", "if", "then", "else",
)  # fmt: skip
_MANY = ("allOf", "anyOf", "oneOf", "prefixItems")
_NAMED = ("patternProperties", "dependentSchemas", "$defs", "definitions")


class Tools:
    """The tools seen so far."""

    def __init__(self) -> None:
        self._headers: dict[str, HeaderMap] = {}
        self._repeatable: dict[str, bool] = {}

    def learn(self, tools: Any) -> dict[str, str]:
        """Notes what a list says; the answer names the tools that may not be offered, and why."""
        invalid: dict[str, str] = {}
        for tool in tools if isinstance(tools, list) else ():
            if (name := _name(tool)) is None:
                continue
            self._repeatable[name] = _repeatable(tool.get("annotations"))
            try:
                self._headers[name] = header_map(tool.get("inputSchema"))
            except ValueError as why:
                self._headers.pop(name, None)
                invalid[name] = str(why)
        return invalid

    def headers(self, name: object) -> HeaderMap:
        """The arguments of a tool that travel as headers too."""
        return self._headers.get(name, {}) if isinstance(name, str) else {}

    def repeatable(self, name: object) -> bool:
        """Whether a second call does no harm; an unknown tool might."""
        return isinstance(name, str) and self._repeatable.get(name, False)


def without(listing: Message, dropped: Collection[str]) -> Message:
    """A list of tools without those that may not be offered; the others as they were written."""
    result = jsontext.member(listing.text, "result") or "{}"
    tools = listing.result["tools"]
    texts = jsontext.elements(jsontext.member(result, "tools") or "[]")
    kept = [text for text, tool in zip(texts, tools, strict=True) if _name(tool) not in dropped]
    result = jsontext.with_member(result, "tools", f"[{','.join(kept)}]")
    text = jsontext.with_member(listing.text, "result", result)
    return Message(text, jsontext.parse(text), listing.kind)


def _name(tool: Any) -> str | None:
    name = _mapping(tool).get("name")
    return name if isinstance(name, str) else None


def _repeatable(annotations: Any) -> bool:
    if not isinstance(annotations, dict):
        return False
    return annotations.get("readOnlyHint") is True or annotations.get("idempotentHint") is True


def header_map(schema: Any) -> HeaderMap:
    """The annotated arguments of an input schema, or ValueError with what is wrong with one."""
    found: dict[tuple[str, ...], str] = {}
    for path, node in _schemas((), schema):
        if _KEY in node:
            name = _checked(path, node)
            if name.lower() in (other.lower() for other in found.values()):
                raise ValueError(f"{_KEY} {name!r} stands twice")
            found[path or ()] = name
    return found


def _checked(path: tuple[str, ...] | None, node: Mapping[str, Any]) -> str:
    name = node[_KEY]
    if not path:
        raise ValueError(f"{_KEY} stands elsewhere than on a plain argument")
    if not isinstance(name, str) or not _TOKEN.fullmatch(name):
        raise ValueError(f"{_KEY} of {'.'.join(path)} is no header name")
    if node.get("type") not in _TYPES:
        raise ValueError(f"{_KEY} of {'.'.join(path)} needs a string, integer or boolean")
    return name


def _schemas(
    path: tuple[str, ...] | None, schema: Any
) -> Iterator[tuple[tuple[str, ...] | None, Mapping[str, Any]]]:
    """Every schema inside a schema; the path is None off the chain of plain properties."""
    waiting = [(path, schema)]
    while waiting:
        here, node = waiting.pop()
        if not isinstance(node, dict):
            continue
        yield here, node
        for name, child in _mapping(node.get("properties")).items():
            waiting.append((None if here is None else (*here, name), child))
        waiting.extend((None, child) for child in _off_chain(node))


def _off_chain(node: Mapping[str, Any]) -> Iterator[Any]:
    for keyword in _ONE:
        yield node.get(keyword)
    for keyword in _MANY:
        children = node.get(keyword)
        yield from children if isinstance(children, list) else ()
    for keyword in _NAMED:
        yield from _mapping(node.get(keyword)).values()


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
