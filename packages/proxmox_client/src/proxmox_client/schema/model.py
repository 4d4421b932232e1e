"""What is known of an endpoint and of its parameters."""

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any
from urllib.parse import unquote

import msgspec

from proxmox_client.schema.checks import errors_of
from proxmox_client.schema.indexed import IndexedNames
from proxmox_client.schema.parameter import Parameter


class EndpointFacts(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """An endpoint as stored: its parameters are places in the pool all versions share."""

    method: str
    path: str
    parameters: dict[str, int]
    permissions: Any = None
    allows_token: bool = True
    additional: bool = False
    proxied_to: str = ""
    protected: bool = False


class Endpoint:
    """One method of one path, with what it accepts and whom it serves."""

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
        """Whether an API token may call it, or only a signed-in user."""
        return self._facts.allows_token

    @property
    def additional_properties(self) -> bool:
        """Whether parameters that are not listed are accepted."""
        return self._facts.additional

    @property
    def proxied_to(self) -> str:
        """The path parameter that names the node which must answer, or nothing."""
        return self._facts.proxied_to

    @cached_property
    def parameters(self) -> Mapping[str, Parameter]:
        """Parameters by name; `net[n]` stands for net0, net1 and so on."""
        return {name: self._pool[place] for name, place in self._facts.parameters.items()}

    @cached_property
    def _indexed(self) -> IndexedNames:
        return IndexedNames(self.parameters)

    def parameter(self, name: str) -> Parameter | None:
        """The parameter of this name, numbered ones included."""
        return self.parameters.get(name) or self._indexed.find(name)

    def check(self, params: Mapping[str, Any]) -> dict[str, str]:
        """What is wrong with these parameters, by name; those of the path belong to them."""
        return errors_of(self.parameters, self.parameter, params, additional=self._facts.additional)


class _Place:
    """A segment of the path tree."""

    def __init__(self) -> None:
        self.literal: dict[str, _Place] = {}
        self.named: dict[str, _Place] = {}
        self.endpoints: dict[str, Endpoint] = {}


class ApiSchema:
    """All endpoints of one version, found by request."""

    def __init__(self, version: str, endpoints: Iterable[Endpoint]) -> None:
        self.version = version
        self.endpoints = tuple(endpoints)
        self._root = _Place()
        for endpoint in self.endpoints:
            self._plant(endpoint)

    def find(self, method: str, path: str) -> tuple[Endpoint, dict[str, str]] | None:
        """The endpoint that answers this request, with the values its path carries."""
        for place, values in _reach(self._root, unquote(path).strip("/").split("/")):
            if method in place.endpoints:
                return place.endpoints[method], values
        return None

    def children(self, path: str) -> list[str]:
        """The literal names below a path, in order."""
        segments = [segment for segment in path.split("/") if segment]
        names: set[str] = set()
        for place, _ in _reach(self._root, segments):
            names.update(place.literal)
        return sorted(names)

    def _plant(self, endpoint: Endpoint) -> None:
        place = self._root
        for segment in endpoint.path.strip("/").split("/"):
            if segment.startswith("{"):
                place = place.named.setdefault(segment[1:-1], _Place())
            else:
                place = place.literal.setdefault(segment, _Place())
        place.endpoints[endpoint.method] = endpoint


def _reach(place: _Place, segments: list[str]) -> Iterable[tuple[_Place, dict[str, str]]]:
    """Every place a path leads to, the most literal one first."""
    if not segments:
        yield place, {}
        return
    first, rest = segments[0], segments[1:]
    if first in place.literal:
        yield from _reach(place.literal[first], rest)
    for name, next_place in place.named.items():
        # A volume's name may hold slashes: local:iso/debian.iso
        taken, left = ("/".join(segments), []) if name == "volume" else (first, rest)
        for found, values in _reach(next_place, left):
            yield found, {name: taken, **values}
