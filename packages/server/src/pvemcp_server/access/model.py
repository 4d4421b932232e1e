"""Callers, roles, grants and resources: plain values that are evaluated without I/O."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import ClassVar, Final, Protocol, Self

from pydantic import ConfigDict

ANY: Final = "*"
READS: Final = "*:read"
EXTERNAL: Final = "jwt-"  # begins the id of a token of an external authorization server
NAMED_ONLY: Final = frozenset({"FindApi", "CallApi", "ReadGuestFile"})
"""Tools that READS does not include: a grant names them, or gives ANY tool."""


class Toolset(StrEnum):
    """A set of tools that few clients need: they are listed, and callable, with keys that have it.

    It saves the tokens of tools/list and is no right: the role decides about that, and about the
    rows that a query reads.
    """

    description: str

    def __new__(cls, name: str, description: str) -> Self:
        """Create the member with its description."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.description = description
        return member

    API = "api", "read and change what no other tool does, by Proxmox's API"
    MAINTENANCE = "maintenance", "empty nodes, grow and move disks, stop tasks, unlock guests"
    CONTENT = "content", "download and delete ISO images, delete other files of storages"
    LIFECYCLE = (
        "lifecycle",
        "attach, detach disks, show what is in backups, restore them, delete guests",
    )
    CREATE = "create", "create VMs and containers without a guest to clone"
    AGENT = "agent", "run programs and read files inside of VMs by their guest agent"


class Area(StrEnum):
    """The area of a tool: its section in the documentation and the role editor."""

    CLUSTER = "cluster"
    VMS = "vms"
    NODES = "nodes"
    STORAGE = "storage"
    ACCESS = "access"
    QUERY = "query"


class Effect(StrEnum):
    """The effect of a tool on the cluster."""

    READ = "read"
    WRITE = "write"
    DESTROY = "destroy"  # a write that always loses data; some plans of WRITE do, and ask as well


class DeclaredTool(Protocol):
    """A tool, as far as access decides about it."""

    @property
    def name(self) -> str:
        """The name that grants use."""

    @property
    def effect(self) -> Effect:
        """The effect on the cluster."""

    @property
    def toolset(self) -> Toolset | None:
        """The set that a key needs for it; None if no key needs any."""


@dataclass(frozen=True, slots=True)
class Resources:
    """A selection of a cluster's resources: everything, or what matches any of the sets.

    The target sets select nothing that can be read. They add to the nodes that guests may be moved
    to, and to the storages that backups and disks of guests may be written to.
    """

    # a misspelt field must never widen a grant by leaving the correct one at its default
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    everything: bool = False
    pools: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    vmids: frozenset[int] = frozenset()
    nodes: frozenset[str] = frozenset()
    storages: frozenset[str] = frozenset()
    target_nodes: frozenset[str] = frozenset()
    target_storages: frozenset[str] = frozenset()

    def __or__(self, other: "Resources") -> "Resources":
        return Resources(
            self.everything or other.everything,
            self.pools | other.pools,
            self.tags | other.tags,
            self.vmids | other.vmids,
            self.nodes | other.nodes,
            self.storages | other.storages,
            self.target_nodes | other.target_nodes,
            self.target_storages | other.target_storages,
        )

    def __and__(self, other: "Resources") -> "Resources":
        """Return what both cover: a query reads what both its own and the table's grant cover."""
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
        """Return whether the VMID, the node, the pool or one of the tags is selected.

        A pool covers the pools below it, as it does in Proxmox's own ACL.
        """
        return (
            self.everything
            or vmid in self.vmids
            or node in self.nodes
            or self.names_pool(pool)
            or not self.tags.isdisjoint(tags)
        )

    def covers_node(self, node: str) -> bool:
        """Return whether the node is selected."""
        return self.everything or node in self.nodes

    def covers_storage(self, storage: str, *, node: str = "") -> bool:
        """Return whether the storage is selected, or the node it is on."""
        return self.everything or storage in self.storages or node in self.nodes

    def covers_target_node(self, node: str) -> bool:
        """Return whether a guest may be moved to the node; ANY among the targets is every node."""
        return self.covers_node(node) or not self.target_nodes.isdisjoint((node, ANY))

    def covers_target_storage(self, storage: str, *, node: str) -> bool:
        """Return whether a write for a guest may fill the storage; ANY is every storage."""
        return self.covers_storage(storage, node=node) or not self.target_storages.isdisjoint(
            (storage, ANY)
        )

    def covers_pool(self, pool: str) -> bool:
        """Return whether the pool or one above it is selected: `prod` covers `prod/web`."""
        return self.everything or self.names_pool(pool)

    def names_pool(self, pool: str) -> bool:
        """Return whether the pool or one above it is among the pools."""
        if not self.pools or not pool:
            return False
        parts = pool.split("/")
        return any("/".join(parts[:end]) in self.pools for end in range(len(parts), 0, -1))


