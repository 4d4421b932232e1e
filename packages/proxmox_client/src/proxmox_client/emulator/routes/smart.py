"""SMART of physical disks: attributes of ATA disks, and a text of NVMe disks."""

from typing import Any

from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.router import ApiRequest, route
from proxmox_client.emulator.state.node import PhysicalDisk

BAD_SECTORS = 412
"""The sectors that a failed disk has reallocated, or the errors of its media."""


@route("GET", "/nodes/{node}/disks/smart")
def smart(request: ApiRequest) -> dict[str, Any]:
    """GET /nodes/{node}/disks/smart."""
    disk = next((d for d in request.node.disks if d.device == request.params["disk"]), None)
    if disk is None:
        raise ApiError("not a valid block device")
    if request.get("healthonly"):
        return {"health": disk.health}
    details = _text(disk) if disk.kind == "nvme" else {"type": "ata", "attributes": _ata(disk)}
    return {"health": disk.health, **details}


def _text(disk: PhysicalDisk) -> dict[str, Any]:
    errors = BAD_SECTORS if disk.health == "FAILED" else 0
    lines = (
        "SMART/Health Information (NVMe Log 0x02)",
        f"Critical Warning:                   {'0x04' if errors else '0x00'}",
        f"Temperature:                        {_temperature(disk)} Celsius",
        "Available Spare:                    100%",
        f"Percentage Used:                    {_worn(disk)}%",
        f"Power On Hours:                     {_hours(disk):,}",
        f"Media and Data Integrity Errors:    {errors}",
    )
    return {"type": "text", "text": "\n" + "\n".join(lines) + "\n"}


def _ata(disk: PhysicalDisk) -> list[dict[str, Any]]:
    bad = BAD_SECTORS if disk.health == "FAILED" else 0
    rows = (
        (5, "Reallocated_Sector_Ct", 1 if bad else 100, 10, bad),
        (9, "Power_On_Hours", 97, 0, _hours(disk)),
        (194, "Temperature_Celsius", 64, 0, _temperature(disk)),
        (197, "Current_Pending_Sector", 100, 0, bad // 4),
        (199, "UDMA_CRC_Error_Count", 200, 0, 0),
    )
    return [
        {
            "id": f"{number:3}",
            "name": name,
            "value": value,
            "worst": value,
            "threshold": threshold,
            "raw": str(raw),
            "flags": "-O--CK",
            "fail": "NOW" if value <= threshold else "-",
            "normalized": value,
        }
        for number, name, value, threshold, raw in rows
    ]


def _worn(disk: PhysicalDisk) -> int:
    return 100 - disk.wearout if isinstance(disk.wearout, int) else 0


def _hours(disk: PhysicalDisk) -> int:
    return 12_000 + sum(map(ord, disk.serial)) * 7


def _temperature(disk: PhysicalDisk) -> int:
    return 31 + sum(map(ord, disk.serial)) % 12
