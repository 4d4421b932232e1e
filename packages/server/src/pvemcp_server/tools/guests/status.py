"""The live state of one guest, from Proxmox and from the guest itself."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

from proxmox_client import AgentRefused, Forbidden, Lxc, ProxmoxError, Qemu
from proxmox_client.api.status import GuestStatus
from proxmox_client.api.tasks import TaskRow
from pvemcp_server.access.model import Area, Effect
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables.rows import Col, Row, Unit, moment, percent
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import ItsCluster, VmId
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.cluster_lookup import cluster_with
from pvemcp_server.toolkit.guest_addresses import addresses_of
from pvemcp_server.toolkit.registry import Document, document, tool

T = TypeVar("T")

_PARTS = 2  # commands of the guest agent


class VmStatus(Row):
    """A guest's live state; unknown values are null."""

    cluster: Annotated[str, Col("Cluster")]
    vmid: Annotated[int, Col("Number")]
    name: Annotated[str, Col("Display name")]
    node: Annotated[str, Col("Node it is on")]
    type: Annotated[Literal["qemu", "lxc"], Col("Virtual machine (qemu) or container (lxc)")]
    status: Annotated[str, Col("State: running, stopped")]
    qmp_status: Annotated[str | None, Col("QEMU's own word: running, paused … (qemu)")]
    uptime: Annotated[int, Col("Time since its start", Unit.SECONDS)]
    lock: Annotated[str | None, Col("What it is locked for")]
    ha_managed: Annotated[bool, Col("Whether high availability manages it")]
    ha_state: Annotated[str | None, Col("State in high availability")]
    cpu_usage: Annotated[float | None, Col("Use of its own cores", Unit.PERCENT)]
    cpu_count: Annotated[float | None, Col("Cores", Unit.COUNT)]
    memory_usage: Annotated[int | None, Col("Memory in use, as the guest sees it", Unit.BYTES)]
    memory_host: Annotated[int | None, Col("Memory it takes of its node (9.x)", Unit.BYTES)]
    memory_max: Annotated[int | None, Col("Memory it may use", Unit.BYTES)]
    memory_usage_percentage: Annotated[float | None, Col("Memory in use", Unit.PERCENT)]
    balloon: Annotated[int | None, Col("Memory the balloon leaves it (qemu)", Unit.BYTES)]
    swap_usage: Annotated[int | None, Col("Swap in use (lxc)", Unit.BYTES)]
    swap_max: Annotated[int | None, Col("Swap (lxc)", Unit.BYTES)]
    disk_usage: Annotated[int | None, Col("Root disk in use (lxc)", Unit.BYTES)]
    disk_max: Annotated[int | None, Col("Root disk", Unit.BYTES)]
    running_task: Annotated[dict[str, Any] | None, Col("The task at work on it now")]
    agent: Annotated[str | None, Col("Guest agent: off, reachable, unreachable, denied (qemu)")]
    os_name: Annotated[str | None, Col("Operating system, by the agent (qemu)")]
    ip_addresses: Annotated[list[str], Col("Its addresses, without loopback and link-local")]


@dataclass(frozen=True, slots=True)
class _GuestReport:
    """The state that the guest itself reports, through its agent or its interfaces."""

    agent: str | None = None
    os_name: str | None = None
    addresses: list[str] = field(default_factory=list)


@tool(
    "GetVmStatus",
    view="guest",
    title="Guest status",
    area=Area.VMS,
    effect=Effect.READ,
    answer=VmStatus,
    needs=(needs.GUESTS, needs.AGENT),
)
async def get_vm_status(call: Call, *, cluster_name: ItsCluster = None, vmid: VmId) -> Document:
    """Get a guest's live state: CPU, memory, lock, HA, running task, agent, OS, IPs."""
    cluster = await cluster_with(call, cluster_name, vmids=[vmid])
    api = await cluster.readable(vmid)
    status = await api.status()
    task, report = await asyncio.gather(
        _running_task(cluster, api), _guest_report(cluster, api, status)
    )
    return document(
        VmStatus(
            cluster=cluster.name,
            vmid=vmid,
            name=status.name,
            node=api.node,
            type=api.type,
            status=status.status,
            qmp_status=status.qmp_status,
            uptime=status.uptime,
            lock=status.lock or None,
            ha_managed=status.ha.managed,
            ha_state=status.ha.state,
            cpu_usage=percent(status.cpu),
            cpu_count=status.cpu_count,
            memory_usage=status.memory,
            memory_host=status.memory_host,
            memory_max=status.memory_max,
            memory_usage_percentage=percent(status.memory, status.memory_max),
            balloon=status.balloon,
            swap_usage=status.swap,
            swap_max=status.swap_max,
            disk_usage=status.disk if api.type == "lxc" else None,
            disk_max=status.disk_max,
            running_task=task,
            agent=report.agent,
            os_name=report.os_name,
            ip_addresses=report.addresses,
        )
    )


async def _running_task(cluster: Cluster, api: Qemu | Lxc) -> dict[str, Any] | None:
    """Return the newest task that is running on the guest; None if there is none."""
    request = cluster.pve.node(api.node).tasks(source="active", vmid=api.vmid)
    rows: list[TaskRow] = await cluster.optional(request, "Running tasks are not known") or []
    if not rows:
        return None
    newest = max(rows, key=lambda row: row.start_time)
    return {
        "upid": newest.upid,
        "type": newest.type,
        "user": newest.user,
        "start_time": moment(newest.start_time),
    }


async def _guest_report(cluster: Cluster, api: Qemu | Lxc, status: GuestStatus) -> _GuestReport:
    """Ask a running VM's agent, or a container's interfaces; note it when that is not allowed."""
    if status.status != "running":
        return _GuestReport()
    if isinstance(api, Lxc):
        listed = await cluster.optional(api.interfaces(), "Its addresses are not known")
        return _GuestReport(addresses=addresses_of(listed or []))
    if not status.agent:
        return _GuestReport(agent="off")
    system, interfaces = await asyncio.gather(
        _outcome(api.agent_os_info()), _outcome(api.agent_network())
    )
    failures = [part for part in (system, interfaces) if isinstance(part, ProxmoxError)]
    reachable = len(failures) < _PARTS or any(isinstance(e, AgentRefused) for e in failures)
    for error in failures:
        if reachable or isinstance(error, Forbidden):
            reason = await cluster.explain(error)
            cluster.notes.add(f"A part of the guest agent's report is missing: {reason}")
    if not reachable:
        denied = any(isinstance(error, Forbidden) for error in failures)
        return _GuestReport(agent="denied" if denied else "unreachable")
    return _GuestReport(
        "reachable",
        None if isinstance(system, ProxmoxError) else system.pretty_name or system.name,
        [] if isinstance(interfaces, ProxmoxError) else addresses_of(interfaces),
    )


async def _outcome(part: Awaitable[T]) -> T | ProxmoxError:
    """Return what a part of the guest agent's report is, or its error."""
    try:
        return await part
    except ProxmoxError as error:
        return error