@dataclass(frozen=True, slots=True)
class Both(Resources):
    """The intersection of two selections."""

    first: Resources = field(default_factory=Resources)
    second: Resources = field(default_factory=Resources)

    def __bool__(self) -> bool:
        return bool(self.first) and bool(self.second)

    def covers_guest(
        self, vmid: int, *, node: str = "", pool: str = "", tags: Iterable[str] = ()
    ) -> bool:
        tags = tuple(tags)  # an iterator could be read only once
        return all(
            part.covers_guest(vmid, node=node, pool=pool, tags=tags)
            for part in (self.first, self.second)
        )

    def covers_node(self, node: str) -> bool:
        return self.first.covers_node(node) and self.second.covers_node(node)

    def covers_storage(self, storage: str, *, node: str = "") -> bool:
        return self.first.covers_storage(storage, node=node) and self.second.covers_storage(
            storage, node=node
        )

    def covers_target_node(self, node: str) -> bool:
        return self.first.covers_target_node(node) and self.second.covers_target_node(node)

    def covers_target_storage(self, storage: str, *, node: str) -> bool:
        return self.first.covers_target_storage(
            storage, node=node
        ) and self.second.covers_target_storage(storage, node=node)

    def covers_pool(self, pool: str) -> bool:
        return self.first.covers_pool(pool) and self.second.covers_pool(pool)


RESOURCE_KINDS: Final = tuple(each.name for each in fields(Resources) if each.name != "everything")
"""The sets of a grant: pools, tags, vmids, nodes, storages, target_nodes, target_storages."""

NOTHING: Final = Resources()
EVERYTHING: Final = Resources(everything=True)


