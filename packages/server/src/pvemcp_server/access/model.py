"""Callers, roles, grants and what they reach: plain values, decided without any I/O."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import ClassVar, Final

from pydantic import ConfigDict

ANY: Final = "*"
READS: Final = "*:read"


class Area(StrEnum):
    """Where a tool belongs: its section in documentation and role editor."""

    CLUSTER = "cluster"
    VMS = "vms"
    NODES = "nodes"
    STORAGE = "storage"
    ACCESS = "access"
    QUERY = "query"


class Effect(StrEnum):
    """What a tool does to the cluster."""

    READ = "read"
    WRITE = "write"
    DESTROY = "destroy"  # a write that loses data: asked for confirmation


@dataclass(frozen=True, slots=True)
class Resources:
    """Selects resources of a cluster: all of them, or those that match any of the sets."""

    # a misspelt field must never widen a grant by leaving the right one at its default
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    everything: bool = False
    pools: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    vmids: frozenset[int] = frozenset()
    nodes: frozenset[str] = frozenset()
    storages: frozenset[str] = frozenset()

    def __or__(self, other: "Resources") -> "Resources":
        return Resources(
            self.everything or other.everything,
            self.pools | other.pools,
            self.tags | other.tags,
            self.vmids | other.vmids,
            self.nodes | other.nodes,
            self.storages | other.storages,
        )

    def __and__(self, other: "Resources") -> "Resources":
        """What both cover: a query reads of a table what its own grant and the table's give."""
        if self.everything or other.everything:
            return other if self.everything else self
        return Both(first=self, second=other)

    def __bool__(self) -> bool:
        return self.everything or any(
            (self.pools, self.tags, self.vmids, self.nodes, self.storages)
        )

    def covers_guest(
        self, vmid: int, *, node: str = "", pool: str = "", tags: Iterable[str] = ()
    ) -> bool:
        """A guest is covered by its number, its node, its pool or one of its tags."""
        return (
            self.everything
            or vmid in self.vmids
            or node in self.nodes
            or pool in self.pools
            or not self.tags.isdisjoint(tags)
        )

    def covers_node(self, node: str) -> bool:
        return self.everything or node in self.nodes

    def covers_storage(self, storage: str, *, node: str = "") -> bool:
        """A storage is covered by its name, or by the node when that node is known."""
        return self.everything or storage in self.storages or node in self.nodes

    def covers_pool(self, pool: str) -> bool:
        return self.everything or pool in self.pools


@dataclass(frozen=True, slots=True)
class Both(Resources):
    """What two selections cover alike."""

    first: Resources = field(default_factory=Resources)
    second: Resources = field(default_factory=Resources)

    def __bool__(self) -> bool:
        return bool(self.first) and bool(self.second)

    def covers_guest(
        self, vmid: int, *, node: str = "", pool: str = "", tags: Iterable[str] = ()
    ) -> bool:
        known = tuple(tags)
        return all(
            one.covers_guest(vmid, node=node, pool=pool, tags=known)
            for one in (self.first, self.second)
        )

    def covers_node(self, node: str) -> bool:
        return self.first.covers_node(node) and self.second.covers_node(node)

    def covers_storage(self, storage: str, *, node: str = "") -> bool:
        return self.first.covers_storage(storage, node=node) and self.second.covers_storage(
            storage, node=node
        )

    def covers_pool(self, pool: str) -> bool:
        return self.first.covers_pool(pool) and self.second.covers_pool(pool)


RESOURCE_KINDS: Final = tuple(each.name for each in fields(Resources) if each.name != "everything")
"""The sets by which a grant selects resources: pools, tags, vmids, nodes, storages."""

NOTHING: Final = Resources()
EVERYTHING: Final = Resources(everything=True)


@dataclass(frozen=True, slots=True)
class Grant:
    """Tools × clusters × resources. `tools` and `clusters` hold names, ANY, or (tools) READS."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    tools: frozenset[str]
    clusters: frozenset[str] = frozenset({ANY})
    resources: Resources = EVERYTHING

    def gives(self, tool: str, effect: Effect) -> bool:
        return (
            tool in self.tools
            or ANY in self.tools
            or (effect is Effect.READ and READS in self.tools)
        )

    def reaches(self, cluster: str) -> bool:
        return cluster in self.clusters or ANY in self.clusters


@dataclass(frozen=True, slots=True)
class Role:
    """A named list of grants; what none of them gives is neither listed nor callable."""

    id: int
    name: str
    description: str
    grants: tuple[Grant, ...]
    built_in: bool = False


@dataclass(frozen=True, slots=True)
class Caller:
    """The holder of an API key, with a role.

    `clusters` and `toolset` are the key's own narrowing of its role (ANY narrows nothing; a toolset
    may hold READS, like a grant).
    `identities` maps a cluster's name to the id of the Proxmox identity this caller is bound to
    there; a cluster that is absent uses its default identity.
    """

    key_id: str
    key_name: str
    role: Role
    clusters: frozenset[str] = frozenset({ANY})
    toolset: frozenset[str] = frozenset({ANY})
    identities: Mapping[str, int] = field(default_factory=dict)
    output_format: str | None = None
    address: str = ""
    version: str = ""  # changes whenever anything above does: the cache key of derived lists

    def may_call(self, tool: str, effect: Effect) -> bool:
        """Whether the tool is granted on any cluster at all: what tools/list shows."""
        return self._in_toolset(tool, effect) and any(
            g.gives(tool, effect) for g in self.role.grants
        )

    def resources(self, tool: str, effect: Effect, cluster: str) -> Resources:
        """What of `cluster` the caller may touch with `tool`; NOTHING when it is not granted."""
        if not self._in_toolset(tool, effect) or not self._in_clusters(cluster):
            return NOTHING
        found = NOTHING
        for grant in self.role.grants:
            if grant.gives(tool, effect) and grant.reaches(cluster):
                found = found | grant.resources
        return found

    def _in_toolset(self, tool: str, effect: Effect) -> bool:
        return Grant(self.toolset).gives(tool, effect)

    def _in_clusters(self, cluster: str) -> bool:
        return ANY in self.clusters or cluster in self.clusters
