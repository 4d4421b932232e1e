"""What is read about a node and its cluster; a part that is not known is None, with a note."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final, TypeVar

from proxmox_client.api.guests import BothConfigs
from proxmox_client.api.ha import HaStatus
from proxmox_client.api.resources import GuestResource
from pvemcp_server import tables
from pvemcp_server.access.model import EVERYTHING, Effect
from pvemcp_server.clusters import Cluster, Notes
from pvemcp_server.query.sources import view_of
from pvemcp_server.tables import LoadRequest, Table, load
from pvemcp_server.tables.guest_configs import both_configs
from pvemcp_server.tables.registry import ALL
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.lists import with_budget
from pvemcp_server.tools.granted_rows import granted_rows, granted_view

T = TypeVar("T")

_TASKS: Final = 50
_OF_NODES: Final = frozenset({"node", "status", "memory_usage", "memory_total"})
_OF_GUESTS: Final = frozenset({"vmid", "name", "type", "node", "status", "is_template"})
_OF_STORAGES: Final = frozenset({"storage", "node", "shared", "is_available", "content"})
_STATUS: Final = ("GetClusterStatus",)
_OPTIONS: Final = ("GetClusterOptions",)
_CONFIGS: Final = ("GetVmConfig",)
_TABLES: Final = (
    *(tables.nodes, tables.guests, tables.storages, tables.tasks, tables.backup_jobs),
    *(tables.replications, tables.ha_resources, tables.ceph_health),
)
_TOOLS: Final = (*_CONFIGS, *_OPTIONS, *(name for table in _TABLES for name in table.tools))
HA_MAINTENANCE: Final = "ha-manager crm-command node-maintenance enable {}"
"""Switches HA maintenance of a node on; no API of Proxmox does that, from 8.4 to 9.2."""
_CEPH_STORAGES: Final = frozenset({"rbd", "cephfs"})
_DEFAULT_POLICY: Final = "conditional"
_MOST_HA: Final = 50_000  # resources, and guests and nodes of rules
_MIGRATED: Final = 9  # the major version in which HA groups became rules

Configs = Sequence[tuple[GuestResource, BothConfigs[Any]]]


@dataclass(frozen=True)
class Quorum:
    """Votes of a cluster: all of them, and those that are left without the node."""

    total: int
    left: int
    quorate: bool

    @property
    def needed(self) -> int:
        return self.total // 2 + 1


@dataclass(frozen=True)
class HighAvailability:
    """The guests under high availability, their rules or groups, and nodes in maintenance."""

    resources: Sequence[tables.HaResource]
    rules: Sequence[tables.HaRule]
    groups: Sequence[tables.HaGroup]
    in_maintenance: frozenset[str]
    shutdown_policy: str | None  # what happens to its guests when a node shuts down

    @cached_property
    def node_of(self) -> Mapping[int, str]:
        """The nodes of the guests, by VMID."""
        return {row.vmid: row.node for row in self.resources if row.node}

    @property
    def size(self) -> int:
        """What is looked at for each guest at most."""
        rules = sum(len(rule.vmids) + len(rule.nodes) for rule in self.rules)
        return len(self.resources) + rules + sum(len(group.nodes) for group in self.groups)


@dataclass(frozen=True)
class Ceph:
    """Ceph's health and its daemons on the node; no health if Ceph is on other machines."""

    health: tables.CephHealth | None
    osds: int | None  # of the node


@dataclass(frozen=True)
class MoveFacts:
    """What decides where the guests of a node can go."""

    cluster: str
    node: str
    is_offline: bool
    covers_all: bool  # whether the role covers the whole cluster, with all tools it grants
    nodes: Sequence[Any] | None
    guests: Sequence[Any] | None  # of the node
    configs: Configs | None
    storages: Sequence[Any] | None
    ha: HighAvailability | None

    @property
    def is_alone(self) -> bool:
        """Whether no other node is online."""
        others = [row for row in self.nodes or () if row.node != self.node]
        is_known = self.covers_all and self.nodes is not None
        return is_known and all(row.status == "offline" for row in others)


@dataclass(frozen=True)
class Facts(MoveFacts):
    """Everything that decides whether a node can be taken away."""

    now: datetime
    is_complete: bool  # whether each read had its whole answer
    tasks: Sequence[Any] | None  # that run there
    backup_jobs: Sequence[Any] | None
    replications: Sequence[Any] | None  # from or to the node
    quorum: Quorum | None
    has_ceph: bool
    ceph: Ceph | None


