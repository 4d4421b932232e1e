"""Derive the stored schema of the Proxmox VE API from the published schemas.

python scripts/make_schema.py FOLDER     the folder holds apidoc-8.4.json, apidoc-9.0.json …

It keeps names, types, enumerations, formats and limits, and drops descriptions.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from proxmox_client import schema
from proxmox_client.schema import facts
from proxmox_client.schema.model import EndpointFacts
from proxmox_client.schema.parameter import Parameter

TARGET = Path(schema.__file__).with_name(facts.FILE)


class Pool:
    """Distinct values in order of insertion."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._indexes: dict[bytes, int] = {}

    def index(self, value: Any) -> int:
        """Return the index of a value, and add it if it is new."""
        key = msgspec.msgpack.encode(value)
        if key not in self._indexes:
            self._indexes[key] = len(self.values)
            self.values.append(value)
        return self._indexes[key]


def main() -> None:
    """Read the published schemas and write the file of the package."""
    folder = Path(sys.argv[1])
    parameters, endpoints = Pool(), Pool()
    versions = {}
    for version in facts.VERSIONS:
        tree = json.loads((folder / f"apidoc-{version}.json").read_text())
        stored = [endpoint_facts(info, path, parameters) for path, info in methods(tree)]
        versions[version] = [endpoints.index(endpoint) for endpoint in stored]
        print(f"{version}: {len(stored)} endpoints")
    TARGET.write_bytes(facts.pack(facts.Facts(parameters.values, endpoints.values, versions)))
    print(f"{len(parameters.values)} parameters, {len(endpoints.values)} endpoints,", end=" ")
    print(f"{TARGET.stat().st_size} bytes")


def methods(tree: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every method of every path."""
    for node in tree:
        for info in (node.get("info") or {}).values():
            yield node["path"], info
        yield from methods(node.get("children", []))


def endpoint_facts(info: dict[str, Any], path: str, parameters: Pool) -> EndpointFacts:
    properties = info["parameters"].get("properties") or {}
    return EndpointFacts(
        method=info["method"],
        path=path,
        parameters={
            name: parameters.index(parameter(facts_of))
            for name, facts_of in sorted(properties.items())
        },
        permissions=permissions(info.get("permissions")),
        allows_token=bool(info.get("allowtoken", 1)),
        additional=bool(properties) and info["parameters"].get("additionalProperties") != 0,
        proxied_to=info.get("proxyto") or "",
        protected=bool(info.get("protected")),
    )


def permissions(published: dict[str, Any] | None) -> Any:
    if published is None:
        return None
    return published.get("check") or published.get("user")


def parameter(published: dict[str, Any]) -> Parameter:
    shape = published.get("format")
    requires = published.get("requires")
    return Parameter(
        type=published.get("type", "string"),
        optional=bool(published.get("optional")),
        enum=tuple(str(value) for value in published.get("enum") or ()),
        minimum=number(published.get("minimum")),
        maximum=number(published.get("maximum")),
        min_length=length(published.get("minLength")),
        max_length=length(published.get("maxLength")),
        pattern=python_pattern(published.get("pattern")),
        format=shape if isinstance(shape, str) else None,
        parts=parts(shape) if isinstance(shape, dict) else None,
        default=default(published.get("default")),
        requires=requires if isinstance(requires, str) else None,
        is_default_key=bool(published.get("default_key")),
        alias=published.get("alias"),
        key_alias=published.get("keyAlias"),
        items=parameter(published["items"]) if published.get("items") else None,
        one_of=tuple(parameter(choice) for choice in published.get("oneOf") or ()),
    )


def parts(shape: dict[str, Any]) -> dict[str, Parameter]:
    return {name: parameter(part) for name, part in sorted(shape.items())}


def number(published: Any) -> float | None:
    return None if published is None else float(published)


def length(published: Any) -> int | None:
    return None if published is None else int(published)


def default(published: Any) -> Any:
    """Return a default value; drop a default that is a sentence about the value."""
    is_sentence = isinstance(published, str) and " " in published
    return None if is_sentence else published


def python_pattern(pattern: str | None) -> str | None:
    """Convert a Perl pattern to Python's syntax."""
    if pattern is None:
        return None
    # (?^u:…) in Perl is (?:…) here: Python has no caret, and patterns of text are always Unicode
    converted = re.sub(r"\(\?\^([a-z]*):", lambda match: f"(?{match[1].replace('u', '')}:", pattern)
    re.compile(converted)
    return converted


if __name__ == "__main__":
    main()
