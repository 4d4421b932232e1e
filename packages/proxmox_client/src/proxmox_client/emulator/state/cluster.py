"""The complete state of one cluster."""

import random
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from proxmox_client.emulator.clock import Clock
from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.state.appliance import Appliance
from proxmox_client.emulator.state.firewall import RuleSet
from proxmox_client.emulator.state.guest import Guest, Kind
from proxmox_client.emulator.state.jobs import BackupJob, HaResource, LogEntry, Pool, Replication
from proxmox_client.emulator.state.load import Load
from proxmox_client.emulator.state.node import Node
from proxmox_client.emulator.state.storage import Storage
from proxmox_client.emulator.state.task import Task
from proxmox_client.emulator.state.user_config import UserConfig

RELEASES = {
    "8.4": ("8.4.14", "b502d23c55afcba1"),
    "9.0": ("9.0.11", "3bf5476b8a4699e2"),
    "9.1": ("9.1.9", "ee7bad0a3d1546c9"),
    "9.2": ("9.2.11", "14a22df3"),
}


@dataclass
class ClusterState:
    """Everything that a cluster holds; tests may read and change it.

    After a change to a guest call its `touch()`: rows of /cluster/resources are cached until then.
    """

    name: str
    version: str = "9.2"
    clock: Clock = field(default_factory=Clock)
    seed: int = 1
    nodes: dict[str, Node] = field(default_factory=dict)
    guests: dict[int, Guest] = field(default_factory=dict)
    reserved: dict[int, Guest] = field(default_factory=dict)
    """Guests that a task is about to make: their VMIDs are in use from the request on."""
    storages: dict[str, Storage] = field(default_factory=dict)
    pools: dict[str, Pool] = field(default_factory=dict)
    user_config: UserConfig = field(default_factory=UserConfig)
    backup_jobs: dict[str, BackupJob] = field(default_factory=dict)
    replications: dict[str, Replication] = field(default_factory=dict)
    ha_resources: dict[str, HaResource] = field(default_factory=dict)
    ha_groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    ha_rules: dict[str, dict[str, Any]] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    firewalls: dict[str, RuleSet] = field(default_factory=dict)
    """By level: a guest's ACL path, a node's name, or an empty string for the cluster."""
    downloads: dict[str, int | None] = field(default_factory=dict)
    """Sizes in bytes of downloadable files, by URL; None answers 404."""
    appliances: dict[str, Appliance] = field(default_factory=dict)
    """The index of container templates, by file name; empty as on a new node."""
    oci_images: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Tags of the images in registries, by `registry/repository`."""
    tasks: dict[str, Task] = field(default_factory=dict)
    log: list[LogEntry] = field(default_factory=list)
    quorate: bool = True
    quorum_device: dict[str, Any] = field(default_factory=dict)
    """The answer about its QDevice; empty without one."""
    ceph_flags: set[str] = field(default_factory=set)
    """Flags of Ceph that are set, such as noout."""
    grouped: bool = True
    """Whether the nodes are joined to a cluster; false for a standalone node."""
    measured: tuple[int, dict[str, Load]] | None = None
    """The loads of the nodes by name, cached with the tick of their measurement."""

    def __post_init__(self) -> None:
        if self.version not in RELEASES:
            raise ValueError(f"No version {self.version!r}; choose one of {', '.join(RELEASES)}")
        self._random = random.Random(self.seed)  # noqa: S311 - process numbers, not secrets
        self._last_pid = 1000

    @cached_property
    def release(self) -> tuple[int, int]:
        """The version as (major, minor)."""
        major, _, minor = self.version.partition(".")
        return int(major), int(minor)

    @property
    def now(self) -> float:
        """The cluster's time in seconds since 1970."""
        return self.clock.now()

    def guest(self, kind: Kind, node: str, vmid: int) -> Guest:
        """Return a guest; raise ApiError unless it is of this kind and on this node."""
        guest = self.guests.get(vmid)
        if guest is None or guest.node != node or guest.kind is not kind:
            raise ApiError(
                f"Configuration file 'nodes/{node}/{kind.folder}/{vmid}.conf' does not exist"
            )
        return guest

    def with_vmid(self, vmid: int) -> Guest | None:
        """Return the guest that has a VMID, or is about to."""
        return self.guests.get(vmid) or self.reserved.get(vmid)

    def cpus_of(self, guest: Guest) -> float:
        """Return the processors of a guest."""
        return guest.cpus(self.nodes[guest.node].cpus)

    def node(self, name: str) -> Node:
        """Return a node; raise ApiError if it does not exist."""
        if name not in self.nodes:
            raise ApiError(f"no such cluster node '{name}'")
        return self.nodes[name]

    def storage(self, name: str) -> Storage:
        """Return a storage; raise ApiError if it does not exist."""
        if name not in self.storages:
            raise ApiError(f"storage '{name}' does not exist")
        return self.storages[name]

    def pool_of(self, vmid: int) -> str:
        """Return the pool ID of a guest, or an empty string."""
        return next((pool.poolid for pool in self.pools.values() if vmid in pool.vmids), "")

    def ha_of(self, guest: Guest) -> HaResource | None:
        """Return the HA resource of a guest, or None."""
        return self.ha_resources.get(f"{guest.kind.word.lower()}:{guest.vmid}")

    def guests_on(self, node: str, kind: Kind | None = None) -> list[Guest]:
        """Return the guests of a node, by VMID."""
        return [
            guest
            for _, guest in sorted(self.guests.items())
            if guest.node == node and kind in (None, guest.kind)
        ]

    def storages_on(self, node: str) -> list[Storage]:
        """Return the storages that are available on a node."""
        return [storage for storage in self.storages.values() if storage.on(node)]

    def add_task(self, node: str, type_: str, id_: str, user: str, started: int) -> Task:
        """Add a task that started now or in the past; `started` is in seconds since 1970."""
        booted = int(self.nodes[node].booted) if node in self.nodes else 0
        pstart = max(1, started - booted) * 100 + self._random.randrange(100)
        task = Task(node, self.next_pid(), pstart, started, type_, id_, user)
        self.tasks[task.upid] = task
        return task

    def next_pid(self) -> int:
        """Return the process ID of a new process."""
        self._last_pid = 1000 + (self._last_pid + self._random.randrange(1, 40)) % 3_000_000
        return self._last_pid

    def write_log(self, node: str, user: str, text: str, *, tag: str = "pvedaemon") -> None:
        """Add a line to the cluster log."""
        pid = 900 + len(self.log) % 3
        self.log.append(LogEntry(int(self.now), node, user, tag, text, len(self.log) + 1, pid))