async def read_facts(call: Call, cluster: Cluster, node: str) -> Facts:
    """Return the facts about a node; what could not be read is noted, always in the same order."""
    notes = Notes()
    facts = await _Reader(call, replace(cluster, notes=notes), node).facts()
    cluster.notes.update((note, notes[note]) for note in sorted(notes))
    return replace(facts, is_complete=all(kind.fact for kind in notes.values()))


async def read_move_facts(
    call: Call, cluster: Cluster, node: str, guests: Sequence[tables.Guest]
) -> MoveFacts:
    """Return what decides where these guests of a node can go, for the checks of a write.

    Nodes, storages and HA are read whole, as Proxmox's own checks do: what is said of them must not
    name any that the role hides. Notes about them are kept for a role that hides nothing.
    """
    notes = Notes()
    whole = replace(cluster.within(EVERYTHING), notes=notes)
    reader = _Reader(call, whole, node, reads_all=True)
    vmids = LoadRequest(vmids=frozenset(row.vmid for row in guests))
    nodes, storages, ha, configs = await asyncio.gather(
        reader.rows(tables.nodes, LoadRequest(columns=_OF_NODES)),
        reader.rows(tables.storages, LoadRequest(columns=_OF_STORAGES)),
        reader.high_availability(),
        both_configs(cluster, with_budget(call, vmids)),
    )
    if cluster.scope.everything:
        cluster.notes.update((note, notes[note]) for note in sorted(notes))
    return MoveFacts(
        cluster=cluster.name,
        node=node,
        is_offline=False,
        covers_all=True,
        nodes=nodes,
        guests=guests,
        configs=configs,
        storages=storages,
        ha=ha,
    )


