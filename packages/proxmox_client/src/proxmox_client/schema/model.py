"""Endpoints of the API, and their lookup by request."""

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any
from urllib.parse import unquote

import msgspec

from proxmox_client.schema.checks import validate
from proxmox_client.schema.indexed import IndexedNames
from proxmox_client.schema.parameter import Parameter


class EndpointFacts(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """A stored endpoint; its parameters are indexes into the pool that all versions share."""

    method: str
    path: str
    parameters: dict[str, int]
    permissions: Any = None
    allows_token: bool = True
    additional: bool = False
    proxied_to: str = ""
    protected: bool = False


class Endpoint:
    """One method of one path: its parameters and required permissions."""

    def __init__(self, facts: EndpointFacts, pool: list[Parameter]) -> None:
        self._facts = facts
        self._pool = pool

    def __repr__(self) -> str:
        return f"<Endpoint {self.method} {self.path}>"

    @property
    def method(self) -> str:
        return self._facts.method

    @property
    def path(self) -> str:
        """The path as a template, like `/nodes/{node}/qemu`."""
        return self._facts.path

    @property
    def permissions(self) -> Any:
        """Who may call: None (root alone), "all", "world", or ["perm", path, privileges]."""
        return self._facts.permissions

    @property
    def allows_token(self) -> bool:
        """Whether an API token may call it; otherwise only a user with a ticket."""
        return self._facts.allows_token

    @property
    def proxied_to(self) -> str:
        """The path parameter with the node that has to answer, or `""`."""
        return self._facts.proxied_to

    @property
    def protected(self) -> bool:
        """Whether pvedaemon handles it, to which pveproxy passes the request."""
        return self._facts.protected

    @cached_property
    def parameters(self) -> Mapping[str, Parameter]:
        """Parameters by name; `net[n]` stands for net0, net1 and so on."""
        return {name: self._pool[index] for name, index in self._facts.parameters.items()}

    @cached_property
    def _indexed(self) -> IndexedNames:
        return IndexedNames(self.parameters)

    def parameter(self, name: str) -> Parameter | None:
        """Return a parameter by name, also by a numbered name like `net0`."""
        return self.parameters.get(name) or self._indexed.find(name)

    def check(self, params: Mapping[str, Any]) -> dict[str, str]:
        """Validate parameters, including those of the path; return the messages by name."""
        return validate(self.parameters, self.parameter, params, additional=self._facts.additional)


class _PathNode:
    """A node of the tree of path segments."""

    def __init__(self) -> None:
        self.literal: dict[str, _PathNode] = {}
        self.named: dict[str, _PathNode] = {}
        self.endpoints: dict[str, Endpoint] = {}


class ApiSchema:
    """All endpoints of one version."""

    def __init__(self, version: str, endpoints: Iterable[Endpoint]) -> None:
        self.version = version
        self.endpoints = tuple(endpoints)
        self._root = _PathNode()
        for endpoint in self.endpoints:
            self._insert(endpoint)

    def find(self, method: str, path: str) -> tuple[Endpoint, dict[str, str]] | None:
        """Find the endpoint of a request; return it with the values in the path, or None."""
        for node, values in _match(self._root, unquote(path).strip("/").split("/")):
            if method in node.endpoints:
                return node.endpoints[method], values
        return None

    def children(self, path: str) -> list[str]:
        """List the literal names below a path in alphabetical order."""
        segments = [segment for segment in path.split("/") if segment]
        names: set[str] = set()
        for node, _ in _match(self._root, segments):
            names.update(node.literal)
        return sorted(names)

    def _insert(self, endpoint: Endpoint) -> None:
        node = self._root
        for segment in endpoint.path.strip("/").split("/"):
            if segment.startswith("{"):
                node = node.named.setdefault(segment[1:-1], _PathNode())
            else:
                node = node.literal.setdefault(segment, _PathNode())
        node.endpoints[endpoint.method] = endpoint


def _match(node: _PathNode, segments: list[str]) -> Iterable[tuple[_PathNode, dict[str, str]]]:
    """Yield every node that a path matches, the most literal match first."""
    if not segments:
        yield node, {}
        return
    first, rest = segments[0], segments[1:]
    if first in node.literal:
        yield from _match(node.literal[first], rest)
    for name, child in node.named.items():
        # a volume ID may contain slashes: local:iso/debian.iso
        value, remaining = ("/".join(segments), []) if name == "volume" else (first, rest)
        for leaf, values in _match(child, remaining):
            yield leaf, {name: value, **values}
