"""Physical disks of nodes."""

from typing import Annotated, ClassVar

from proxmox_client.api.hardware import Disk
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables import fanout
from pvemcp_server.tables.guests import TO_NODE
from pvemcp_server.tables.reach import of_node
from pvemcp_server.tables.registry import Cost, LoadRequest, made, never_filtered, table
from pvemcp_server.tables.rows import Caveat, Col, Gap, Row, Unit


class NodeDisk(Row):
    """A physical disk."""

    minimal: ClassVar[tuple[str, ...]] = (
        "node",
        "device",
        "type",
        "model",
        "serial",
        "size",
        "health",
        "wearout",
        "used_for",
    )

    node: Annotated[str, Col("Node it is in")]
    device: Annotated[str, Col("Path of the device")]
    type: Annotated[str, Col("hdd, ssd, nvme, usb or unknown")]
    model: Annotated[str | None, Col("Model")]
    serial: Annotated[str | None, Col("Serial number")]
    size: Annotated[int | None, Col("Size", Unit.BYTES)]
    health: Annotated[
        str | None,
        Col(
            "What SMART says: PASSED, OK, FAILED, UNKNOWN",
            gap=Gap("SMART has no verdict on them", ("unknown",)),
        ),
    ]
    wearout: Annotated[
        float | None,
        Col(
            "Remaining life (100 = new), where an SSD reports it; Proxmox calls it wearout",
            Unit.PERCENT,
            gap=Gap("only some SSDs report it, and no hard disk"),
            caveat=Caveat("wearout is the remaining life: 100 is new, 0 is worn out."),
        ),
    ]
    used_for: Annotated[str | None, Col("What it is used for: LVM, ZFS, mounted …")]
    vendor: Annotated[str | None, Col("Vendor")]
    wwn: Annotated[str | None, Col("World wide name")]


@table(
    "node_disks",
    tool="ListNodeDisks",
    cost=Cost.PER_NODE,
    covered=of_node,
    relations=(TO_NODE,),
    looks_filtered=never_filtered,
)
async def node_disks(cluster: Cluster, request: LoadRequest) -> list[NodeDisk]:
    """Physical disks of nodes with their health."""
    answers = await fanout.each(
        cluster,
        await fanout.nodes(cluster, request),
        lambda node: cluster.pve.node(node).disks(),
        request,
        "disks of node",
    )
    pairs = ((node, disk) for node, disks in answers.items() for disk in disks)
    return await made(cluster, pairs, lambda pair: [_row(*pair)])


def _row(node: str, disk: Disk) -> NodeDisk:
    return NodeDisk(
        node=node,
        device=disk.device,
        type=disk.type,
        model=disk.model,
        serial=disk.serial,
        size=disk.size,
        health=disk.health,
        wearout=disk.life_left,
        used_for=disk.used,
        vendor=disk.vendor,
        wwn=disk.wwn,
    )
