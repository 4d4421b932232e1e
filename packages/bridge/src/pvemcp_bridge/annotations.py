"""Tool annotations, collected from the tool lists that pass through the bridge.

The bridge needs two facts about a tool: which arguments are also sent as HTTP headers
(`x-mcp-header`), and whether a call may be retried (`readOnlyHint`, `idempotentHint`).
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pvemcp_bridge import jsontext
from pvemcp_bridge.jsontext import as_object
from pvemcp_bridge.messages import Message

__all__ = ["MOST_PAGES", "HeaderMap", "ToolAnnotations", "header_map", "remove_tools"]

HeaderMap = Mapping[tuple[str, ...], str]
"""The path of an argument and the name of its header."""

MOST_PAGES = 100  # of a tool list that the bridge fetches itself
_KEY = "x-mcp-header"
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TYPES = ("string", "integer", "boolean")
# JSON Schema keywords that hold a schema, a list of schemas and schemas by name; `default` and
# similar keywords hold data
_SCHEMA_KEYWORDS = (
    "items", "contains", "additionalProperties", "unevaluatedItems", "unevaluatedProperties",
    "propertyNames", "contentSchema", "not", "if", "then", "else",
)  # fmt: skip
_LIST_KEYWORDS = ("allOf", "anyOf", "oneOf", "prefixItems")
_MAP_KEYWORDS = ("patternProperties", "dependentSchemas", "$defs", "definitions")


class ToolAnnotations:
    """Annotations of the tools listed so far."""

    def __init__(self) -> None:
        self._headers: dict[str, HeaderMap] = {}
        self._idempotent: dict[str, bool] = {}

    def record(self, tools: Any) -> dict[str, str]:
        """Record the annotations of a tool list; return the invalid tools, each with the reason."""
        invalid: dict[str, str] = {}
        for tool in tools if isinstance(tools, list) else ():
            if (name := _name(tool)) is None:
                continue
            hints = as_object(tool.get("annotations"))
            self._idempotent[name] = (
                hints.get("readOnlyHint") is True or hints.get("idempotentHint") is True
            )
            try:
                self._headers[name] = header_map(tool.get("inputSchema"))
            except ValueError as error:
                self._headers.pop(name, None)
                invalid[name] = str(error)
        return invalid

    def headers(self, name: object) -> HeaderMap:
        """Return the arguments of a tool that are also sent as headers."""
        return self._headers.get(name, {}) if isinstance(name, str) else {}

    def is_idempotent(self, name: object) -> bool:
        """Return whether a second call does no harm; of an unknown tool assume that it does."""
        return isinstance(name, str) and self._idempotent.get(name, False)


def remove_tools(listing: Message, names: Collection[str]) -> Message:
    """Return a tool list without these tools; the text of the others stays unchanged."""
    result = jsontext.member(listing.text, "result") or "{}"
    tools = listing.result["tools"]
    texts = jsontext.elements(jsontext.member(result, "tools") or "[]")
    kept = [text for text, tool in zip(texts, tools, strict=True) if _name(tool) not in names]
    result = jsontext.with_member(result, "tools", f"[{','.join(kept)}]")
    text = jsontext.with_member(listing.text, "result", result)
    return Message(text, jsontext.parse(text), listing.kind)


def header_map(schema: Any) -> HeaderMap:
    """Return the arguments of an input schema that are also sent as headers.

    Raise ValueError with the reason when one of the annotations is invalid.
    """
    headers: dict[tuple[str, ...], str] = {}
    for path, node in _schemas(schema):
        if _KEY not in node:
            continue
        if not path:
            raise ValueError(f"{_KEY} is only allowed on a plain argument")
        name, argument = node[_KEY], ".".join(path)
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise ValueError(f"{_KEY} of {argument} is not a header name")
        if node.get("type") not in _TYPES:
            raise ValueError(f"{_KEY} of {argument} needs a string, integer or boolean")
        if name.lower() in map(str.lower, headers.values()):
            raise ValueError(f"{_KEY} {name!r} is used twice")
        headers[path] = name
    return headers


def _schemas(schema: Any) -> Iterator[tuple[tuple[str, ...] | None, Mapping[str, Any]]]:
    """Yield a schema and all schemas inside it, each with its path.

    The path consists of property names and is None below any other keyword, for such a schema
    describes no single argument. The walk uses a stack: a schema may be nested deeply.
    """
    path: tuple[str, ...] | None
    stack: list[tuple[tuple[str, ...] | None, Any]] = [((), schema)]
    while stack:
        path, node = stack.pop()
        if not isinstance(node, dict):
            continue
        yield path, node
        for name, child in as_object(node.get("properties")).items():
            stack.append((None if path is None else (*path, name), child))
        stack.extend((None, node.get(keyword)) for keyword in _SCHEMA_KEYWORDS)
        for keyword in _LIST_KEYWORDS:
            children = node.get(keyword)
            stack.extend(
                (None, child) for child in (children if isinstance(children, list) else ())
            )
        for keyword in _MAP_KEYWORDS:
            stack.extend((None, child) for child in as_object(node.get(keyword)).values())


def _name(tool: Any) -> str | None:
    name = as_object(tool).get("name")
    return name if isinstance(name, str) else None
