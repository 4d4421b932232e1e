"""The state of one node."""

from typing import Annotated

from pvemcp_server.access.model import Area, Effect
from pvemcp_server.tables.rows import Col, Row, Unit, percent
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import ItsCluster, NodeName
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.cluster_lookup import cluster_with
from pvemcp_server.toolkit.registry import Document, document, tool


class NodeState(Row):
    """A node's state."""

    cluster: Annotated[str, Col("Cluster")]
    node: Annotated[str, Col("Node")]
    pve_version: Annotated[str, Col("Version of Proxmox VE")]
    kernel_version: Annotated[str, Col("Version of the running kernel")]
    kernel_sysname: Annotated[str, Col("Name of the kernel")]
    uptime: Annotated[int, Col("Time since its start", Unit.SECONDS)]
    cpu_usage: Annotated[float | None, Col("Use of all its processors", Unit.PERCENT)]
    io_delay: Annotated[float | None, Col("Time spent waiting for disks", Unit.PERCENT)]
    load_avg_1m: Annotated[float | None, Col("Load over one minute")]
    load_avg_5m: Annotated[float | None, Col("Load over five minutes")]
    load_avg_15m: Annotated[float | None, Col("Load over fifteen minutes")]
    cpu_model: Annotated[str, Col("Processor")]
    cpu_sockets: Annotated[int | None, Col("Sockets", Unit.COUNT)]
    cpu_cores: Annotated[int | None, Col("Cores of all sockets", Unit.COUNT)]
    cpu_threads: Annotated[int | None, Col("Threads of all cores", Unit.COUNT)]
    cpu_mhz: Annotated[float | None, Col("Clock in MHz")]
    memory_used: Annotated[int, Col("Memory in use", Unit.BYTES)]
    memory_total: Annotated[int, Col("Memory", Unit.BYTES)]
    memory_free: Annotated[int | None, Col("Memory not used at all", Unit.BYTES)]
    memory_available: Annotated[int | None, Col("Memory available to programs (9.x)", Unit.BYTES)]
    swap_used: Annotated[int, Col("Swap in use", Unit.BYTES)]
    swap_total: Annotated[int, Col("Swap", Unit.BYTES)]
    rootfs_used: Annotated[int, Col("Root file system in use", Unit.BYTES)]
    rootfs_total: Annotated[int, Col("Root file system", Unit.BYTES)]
    rootfs_avail: Annotated[int | None, Col("Root file system left", Unit.BYTES)]
    boot_mode: Annotated[str, Col("efi or legacy-bios")]
    secure_boot: Annotated[bool | None, Col("Whether secure boot is active")]


@tool("GetNodeStatus", area=Area.NODES, effect=Effect.READ, answer=NodeState, needs=(needs.NODES,))
async def get_node_status(
    call: Call, *, cluster_name: ItsCluster = None, node: NodeName
) -> Document:
    """Get a node's state: version, kernel, load, CPU, memory, swap, root disk, boot."""
    cluster = await cluster_with(call, cluster_name, nodes=[node])
    name = (await cluster.node(node)).node
    await cluster.require_not_offline(name)
    status = await cluster.pve.node(name).status()
    load = [*status.load_average, None, None, None]
    return document(
        NodeState(
            cluster=cluster.name,
            node=name,
            pve_version=_release(status.pve_version),
            kernel_version=status.kernel.release or status.kernel_version,
            kernel_sysname=status.kernel.sysname or status.kernel_version.partition(" ")[0],
            uptime=status.uptime,
            cpu_usage=percent(status.cpu),
            io_delay=percent(status.io_delay),
            load_avg_1m=load[0],
            load_avg_5m=load[1],
            load_avg_15m=load[2],
            cpu_model=status.cpu_info.model,
            cpu_sockets=status.cpu_info.sockets,
            cpu_cores=status.cpu_info.cores,
            cpu_threads=status.cpu_info.cpus,
            cpu_mhz=status.cpu_info.mhz,
            memory_used=status.memory.used,
            memory_total=status.memory.total,
            memory_free=status.memory.free,
            memory_available=status.memory.available,
            swap_used=status.swap.used,
            swap_total=status.swap.total,
            rootfs_used=status.root.used,
            rootfs_total=status.root.total,
            rootfs_avail=status.root.avail,
            boot_mode=status.boot.mode,
            secure_boot=status.boot.secure_boot,
        )
    )


def _release(text: str) -> str:
    """Return the version in `pve-manager/9.2.11/14a22df3`: 9.2.11."""
    parts = text.split("/")
    return parts[1] if len(parts) > 1 else text