GUEST_LISTS: Final[Mapping[str, str]] = {
    "programs": "ExecInGuest may run it in the guests: its exact name or path",
    "files": "ReadGuestFile may read it in the guests: a path, or a folder with / or \\ at its end",
}
"""The allow-lists of a grant with what an entry means. Nothing stands for everything in them."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Tools × clusters × resources. `tools` and `clusters` hold names, ANY, or (tools) READS.

    `programs` and `files` are the allow-lists of GUEST_LISTS, for the guests of `resources`.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    tools: frozenset[str]
    clusters: frozenset[str] = frozenset({ANY})
    resources: Resources = EVERYTHING
    programs: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()

    def gives(self, tool: str, effect: Effect) -> bool:
        """Return whether the grant includes the tool."""
        return (
            tool in self.tools
            or ANY in self.tools
            or (effect is Effect.READ and READS in self.tools and tool not in NAMED_ONLY)
        )

    def reaches(self, cluster: str) -> bool:
        """Return whether the grant includes the cluster."""
        return cluster in self.clusters or ANY in self.clusters

    def gives_all_of(self, other: "Grant") -> bool:
        """Return whether it gives all tools, programs and files that another grant does."""
        has_tools = ANY in self.tools or other.tools <= self.tools
        return has_tools and other.programs <= self.programs and other.files <= self.files


@dataclass(frozen=True, slots=True)
class Role:
    """A named list of grants; a tool that none of them includes is neither listed nor callable."""

    id: int
    name: str
    description: str
    grants: tuple[Grant, ...]
    built_in: bool = False


@dataclass(frozen=True, slots=True)
class _Permission:
    """A tool's permission to write, which is granted like a tool."""

    name: str
    effect: Effect = Effect.WRITE
    toolset: Toolset | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """The holder of an API key, or a person's connection, with a role.

    `clusters` and `tools` restrict the role further (ANY restricts nothing; `tools` may hold READS,
    like a grant). `toolsets` names the sets of rare tools that are listed as well.
    `identities` maps the name of a cluster to the id of the Proxmox identity that this caller is
    bound to; on a cluster without an entry it uses the default identity.
    `holder` is whose limits it counts for: the user of a connection, whose other connections count
    for the same ones, or else the key.
    """

    key_id: str
    key_name: str
    role: Role
    clusters: frozenset[str] = frozenset({ANY})
    tools: frozenset[str] = frozenset({ANY})
    toolsets: frozenset[str] = frozenset()
    identities: Mapping[str, int] = field(default_factory=dict)
    output_format: str | None = None
    unattended: str | None = None  # what becomes of calls that need consent, without asking
    address: str = ""
    digest: bytes = field(default=b"", repr=False)  # of the key's secret
    person: str = ""  # whose connection it is
    client: str = ""  # the user and the client of a connection, whichever of theirs it is
    scopes: frozenset[str] | None = None  # of the access token that was presented; None for a key
    token: str = ""  # the id of that access token
    acting: str = ""  # the administrator who calls with these rights; no client can set it
    version: str = ""  # a digest of the permissions above, the cache key of derived lists
    holder: str = ""
    _resources: dict[tuple[str, Effect, str], Resources] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """A cache: nothing above changes, and a copy by `replace` begins with an empty one."""

    def __post_init__(self) -> None:
        """Count for the limits of the key where there is no user."""
        if not self.holder:
            object.__setattr__(self, "holder", self.key_id)

    @property
    def session_owner(self) -> str:
        """Who may continue a session: the key, or every connection of the user and the client.

        A user who grants a client more makes a new connection in the middle of its session.
        """
        return self.client or self.key_id

    @property
    def is_external(self) -> bool:
        """Whether an external authorization server has signed the user in."""
        return self.token.startswith(EXTERNAL)

    def may_call(self, tool: DeclaredTool) -> bool:
        """Return whether the tool is granted and in a set of the key: the filter of tools/list."""
        return self.is_granted(tool) and (tool.toolset is None or tool.toolset in self.toolsets)

    def is_granted(self, tool: DeclaredTool) -> bool:
        """Return whether role and key grant the tool on any cluster, whatever its set."""
        return Grant(self.tools).gives(tool.name, tool.effect) and any(
            grant.gives(tool.name, tool.effect) for grant in self.role.grants
        )

    def has_permission(self, name: str) -> bool:
        """Return whether role and key grant a tool's permission to write, on any cluster."""
        return self.is_granted(_Permission(name))

    def resources(self, tool: str, effect: Effect, cluster: str) -> Resources:
        """Return what of `cluster` the caller may access with `tool`; NOTHING when not granted."""
        key = (tool, effect, cluster)
        if key not in self._resources:
            resources = NOTHING
            for grant in self.grants(tool, effect, cluster):
                resources = resources | grant.resources
            self._resources[key] = resources
        return self._resources[key]

    def guest_list(
        self,
        kind: str,
        tool: str,
        effect: Effect,
        cluster: str,
        covers: Callable[[Resources], bool],
    ) -> frozenset[str]:
        """Return an allow-list of GUEST_LISTS for the guest that `covers` looks for.

        Only grants that give the tool on this guest count.
        """
        lists = (
            getattr(grant, kind)
            for grant in self.grants(tool, effect, cluster)
            if covers(grant.resources)
        )
        return frozenset[str]().union(*lists)

    def grants(self, tool: str, effect: Effect, cluster: str) -> Iterator[Grant]:
        """Yield the grants that give the tool on the cluster, as far as the key allows it."""
        own = Grant(self.tools, self.clusters)
        if own.gives(tool, effect) and own.reaches(cluster):
            for grant in self.role.grants:
                if grant.gives(tool, effect) and grant.reaches(cluster):
                    yield grant
