"""A builder for the state of a cluster."""

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from proxmox_client.emulator.clock import Clock
from proxmox_client.emulator.scenario import hardware
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.guest import Agent, Guest, Kind, Snapshot
from proxmox_client.emulator.state.load import Load
from proxmox_client.emulator.state.node import Node
from proxmox_client.emulator.state.sizes import GIB, format_size
from proxmox_client.emulator.state.storage import Storage, Volume
from proxmox_client.emulator.state.user_config import User
from proxmox_client.emulator.state.volume_names import disk_name

DAY = 86400

Build = Callable[[Clock], ClusterState]
"""A function that builds the state of a cluster."""


class Builder:
    """Adds nodes, storages and guests to a new cluster; the same seed gives the same cluster."""

    def __init__(self, name: str, version: str, clock: Clock, seed: int) -> None:
        self.state = ClusterState(name, version, clock, seed)
        self.state.options = {"mac_prefix": "BC:24:11"}
        self.state.user_config.users["root@pam"] = User("root@pam", email="admin@example.test")
        self.random = random.Random(seed)  # noqa: S311 - demo data, not secrets
        self.now = int(clock.now())

    def node(self, name: str, **details: Any) -> Node:
        """Add a node with physical disks; `details` are fields of Node."""
        number = len(self.state.nodes) + 1
        details.setdefault("booted", self.now - self.random.randrange(3 * DAY, 120 * DAY))
        details.setdefault("load", Load(phase=number * 31, cpu=0.02, memory=0.06, swing=0.25))
        details.setdefault("disks", hardware.random_disks(self.random))
        node = Node(name, number, f"10.20.0.{10 + number}", **details)
        self.state.nodes[name] = node
        return node

    def storage(self, name: str, type_: str, content: str, **details: Any) -> Storage:
        """Add a storage; `content` is a list with commas, `details` are fields of Storage."""
        storage = Storage(name, type_, tuple(content.split(",")), **details)
        self.state.storages[name] = storage
        return storage

    def vm(
        self,
        vmid: int,
        name: str,
        node: str,
        *,
        storage: str,
        disks: Sequence[int] = (32,),
        config: dict[str, Any] | None = None,
        running: bool = True,
        agent: Agent | None = None,
        load: Load | None = None,
    ) -> Guest:
        """Add a virtual machine; the sizes of its disks are in GiB."""
        settings: dict[str, Any] = {
            "name": name,
            "cores": 2,
            "sockets": 1,
            "cpu": "x86-64-v2-AES",
            "memory": "4096",
            "ostype": "l26",
            "scsihw": "virtio-scsi-single",
            "numa": 0,
            "boot": "order=scsi0;net0",
            "net0": f"virtio={self.mac()},bridge=vmbr0,firewall=1",
            "smbios1": f"uuid={self.uuid()}",
            "vmgenid": self.uuid(),
            "meta": f"creation-qemu=10.0.2,ctime={self.now - 200 * DAY}",
        }
        guest = self._guest(vmid, Kind.QEMU, node, settings | (config or {}), load)
        for number, size in enumerate(disks):
            self._disk(guest, f"scsi{number}", storage, size, ",iothread=1")
        if agent is not None:
            guest.agent = agent
            guest.config["agent"] = "enabled=1"
        return self._set_running(guest, running=running)

    def container(
        self,
        vmid: int,
        name: str,
        node: str,
        *,
        storage: str,
        disk: int = 8,
        config: dict[str, Any] | None = None,
        running: bool = True,
        load: Load | None = None,
    ) -> Guest:
        """Add a container; the size of its root file system is in GiB."""
        settings: dict[str, Any] = {
            "hostname": name,
            "arch": "amd64",
            "cores": 1,
            "memory": 512,
            "swap": 512,
            "ostype": "debian",
            "unprivileged": 1,
            "features": "nesting=1",
            "net0": f"name=eth0,bridge=vmbr0,firewall=1,hwaddr={self.mac()},ip=dhcp,type=veth",
        }
        guest = self._guest(vmid, Kind.LXC, node, settings | (config or {}), load)
        guest.agent = Agent(addresses=(f"10.20.{vmid % 250}.{vmid % 200 + 20}",))
        self._disk(guest, "rootfs", storage, disk, "")
        return self._set_running(guest, running=running)

    def snapshot(
        self,
        guest: Guest,
        name: str,
        age_days: float,
        description: str = "",
        *,
        ram: bool = False,
        state: str = "",
    ) -> Snapshot:
        """Add a snapshot whose parent is the guest's newest one; one with a state is incomplete."""
        created = int(self.now - age_days * DAY)
        snapshot = Snapshot(name, created, description, guest.parent, ram, dict(guest.config))
        snapshot.state = state
        guest.snapshots[name] = snapshot
        guest.parent = guest.parent if state else name
        return snapshot

    def volume(
        self, storage: str, node: str, name: str, content: str, size: int, **details: Any
    ) -> Volume:
        """Add a file to a storage; `age_days` is its age, further details are fields of Volume."""
        created = int(self.now - details.pop("age_days", 30) * DAY)
        format_ = details.pop("format", name.rpartition(".")[2])
        volume = Volume(f"{storage}:{name}", content, format_, size, created, **details)
        return self.state.storages[storage].put(node, volume)

    def hours_since(self, hour: int, weekday: int | None = None) -> float:
        """Return the hours since a daily or weekly job last started at this hour.

        Monday is weekday 0. Starts within the last hour are skipped: such a job still runs.
        """
        now = datetime.fromtimestamp(self.now, UTC)
        started = now.replace(hour=hour, minute=0, second=0, microsecond=0)
        while now - started < timedelta(hours=1) or weekday not in (None, started.weekday()):
            started -= timedelta(days=1)
        return (now - started).total_seconds() / 3600

    def mac(self) -> str:
        """Return a MAC address with Proxmox's prefix."""
        tail = ":".join(f"{self.random.randrange(256):02X}" for _ in range(3))
        return f"BC:24:11:{tail}"

    def uuid(self) -> str:
        """Return a UUID that depends on the seed only."""
        text = f"{self.random.getrandbits(128):032x}"
        return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))

    def _guest(
        self, vmid: int, kind: Kind, node: str, config: dict[str, Any], load: Load | None
    ) -> Guest:
        created = self.now - self.random.randrange(20 * DAY, 700 * DAY)
        guest = Guest(vmid, kind, node, config, created, load=load or self.load(vmid))
        self.state.guests[vmid] = guest
        return guest

    def load(self, vmid: int, **details: float) -> Load:
        """Return a random load, low for most guests; `details` are fields of Load."""
        draw = self.random.random
        defaults = {
            "cpu": 0.01 + 0.12 * draw() ** 2,
            "memory": 0.25 + 0.5 * draw(),
            "swing": 0.1 + 0.4 * draw(),
            "net_in": 2_000 + 60_000 * draw() ** 3,
            "net_out": 2_000 + 60_000 * draw() ** 3,
            "disk_read": 1_000 + 30_000 * draw() ** 3,
            "disk_write": 3_000 + 90_000 * draw() ** 3,
            "pressure": 0.4 * draw(),
        }
        return Load(phase=vmid, **(defaults | details))

    def _disk(self, guest: Guest, slot: str, storage: str, gigabytes: int, options: str) -> None:
        target = self.state.storages[storage]
        name, format_ = disk_name(target, guest, len(list(guest.disks())))
        size = gigabytes * GIB
        guest.config[slot] = f"{storage}:{name}{options},size={format_size(size)}"
        content = "images" if guest.kind is Kind.QEMU else "rootdir"
        created = int(guest.created)
        volume = Volume(f"{storage}:{name}", content, format_, size, created, guest.vmid)
        volume.used = int(size * (0.2 + 0.5 * self.random.random())) if format_ == "qcow2" else None
        target.put(guest.node, volume)

    def _set_running(self, guest: Guest, *, running: bool) -> Guest:
        if running:
            guest.status = "running"
            booted = self.state.nodes[guest.node].booted
            max_uptime = max(60, int(self.now - booted) - 300)
            guest.started = self.now - self.random.randrange(30, max_uptime)
            guest.pid = 1000 + self.random.randrange(60_000)
        elif not guest.template:
            days = 2 + guest.vmid % 19
            guest.stopped = max(guest.created, self.now - days * DAY)
        return guest
