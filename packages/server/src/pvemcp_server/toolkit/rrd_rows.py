"""Rows of recorded metrics: summaries, and one guest or node at one point in time."""

from datetime import datetime
from typing import Annotated

from pvemcp_server.tables.rows import Col, Row, Unit

_RATE = Unit.BYTES_PER_SECOND


class MetricSummary(Row, kw_only=True):
    """One metric over the time frame: percentages, bytes per second (`_rate`), or a load."""

    metric: Annotated[str, Col("Name of the metric")]
    average: Annotated[float, Col("Average")]
    p95: Annotated[float, Col("95 % of the intervals are at or below it")]
    maximum: Annotated[float, Col("Highest value of any interval, with its peaks")]
    maximum_time: Annotated[datetime | None, Col("End of that interval", Unit.TIME)]
    latest: Annotated[float, Col("Last recorded value")]
    trend: Annotated[float, Col("Change over the time frame, along its line of regression")]


class VmSummary(MetricSummary, kw_only=True):
    """A metric of a guest over the time frame."""

    vmid: Annotated[int, Col("Number")]


class NodeSummary(MetricSummary, kw_only=True):
    """A metric of a node over the time frame."""

    node: Annotated[str, Col("Node")]


class VmPoint(Row):
    """A guest at a point in time; values that were not recorded are null."""

    vmid: Annotated[int, Col("Number")]
    name: Annotated[str, Col("Display name")]
    time: Annotated[datetime | None, Col("End of the interval", Unit.TIME)]
    cpu_usage: Annotated[float | None, Col("Use of its own cores", Unit.PERCENT)]
    cpu_total: Annotated[float | None, Col("Cores", Unit.COUNT)]
    memory_usage: Annotated[int | None, Col("Memory in use, as the guest sees it", Unit.BYTES)]
    memory_total: Annotated[int | None, Col("Memory it may use", Unit.BYTES)]
    disk_usage: Annotated[int | None, Col("Root disk in use (lxc)", Unit.BYTES)]
    disk_total: Annotated[int | None, Col("Root disk", Unit.BYTES)]
    disk_read_rate: Annotated[int | None, Col("Read", _RATE)]
    disk_write_rate: Annotated[int | None, Col("Written", _RATE)]
    network_in_rate: Annotated[int | None, Col("Received", _RATE)]
    network_out_rate: Annotated[int | None, Col("Sent", _RATE)]
    pressure_cpu_some: Annotated[float | None, Col("Some waited for CPU", Unit.PERCENT)]
    pressure_cpu_full: Annotated[float | None, Col("All waited for CPU", Unit.PERCENT)]
    pressure_io_some: Annotated[float | None, Col("Some waited for disks", Unit.PERCENT)]
    pressure_io_full: Annotated[float | None, Col("All waited for disks", Unit.PERCENT)]
    pressure_memory_some: Annotated[float | None, Col("Some waited for memory", Unit.PERCENT)]
    pressure_memory_full: Annotated[float | None, Col("All waited for memory", Unit.PERCENT)]


class NodePoint(Row):
    """A node at a point in time; values that were not recorded are null."""

    node: Annotated[str, Col("Node")]
    time: Annotated[datetime | None, Col("End of the interval", Unit.TIME)]
    cpu_usage: Annotated[float | None, Col("Use of all its processors", Unit.PERCENT)]
    cpu_total: Annotated[int | None, Col("Processors", Unit.COUNT)]
    loadavg: Annotated[float | None, Col("Load over one minute")]
    iowait: Annotated[float | None, Col("Time spent waiting for disks", Unit.PERCENT)]
    memory_usage: Annotated[int | None, Col("Memory in use", Unit.BYTES)]
    memory_total: Annotated[int | None, Col("Memory", Unit.BYTES)]
    swap_usage: Annotated[int | None, Col("Swap in use", Unit.BYTES)]
    swap_total: Annotated[int | None, Col("Swap", Unit.BYTES)]
    root_usage: Annotated[int | None, Col("Root file system in use", Unit.BYTES)]
    root_total: Annotated[int | None, Col("Root file system", Unit.BYTES)]
    network_in_rate: Annotated[int | None, Col("Received", _RATE)]
    network_out_rate: Annotated[int | None, Col("Sent", _RATE)]
    pressure_cpu_some: Annotated[float | None, Col("Some waited for CPU", Unit.PERCENT)]
    pressure_io_some: Annotated[float | None, Col("Some waited for disks", Unit.PERCENT)]
    pressure_io_full: Annotated[float | None, Col("All waited for disks", Unit.PERCENT)]
    pressure_memory_some: Annotated[float | None, Col("Some waited for memory", Unit.PERCENT)]
    pressure_memory_full: Annotated[float | None, Col("All waited for memory", Unit.PERCENT)]
