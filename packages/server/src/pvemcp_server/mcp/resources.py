"""Things to look at by address: `pve://…` reads what the tool behind it answers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, unquote

import mcp_types as types

from pvemcp_server.access.model import Caller
from pvemcp_server.toolkit.registry import Tool

JSON: Final = "application/json"
PLAIN: Final = "text/plain"


@dataclass(frozen=True)
class Place:
    """A family of addresses and the tool that reads them; slots are `{names}` of arguments."""

    template: str
    name: str
    title: str
    tool: str
    arguments: Mapping[str, str]  # of the tool, by the slot that fills each
    listed: bool = False  # an argument that takes a list

    @property
    def slots(self) -> list[str]:
        return re.findall(r"{(\w+)}", self.template)

    def match(self, uri: str) -> dict[str, str] | None:
        """The slots' values in an address of this family."""
        pattern = re.sub(r"{(\w+)}", r"(?P<\1>[^/?#]+)", self.template)
        found = re.fullmatch(pattern, uri)
        return {n: unquote(v) for n, v in found.groupdict().items()} if found else None

    def uri(self, **values: str) -> str:
        return self.template.format(**{n: quote(v, safe="") for n, v in values.items()})

    def question(self, values: Mapping[str, str]) -> dict[str, Any]:
        """The arguments of the tool."""
        given = {argument: values[slot] for argument, slot in self.arguments.items()}
        return {n: [v] if self.listed else v for n, v in given.items()} | {"format": "JsonNormal"}


_CLUSTER: Final = {"cluster_name": "cluster"}
CLUSTERS: Final = Place("pve://clusters", "clusters", "All clusters", "ListClusters", {})
CLUSTER: Final = Place(
    "pve://clusters/{cluster}", "cluster", "Status of a cluster", "GetClusterStatus", _CLUSTER
)
PLACES: Final = (
    CLUSTERS,
    CLUSTER,
    Place(
        "pve://clusters/{cluster}/nodes/{node}",
        "node",
        "Status of a node",
        "GetNodeStatus",
        {**_CLUSTER, "node": "node"},
    ),
    Place(
        "pve://clusters/{cluster}/guests/{vmid}",
        "guest",
        "Live status of a guest",
        "GetVmStatus",
        {**_CLUSTER, "vmid": "vmid"},
    ),
    Place(
        "pve://clusters/{cluster}/guests/{vmid}/config",
        "guest-config",
        "Configuration of a guest",
        "GetVmConfig",
        {**_CLUSTER, "vmid": "vmid"},
    ),
    Place("pve://schema", "schema", "Tables that can be queried", "GetQuerySchema", {}),
    Place(
        "pve://schema/{table}",
        "table",
        "Fields of a table",
        "GetQuerySchema",
        {"tables": "table"},
        listed=True,
    ),
)


def find(uri: str) -> tuple[Place, dict[str, str]] | None:
    """The family an address belongs to, and what it names."""
    for place in PLACES:
        values = place.match(uri)
        if values is not None:
            return place, values
    return None


def open_to(caller: Caller, tools: Mapping[str, Tool]) -> list[Place]:
    """The families whose tool the caller may call."""
    return [
        place
        for place in PLACES
        if place.tool in tools and caller.may_call(place.tool, tools[place.tool].effect)
    ]


def listed(places: list[Place], clusters: list[str]) -> list[types.Resource]:
    """Addresses without slots, and one for each cluster."""
    plain = [resource(place, place.template, place.title) for place in places if not place.slots]
    if CLUSTER not in places:
        return plain
    return plain + [
        resource(CLUSTER, CLUSTER.uri(cluster=name), f"Status of cluster {name}", f"cluster {name}")
        for name in clusters
    ]


def resource(place: Place, uri: str, title: str, name: str = "") -> types.Resource:
    return types.Resource(
        uri=uri, name=name or place.name, title=title, description=title, mime_type=JSON
    )


def templates(places: list[Place]) -> list[types.ResourceTemplate]:
    return [
        types.ResourceTemplate(
            uri_template=place.template,
            name=place.name,
            title=place.title,
            description=place.title,
            mime_type=JSON,
        )
        for place in places
        if place.slots
    ]
