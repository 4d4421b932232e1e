"""What the physical disks of nodes report about themselves."""

from typing import Annotated, ClassVar

from proxmox_client import Node
from proxmox_client.api.hardware import Disk
from proxmox_client.api.smart import Smart
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables import fanout
from pvemcp_server.tables.guests import TO_NODE
from pvemcp_server.tables.per_node import rows_of_nodes
from pvemcp_server.tables.reach import of_node
from pvemcp_server.tables.registry import (
    Cost,
    LoadRequest,
    Relation,
    made,
    never_filtered,
    table,
)
from pvemcp_server.tables.rows import Caveat, Col, Gap, Row, Unit

_TO_DISK = Relation(
    "disk", "node_disks", {"node": "node", "device": "device"}, "The disk with its size and use"
)


class SmartReport(Row):
    """What a physical disk reports about itself; null where its kind has no such value."""

    minimal: ClassVar[tuple[str, ...]] = (
        *("node", "device", "model", "health", "power_on_hours", "percentage_used"),
        *("reallocated_sectors", "media_errors", "failing"),
    )

    node: Annotated[str, Col("Node it is in")]
    device: Annotated[str, Col("Path of the device")]
    model: Annotated[str | None, Col("Model")]
    serial: Annotated[str | None, Col("Serial number")]
    type: Annotated[str | None, Col("ata has attributes; text is of NVMe and SAS disks")]
    health: Annotated[
        str | None,
        Col(
            "Its own verdict: PASSED, OK, FAILED, UNKNOWN",
            gap=Gap("SMART has no verdict on them", ("unknown",)),
        ),
    ]
    power_on_hours: Annotated[int | None, Col("Hours that it has been on")]
    temperature: Annotated[int | None, Col("Temperature in °C")]
    percentage_used: Annotated[
        int | None,
        Col(
            "Part of its rated life that an NVMe disk has used",
            Unit.PERCENT,
            gap=Gap("only NVMe disks report it"),
            caveat=Caveat("percentage_used grows: 0 is new, 100 or more is worn out."),
        ),
    ]
    reallocated_sectors: Annotated[int | None, Col("Sectors that an ATA disk has replaced")]
    pending_sectors: Annotated[int | None, Col("Sectors that an ATA disk could not read")]
    media_errors: Annotated[int | None, Col("Errors of media and data integrity, of NVMe disks")]
    crc_errors: Annotated[int | None, Col("Errors of the cable, of ATA disks")]
    critical_warning: Annotated[int | None, Col("Bits of warning, of NVMe disks; 0 for none")]
    failing: Annotated[list[str], Col("Attributes that are, or were, below their threshold")]
    attributes: Annotated[list[str], Col("All attributes of an ATA disk: name=raw value")]


@table(
    "smart",
    tool="ListNodeDisks",
    cost=Cost.PER_DISK,
    covered=of_node,
    relations=(TO_NODE, _TO_DISK),
    looks_filtered=never_filtered,
    rare=True,
)
async def smart(cluster: Cluster, request: LoadRequest) -> list[SmartReport]:
    """SMART values of the physical disks of nodes; the account needs Sys.Audit on /."""
    listed = await rows_of_nodes(
        cluster, request, Node.disks, lambda node, disk: (node, disk), "disks of node"
    )
    disks = {(disk.device, node): disk for node, disk in listed}

    async def ask(place: tuple[str, str]) -> Smart:
        device, node = place
        return await cluster.pve.node(node).smart(device)

    answers = await fanout.each(cluster, disks, ask, request, "SMART values of")
    items = ((place[1], disks[place], answer) for place, answer in answers.items())
    return await made(cluster, items, lambda item: [_row(*item)])


def _row(node: str, disk: Disk, smart: Smart) -> SmartReport:
    return SmartReport(
        node=node,
        device=disk.device,
        model=disk.model,
        serial=disk.serial,
        type=smart.type,
        health=smart.health,
        power_on_hours=smart.attribute("Power_On_Hours", "Power On Hours"),
        temperature=smart.attribute(
            "Temperature_Celsius", "Airflow_Temperature_Cel", "Temperature"
        ),
        percentage_used=smart.attribute("Percentage Used"),
        reallocated_sectors=smart.attribute("Reallocated_Sector_Ct"),
        pending_sectors=smart.attribute("Current_Pending_Sector"),
        media_errors=smart.attribute("Media and Data Integrity Errors"),
        crc_errors=smart.attribute("UDMA_CRC_Error_Count", "CRC_Error_Count"),
        critical_warning=smart.attribute("Critical Warning"),
        failing=[each.name for each in smart.attributes if each.is_failing],
        attributes=[f"{each.name}={each.raw}" for each in smart.attributes],
    )
