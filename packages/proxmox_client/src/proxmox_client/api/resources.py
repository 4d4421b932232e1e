"""Rows of /cluster/resources: the whole cluster in one request."""

import re
from collections import Counter
from collections.abc import Set as AbstractSet
from itertools import filterfalse
from typing import Any, ClassVar, Final, Literal, TypeVar

import msgspec
from msgspec import field

from proxmox_client.api.backup_server import DatastoreUsage
from proxmox_client.json_decoder import Answer, decode, leave_out, split_list
from proxmox_client.names import NAME, reported

MOST_NODES: Final = 1_000
"""Nodes of a cluster; Corosync is made for a few dozen."""
_MOST_LOST: Final = 1_000  # rows of a kind with names that are none
R = TypeVar("R", bound="GuestResource | NodeResource | StorageResource | PoolResource")
GuestType = Literal["qemu", "lxc"]


class GuestResource(Answer, tag_field="type", frozen=True):
    """A virtual machine or container; `cpu` is a fraction of all its cores.

    A new guest, or one on a node that stopped reporting, has only vmid, node and
    `status="unknown"`.
    """

    are_many: ClassVar[bool] = True
    type: ClassVar[GuestType]

    vmid: int
    node: str = ""
    name: str = ""
    status: str = "unknown"
    template: bool = False
    tags: str = ""
    pool: str | None = None
    lock: str | None = None
    ha_state: str | None = field(name="hastate", default=None)
    uptime: int | None = None
    cpu: float | None = None
    cpu_count: float | None = field(name="maxcpu", default=None)
    memory: int | None = field(name="mem", default=None)
    memory_max: int | None = field(name="maxmem", default=None)
    memory_host: int | None = field(name="memhost", default=None)
    disk: int | None = None
    disk_max: int | None = field(name="maxdisk", default=None)
    disk_read: int | None = field(name="diskread", default=None)
    disk_write: int | None = field(name="diskwrite", default=None)
    network_in: int | None = field(name="netin", default=None)
    network_out: int | None = field(name="netout", default=None)

    @property
    def tag_list(self) -> list[str]:
        """The tags as a list."""
        return split_list(self.tags)


class QemuResource(GuestResource, tag="qemu", frozen=True):
    """A virtual machine."""

    type: ClassVar[GuestType] = "qemu"


class LxcResource(GuestResource, tag="lxc", frozen=True):
    """A container."""

    type: ClassVar[GuestType] = "lxc"


class NodeState(Answer, frozen=True):
    """A node's name and status.

    The status is `unknown` for a member of the cluster whose statistics are missing, because its
    pvestatd hangs or pmxcfs has just started. It says nothing about whether the node answers.
    Only `offline` does: the node has left the cluster (PVE/API2Tools.pm).
    """

    node: str
    status: str = "unknown"

    @property
    def is_offline(self) -> bool:
        """Whether the node has left the cluster, so that no request to it can succeed."""
        return self.status == "offline"

    @property
    def lacks_statistics(self) -> bool:
        """Whether the node is a member of the cluster without current statistics."""
        return self.status not in ("online", "offline")


class NodeResource(NodeState, tag_field="type", tag="node", frozen=True):
    """A node; an offline node has little more than its name."""

    level: str = ""
    uptime: int | None = None
    cpu: float | None = None
    cpu_count: float | None = field(name="maxcpu", default=None)
    memory: int | None = field(name="mem", default=None)
    memory_max: int | None = field(name="maxmem", default=None)
    disk: int | None = None
    disk_max: int | None = field(name="maxdisk", default=None)
    network_in: int | None = field(name="netin", default=None)
    network_out: int | None = field(name="netout", default=None)
    cgroup_mode: int | None = field(name="cgroup-mode", default=None)


class StorageResource(Answer, tag_field="type", tag="storage", frozen=True):
    """A storage on one node, sizes in bytes; a shared storage has a row for each node."""

    storage: str
    node: str = ""
    status: str = "unknown"
    plugin_type: str = field(name="plugintype", default="")
    content: str = ""
    shared: bool = False
    disk: int | None = None
    disk_max: int | None = field(name="maxdisk", default=None)

    @property
    def is_available(self) -> bool:
        """Whether the storage was usable lately; if not, only its node knows whether it is."""
        return self.status == "available"

    @property
    def content_list(self) -> list[str]:
        """The kinds of content, in alphabetical order (Proxmox's own order is random)."""
        return sorted(split_list(self.content))

    def may_hold(self, content: str) -> bool:
        """Return whether such volumes may be there; with unknown contents, any may."""
        return not self.content_list or content in self.content_list


class PoolResource(Answer, tag_field="type", tag="pool", frozen=True):
    """A pool of guests and storages."""

    pool: str


class SdnResource(Answer, tag_field="type", tag="sdn", frozen=True):
    """A software-defined network zone on one node (until 8.4)."""

    sdn: str = ""
    node: str = ""
    status: str = "unknown"


class NetworkResource(Answer, tag_field="type", tag="network", frozen=True):
    """A zone or fabric on one node (from 9.0)."""

    network: str = ""
    network_type: str = field(name="network-type", default="")
    node: str = ""
    status: str = "unknown"


