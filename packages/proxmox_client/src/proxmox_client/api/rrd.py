"""Time series (RRD); a metric that the cluster's version doesn't record is None."""

from typing import Literal

from msgspec import field

from proxmox_client.json_decoder import Answer

TimeFrame = Literal["hour", "day", "week", "month", "year", "decade"]
Consolidation = Literal["AVERAGE", "MAX"]


class GuestRrd(Answer, frozen=True):
    """A point of a guest's time series: fractions, bytes, bytes per second, PSI percentages."""

    time: int
    cpu: float | None = None
    cpu_count: float | None = field(name="maxcpu", default=None)
    memory: float | None = field(name="mem", default=None)
    memory_max: float | None = field(name="maxmem", default=None)
    memory_host: float | None = field(name="memhost", default=None)
    disk: float | None = None
    disk_max: float | None = field(name="maxdisk", default=None)
    disk_read: float | None = field(name="diskread", default=None)
    disk_write: float | None = field(name="diskwrite", default=None)
    network_in: float | None = field(name="netin", default=None)
    network_out: float | None = field(name="netout", default=None)
    pressure_cpu_some: float | None = field(name="pressurecpusome", default=None)
    pressure_cpu_full: float | None = field(name="pressurecpufull", default=None)
    pressure_io_some: float | None = field(name="pressureiosome", default=None)
    pressure_io_full: float | None = field(name="pressureiofull", default=None)
    pressure_memory_some: float | None = field(name="pressurememorysome", default=None)
    pressure_memory_full: float | None = field(name="pressurememoryfull", default=None)


class NodeRrd(Answer, frozen=True):
    """A point of a node's time series: fractions, bytes, bytes per second, PSI percentages."""

    time: int
    cpu: float | None = None
    cpu_count: float | None = field(name="maxcpu", default=None)
    load_average: float | None = field(name="loadavg", default=None)
    io_wait: float | None = field(name="iowait", default=None)
    memory: float | None = field(name="memused", default=None)
    memory_max: float | None = field(name="memtotal", default=None)
    memory_available: float | None = field(name="memavailable", default=None)
    arc_size: float | None = field(name="arcsize", default=None)
    swap: float | None = field(name="swapused", default=None)
    swap_max: float | None = field(name="swaptotal", default=None)
    root: float | None = field(name="rootused", default=None)
    root_max: float | None = field(name="roottotal", default=None)
    network_in: float | None = field(name="netin", default=None)
    network_out: float | None = field(name="netout", default=None)
    pressure_cpu_some: float | None = field(name="pressurecpusome", default=None)
    pressure_io_some: float | None = field(name="pressureiosome", default=None)
    pressure_io_full: float | None = field(name="pressureiofull", default=None)
    pressure_memory_some: float | None = field(name="pressurememorysome", default=None)
    pressure_memory_full: float | None = field(name="pressurememoryfull", default=None)


class StorageRrd(Answer, frozen=True):
    """A point of a storage's time series, in bytes."""

    time: int
    used: float | None = None
    total: float | None = None
