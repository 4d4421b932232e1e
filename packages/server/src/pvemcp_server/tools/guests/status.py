"""The live state of a guest, from outside and from inside."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

from proxmox_client import Forbidden, Lxc, ProxmoxError, Qemu, ResponseError
from proxmox_client.api.agent import AgentInterface, ContainerInterface, OsInfo
from proxmox_client.api.status import GuestStatus
from proxmox_client.api.tasks import TaskRow
from pvemcp_server.access.model import Area, Effect
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables.registry import Col, Row, Unit
from pvemcp_server.tables.values import moment, percent, share
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import OneCluster, VmId
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.registry import Document, document, tool

T = TypeVar("T")


class VmStatus(Row):
    """A guest's live state; what cannot be known is null."""

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
class _Inside:
    """What the guest says of itself."""

    agent: str | None = None
    os_name: str | None = None
    addresses: list[str] = field(default_factory=list)


@tool(
    "GetVmStatus",
    title="Guest status",
    area=Area.VMS,
    effect=Effect.READ,
    answer=VmStatus,
    needs=(needs.GUESTS, needs.AGENT),
)
async def get_vm_status(call: Call, *, cluster_name: OneCluster = None, vmid: VmId) -> Document:
    """Get a guest's live state: CPU, memory, lock, HA, running task, agent, OS, IPs."""
    cluster = await call.cluster(cluster_name)
    calls = await cluster.handle(vmid)
    status = await calls.status()
    task, inside = await asyncio.gather(
        _running_task(cluster, calls), _inside(cluster, calls, status)
    )
    return document(
        VmStatus(
            cluster=cluster.name,
            vmid=vmid,
            name=status.name,
            node=calls.node,
            type=calls.type,
            status=status.status,
            qmp_status=status.qmp_status,
            uptime=status.uptime,
            lock=status.lock,
            ha_managed=status.ha.managed,
            ha_state=status.ha.state,
            cpu_usage=percent(status.cpu),
            cpu_count=status.cpu_count,
            memory_usage=status.memory,
            memory_host=status.memory_host,
            memory_max=status.memory_max,
            memory_usage_percentage=share(status.memory, status.memory_max),
            balloon=status.balloon,
            swap_usage=status.swap,
            swap_max=status.swap_max,
            disk_usage=status.disk if calls.type == "lxc" else None,
            disk_max=status.disk_max,
            running_task=task,
            agent=inside.agent,
            os_name=inside.os_name,
            ip_addresses=inside.addresses,
        )
    )


async def _running_task(cluster: Cluster, calls: Qemu | Lxc) -> dict[str, Any] | None:
    asked = cluster.pve.node(calls.node).tasks(source="active", vmid=calls.vmid)
    rows: list[TaskRow] = await _noted(cluster, asked, "Running tasks are not known") or []
    if not rows:
        return None
    newest = max(rows, key=lambda one: one.start_time)
    return {
        "upid": newest.upid,
        "type": newest.type,
        "user": newest.user,
        "start_time": moment(newest.start_time),
    }


async def _inside(cluster: Cluster, calls: Qemu | Lxc, status: GuestStatus) -> _Inside:
    if status.status != "running":
        return _Inside()
    if isinstance(calls, Lxc):
        asked = _noted(cluster, calls.interfaces(), "Its addresses are not known")
        return _Inside(addresses=_addresses(await asked or []))
    if not status.agent:
        return _Inside(agent="off")
    return await _by_agent(cluster, calls)


async def _by_agent(cluster: Cluster, calls: Qemu) -> _Inside:
    try:
        system, interfaces = await asyncio.gather(calls.agent_os_info(), calls.agent_network())
    except Forbidden as error:
        cluster.notes.add(await cluster.explain(error))
        return _Inside(agent="denied")
    except ResponseError:
        return _Inside(agent="unreachable")
    return _Inside("reachable", _os_name(system), _addresses(interfaces))


async def _noted(cluster: Cluster, asked: Awaitable[T], what: str) -> T | None:
    """A part of the answer that may be missing, which a note then says."""
    try:
        return await asked
    except ProxmoxError as error:
        cluster.notes.add(f"{what}: {await cluster.explain(error)}")
        return None


def _os_name(system: OsInfo) -> str | None:
    return system.pretty_name or system.name


def _addresses(interfaces: list[AgentInterface] | list[ContainerInterface]) -> list[str]:
    """Every address of use to others, once."""
    found = [
        address.address
        for one in interfaces
        for address in one.addresses
        if not address.address.lower().startswith(("127.", "::1", "169.254.", "fe80:"))
    ]
    found += [
        text.partition("/")[0]
        for one in interfaces
        if isinstance(one, ContainerInterface) and one.name != "lo"
        for text in (one.inet, one.inet6)
        if text and not text.startswith(("169.254.", "fe80:"))
    ]
    return list(dict.fromkeys(found))