Row = (
    QemuResource
    | LxcResource
    | NodeResource
    | StorageResource
    | PoolResource
    | SdnResource
    | NetworkResource
)
_GUEST_ID = re.compile(r"(qemu|lxc)/([1-9]\d{2,8})", re.ASCII)
_TYPES = {"qemu", "lxc", "node", "storage", "pool", "sdn", "network"}


def _is_of_another_type(row: Any) -> bool:
    """Return whether a row has a type that a later version added; without any it is malformed."""
    kind = row.get("type") if isinstance(row, dict) else None
    return isinstance(kind, str) and kind not in _TYPES


def _prepared(rows: list[Any]) -> list[Any]:
    """Return the rows of known types; correct the malformed type or number of a guest by its id.

    An id is `qemu/101`. A row that repeats the id of another one stays malformed. A body of null is
    none of Proxmox's empty lists: every account sees the nodes.
    """
    if not rows:
        raise ValueError("it lists no node")
    rows = [row for row in rows if not _is_of_another_type(row)]
    names = [_GUEST_ID.fullmatch(_id_of(row)) for row in rows]
    ids = Counter(name[0] for name in names if name)
    return [
        _with_name(row, name[1], int(name[2]))
        if isinstance(row, dict) and name and ids[name[0]] == 1
        else row
        for row, name in zip(rows, names, strict=True)
    ]


def _id_of(row: Any) -> str:
    if isinstance(row, GuestResource):
        return f"{row.type}/{row.vmid}"
    return str(row.get("id")) if isinstance(row, dict) else ""


def _with_name(row: dict[str, Any], kind: str, vmid: int) -> dict[str, Any]:
    name = {"type": kind, "vmid": vmid}
    wrong = [key for key, value in name.items() if str(row.get(key)) != str(value)]
    if wrong and leave_out(f"{', '.join(wrong)} of {row['id']}"):
        return row | name
    return row


class Resources(msgspec.Struct, frozen=True):
    """The cluster's resources by kind, in the order Proxmox lists them."""

    guests: list[GuestResource]
    nodes: list[NodeResource]
    storages: list[StorageResource]
    pools: list[PoolResource]
    networks: list[SdnResource | NetworkResource]
    datastores: list[DatastoreUsage] = []  # of a backup server, which has nothing else

    @classmethod
    def read(cls, body: bytes) -> "Resources":
        """Decode a body, without the rows of an unknown type; raise as `decode` does.

        Names of nodes, storages and pools that none can have are malformed values: they stand in
        sentences to a user. So is a list of more nodes than any cluster has.
        """
        resources = cls([], [], [], [], [])
        nodes: set[str] = {""}
        names: set[str] = {""}
        for row in decode(body, list[Row], _prepared).data:
            match row:
                case GuestResource():
                    resources.guests.append(row)
                    nodes.add(row.node)
                    names.add(row.pool or "")
                case NodeResource():
                    resources.nodes.append(row)
                    nodes.add(row.node)
                case StorageResource():
                    resources.storages.append(row)
                    nodes.add(row.node)
                    names.add(row.storage)
                case PoolResource():
                    resources.pools.append(row)
                    names.add(row.pool)
                case _:
                    resources.networks.append(row)
        if len(nodes) > MOST_NODES:
            raise ValueError(f"it names more than {MOST_NODES:,} nodes")
        wrong = {*filterfalse(NAME.fullmatch, nodes | names)} - {""}
        return _without(resources, wrong) if wrong else resources


def _without(resources: Resources, wrong: AbstractSet[str]) -> Resources:
    """Return the resources without these names, and without the rows that have no other."""
    return msgspec.structs.replace(
        resources,
        guests=_without_names("guest", resources.guests, wrong, {"node": "", "pool": None}),
        nodes=_without_names("node", resources.nodes, wrong, {}),
        storages=_without_names("storage", resources.storages, wrong, {"node": ""}),
        pools=_without_names("pool", resources.pools, wrong, {}),
    )


def _without_names(
    kind: str, rows: list[R], wrong: AbstractSet[str], absent: dict[str, Any]
) -> list[R]:
    """Return rows with the values of `absent` for wrong names, without those that are named so.

    Raise ValueError outside of a `tolerate_malformed` block, and for more of them than any mistake
    makes: each takes time of the event loop.
    """
    kept: list[R] = []
    lost = 0
    for row in rows:
        name = row.vmid if isinstance(row, GuestResource) else getattr(row, kind)
        values = [key for key in absent if getattr(row, key) in wrong]
        if name in wrong or values:
            label = reported(f"{kind}/{name}")
            what = label if name in wrong else f"{', '.join(values)} of {label}"
            if (lost := lost + 1) > _MOST_LOST or not leave_out(what):
                raise ValueError(f"{what!r} has a name that no resource can have")
        if name not in wrong:
            own = {key: absent[key] for key in values}
            kept.append(msgspec.structs.replace(row, **own) if own else row)
    return kept
