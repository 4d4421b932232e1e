"""Resources: each `pve://…` URI is read by a tool."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, unquote

import mcp_types as types

from pvemcp_server.access.model import Caller
from pvemcp_server.toolkit.registry import Tool
from pvemcp_server.views.catalog import MIME_TYPE, View

JSON: Final = "application/json"
PLAIN: Final = "text/plain"


@dataclass(frozen=True)
class ResourceFamily:
    """A family of URIs and the tool that reads them; slots are the `{names}` in the template."""

    template: str
    name: str
    title: str
    tool: str
    arguments: Mapping[str, str]  # of the tool, by the slot that fills each
    as_list: bool = False  # the argument takes a list

    @property
    def slots(self) -> list[str]:
        return re.findall(r"{(\w+)}", self.template)

    def match(self, uri: str) -> dict[str, str] | None:
        """Return the slots' values in a URI of this family; None for another URI."""
        pattern = re.sub(r"{(\w+)}", r"(?P<\1>[^/?#]+)", self.template)
        match = re.fullmatch(pattern, uri)
        return {n: unquote(v) for n, v in match.groupdict().items()} if match else None

    def uri(self, **values: str) -> str:
        """Return the URI with these values in its slots."""
        return self.template.format(**{n: quote(v, safe="") for n, v in values.items()})

    def call_arguments(self, values: Mapping[str, str]) -> dict[str, Any]:
        """Return the arguments of the tool for these slots."""
        filled = {argument: values[slot] for argument, slot in self.arguments.items()}
        return {n: [v] if self.as_list else v for n, v in filled.items()} | {"format": "JsonNormal"}


_CLUSTER: Final = {"cluster_name": "cluster"}
CLUSTERS: Final = ResourceFamily("pve://clusters", "clusters", "All clusters", "ListClusters", {})
CLUSTER: Final = ResourceFamily(
    "pve://clusters/{cluster}", "cluster", "Status of a cluster", "GetClusterStatus", _CLUSTER
)
FAMILIES: Final = (
    CLUSTERS,
    CLUSTER,
    ResourceFamily(
        "pve://clusters/{cluster}/nodes/{node}",
        "node",
        "Status of a node",
        "GetNodeStatus",
        {**_CLUSTER, "node": "node"},
    ),
    ResourceFamily(
        "pve://clusters/{cluster}/guests/{vmid}",
        "guest",
        "Live status of a guest",
        "GetVmStatus",
        {**_CLUSTER, "vmid": "vmid"},
    ),
    ResourceFamily(
        "pve://clusters/{cluster}/guests/{vmid}/config",
        "guest-config",
        "Configuration of a guest",
        "GetVmConfig",
        {**_CLUSTER, "vmid": "vmid"},
    ),
    ResourceFamily("pve://schema", "schema", "Tables that can be queried", "GetQuerySchema", {}),
    ResourceFamily(
        "pve://schema/{table}",
        "table",
        "Fields of a table",
        "GetQuerySchema",
        {"tables": "table"},
        as_list=True,
    ),
)


def find(uri: str) -> tuple[ResourceFamily, dict[str, str]] | None:
    """Return the family of a URI and the values of its slots; None for an unknown URI."""
    for family in FAMILIES:
        values = family.match(uri)
        if values is not None:
            return family, values
    return None


def families_for(caller: Caller, tools: Mapping[str, Tool]) -> list[ResourceFamily]:
    """Return the families whose tool the caller may call."""
    return [
        family
        for family in FAMILIES
        if family.tool in tools and caller.may_call(tools[family.tool])
    ]


def fixed_resources(families: list[ResourceFamily], clusters: list[str]) -> list[types.Resource]:
    """Return the URIs without slots, and one for each cluster."""
    fixed = [resource(each, each.template, each.title) for each in families if not each.slots]
    if CLUSTER not in families:
        return fixed
    return fixed + [
        resource(CLUSTER, CLUSTER.uri(cluster=name), f"Status of cluster {name}", f"cluster {name}")
        for name in clusters
    ]


def resource(family: ResourceFamily, uri: str, title: str, name: str = "") -> types.Resource:
    """Return a resource as clients see it."""
    return types.Resource(
        uri=uri, name=name or family.name, title=title, description=title, mime_type=JSON
    )


def of_view(view: View) -> types.Resource:
    """Return a view as clients see it."""
    return types.Resource(uri=view.uri, name=view.name, title=view.title, mime_type=MIME_TYPE)


def view_contents(view: View) -> types.TextResourceContents:
    """Return the page of a view; it needs nothing from any other origin."""
    meta = {"ui": {"prefersBorder": True}}
    return types.TextResourceContents(uri=view.uri, mime_type=MIME_TYPE, text=view.html, _meta=meta)


def templates(families: list[ResourceFamily]) -> list[types.ResourceTemplate]:
    """Return the URIs with slots as templates."""
    return [
        types.ResourceTemplate(
            uri_template=family.template,
            name=family.name,
            title=family.title,
            description=family.title,
            mime_type=JSON,
        )
        for family in families
        if family.slots
    ]
