"""The live state of a guest."""

from typing import Any

from msgspec import field

from proxmox_client.json_decoder import Answer, split_list


class HaState(Answer, frozen=True):
    """The HA manager's state of a guest."""

    managed: bool = False
    state: str | None = None
    group: str | None = None


class GuestStatus(Answer, frozen=True):
    """A guest's state; a field that applies only to the other kind of guest is None.

    `cpu` is a fraction of all its cores; sizes are bytes; the pressures are percentages.
    """

    vmid: int = 0
    name: str = ""
    status: str = "unknown"
    qmp_status: str | None = field(name="qmpstatus", default=None)
    template: bool = False
    tags: str = ""
    lock: str | None = None
    ha: HaState = HaState()
    uptime: int = 0
    pid: int | None = None
    cpu: float | None = None
    cpu_count: float | None = field(name="cpus", default=None)
    memory: int | None = field(name="mem", default=None)
    memory_max: int | None = field(name="maxmem", default=None)
    memory_host: int | None = field(name="memhost", default=None)
    balloon: int | None = None
    balloon_info: dict[str, Any] | None = field(name="ballooninfo", default=None)
    swap: int | None = None
    swap_max: int | None = field(name="maxswap", default=None)
    disk: int | None = None
    disk_max: int | None = field(name="maxdisk", default=None)
    disk_read: int | None = field(name="diskread", default=None)
    disk_write: int | None = field(name="diskwrite", default=None)
    network_in: int | None = field(name="netin", default=None)
    network_out: int | None = field(name="netout", default=None)
    pressure_cpu_some: float | None = field(name="pressurecpusome", default=None)
    pressure_cpu_full: float | None = field(name="pressurecpufull", default=None)
    pressure_io_some: float | None = field(name="pressureiosome", default=None)
    pressure_io_full: float | None = field(name="pressureiofull", default=None)
    pressure_memory_some: float | None = field(name="pressurememorysome", default=None)
    pressure_memory_full: float | None = field(name="pressurememoryfull", default=None)
    agent: bool = False
    running_machine: str | None = field(name="running-machine", default=None)
    running_qemu: str | None = field(name="running-qemu", default=None)

    @property
    def is_paused(self) -> bool:
        """Whether QEMU reports it as paused or suspended; `status` is running then."""
        return self.qmp_status in ("paused", "suspended")

    @property
    def tag_list(self) -> list[str]:
        """The tags as a list."""
        return split_list(self.tags)