@dataclass(frozen=True)
class _Reader:
    """Reads the facts about a node, each within what the role grants to the tool that shows it.

    With `reads_all`, whatever the role grants: for what is not shown.
    """

    call: Call
    cluster: Cluster
    node: str
    reads_all: bool = False

    async def facts(self) -> Facts:
        """Read everything at once."""
        here = LoadRequest(nodes=frozenset({self.node}))
        is_offline = self.node in (await self.cluster.inventory_view()).offline_nodes
        has_ceph = await self._has_ceph()
        of_node, of_cluster = await asyncio.gather(
            asyncio.gather(
                self.rows(tables.nodes, LoadRequest(columns=_OF_NODES)),
                self.rows(tables.guests, replace(here, columns=_OF_GUESTS)),
                self.rows(tables.storages, LoadRequest(columns=_OF_STORAGES)),
                self._configs(),
                _none() if is_offline else self._tasks(here),
            ),
            asyncio.gather(
                self._backup_jobs(),
                self._replications(),
                self.high_availability(),
                self._quorum(),
                self._ceph() if has_ceph else _none(),
            ),
        )
        nodes, guests, storages, configs, tasks = of_node
        jobs, replications, ha, quorum, ceph = of_cluster
        return Facts(
            cluster=self.cluster.name,
            node=self.node,
            now=datetime.now(UTC),
            is_offline=is_offline,
            covers_all=self._covers_all(),
            is_complete=False,
            nodes=nodes,
            guests=guests,
            configs=configs,
            storages=storages,
            tasks=tasks,
            backup_jobs=jobs,
            replications=replications,
            ha=ha,
            quorum=quorum,
            has_ceph=has_ceph,
            ceph=ceph,
        )

    def _covers_all(self) -> bool:
        """Return whether no tool is granted for a part of the cluster only."""
        caller, name = self.call.caller, self.cluster.name
        scopes = (caller.resources(tool, Effect.READ, name) for tool in (self.call.tool, *_TOOLS))
        return all(scope.everything for scope in scopes if scope)

    async def rows(self, table: Table, request: LoadRequest) -> Sequence[Any] | None:
        """Read the rows of a table; None, with a note, if that failed."""
        if not self.reads_all:
            return await granted_rows(self.call, self.cluster, table, request)
        rows = load(table, self.cluster, with_budget(self.call, request))
        return await self.cluster.optional(rows, f"The {table.name} are missing")

    async def _has_ceph(self) -> bool:
        """Return whether a storage that the role shows is on Ceph."""
        view = view_of(self.call.caller, tables.storages, self.cluster, self.call.tool)
        rows = (await view.inventory_view()).storages if view else ()
        return any(row.plugin_type in _CEPH_STORAGES for row in rows)

    async def _configs(self) -> Configs | None:
        """Read the configurations of the running guests, if there is a node to move them to."""
        view = granted_view(self.call, self.cluster, _CONFIGS, "configurations of guests")
        if view is None:
            return None
        inventory = await view.inventory_view()
        nodes = await self.cluster.inventory_view()
        running = frozenset(
            guest.vmid
            for guest in inventory.guests
            if guest.node == self.node and guest.status == "running"
        )
        if not running or not nodes.by_node.keys() - nodes.offline_nodes - {self.node}:
            return ()
        return await both_configs(view, with_budget(self.call, LoadRequest(vmids=running)))

    async def _tasks(self, here: LoadRequest) -> Sequence[Any] | None:
        request = replace(here, limit=_TASKS, status=frozenset({"running"}))
        rows = await self.rows(tables.tasks, request)
        return None if rows is None else [row for row in rows if row.status == "running"]

    async def _backup_jobs(self) -> Sequence[Any] | None:
        columns = frozenset({"id", "enabled", "next_run", "node", "vmids"})
        return await self.rows(tables.backup_jobs, LoadRequest(columns=columns))

    async def _replications(self) -> Sequence[Any] | None:
        columns = frozenset({"id", "source", "target", "disabled"})
        rows = await self.rows(tables.replications, LoadRequest(columns=columns))
        if rows is None:
            return None
        return [row for row in rows if self.node in (row.source, row.target) and not row.disabled]

    async def high_availability(self) -> HighAvailability | None:
        """Read resources, their rules or groups, and the nodes in maintenance."""
        resources = await self.rows(tables.ha_resources, ALL)
        if resources is None:
            return None
        if not resources:
            return HighAvailability((), (), (), frozenset(), None)
        request = self.cluster.pve.version()
        version = await self.cluster.optional(request, "The ha rules are missing")
        has_rules = version is None or version.number[0] >= _MIGRATED
        rules, agents, policy = await asyncio.gather(
            self.rows(tables.ha_rules if has_rules else tables.ha_groups, ALL),
            self._ask(_STATUS, "HA maintenance", self.cluster.pve.cluster.ha_status),
            self._shutdown_policy(),
        )
        if rules is None:
            return None
        rows: Sequence[HaStatus] = agents or ()
        availability = HighAvailability(
            resources=resources,
            rules=rules if has_rules else (),
            groups=() if has_rules else rules,
            in_maintenance=frozenset(
                row.node for row in rows if row.node and row.is_in_maintenance
            ),
            shutdown_policy=policy,
        )
        if availability.size > _MOST_HA:
            self.cluster.notes.add(
                f"HA of {self.cluster.name} has more resources and rules than are looked at."
            )
            return None
        return availability

    async def _shutdown_policy(self) -> str | None:
        what = "HA shutdown policy"
        options = await self._ask(_OPTIONS, what, self.cluster.pve.cluster.options)
        if options is None:
            return None
        return str(options.group("ha").get("shutdown_policy", _DEFAULT_POLICY))

    async def _quorum(self) -> Quorum | None:
        api = self.cluster.pve.cluster
        members = await self._ask(_STATUS, "quorum", api.status)
        if members is None:
            return None
        voters, device = await asyncio.gather(
            self._ask(_STATUS, "quorum", api.voters),
            self._ask(_STATUS, "quorum", api.quorum_device),
        )
        if voters is None or device is None:
            return None
        online = {member.name for member in members.members if member.online} - {self.node}
        extra = device.votes(len(voters))
        return Quorum(
            total=sum(voter.votes for voter in voters) + extra,
            left=sum(voter.votes for voter in voters if voter.node in online)
            + (extra if device.is_connected else 0),
            quorate=members.quorate,
        )

    async def _ceph(self) -> Ceph | None:
        rows = await self.rows(tables.ceph_health, ALL)
        if rows is None:
            return None
        if not rows:  # not installed on the cluster, though a storage is on Ceph
            return Ceph(None, 0)
        api = self.cluster.pve.cluster
        metadata = await self._ask(_STATUS, "place of Ceph's daemons", api.ceph_metadata)
        if metadata is None:
            return Ceph(rows[0], None)
        return Ceph(rows[0], sum(osd.hostname == self.node for osd in metadata.osds))

    async def _ask(
        self, tools: Sequence[str], what: str, ask: Callable[[], Awaitable[T]]
    ) -> T | None:
        """Return an answer about the whole cluster, if the role grants these tools on all of it."""
        view: Cluster | None = self.cluster
        if not self.reads_all:
            view = granted_view(self.call, self.cluster, tools, what)
        if view is None or not view.scope.everything:
            return None
        return await view.optional(ask(), f"{what[0].upper()}{what[1:]} is not known")


async def _none() -> None:
    """Return None, for what is not looked for."""
