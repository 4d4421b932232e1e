"""Physical disks of servers."""

import random
from typing import Final

from proxmox_client.emulator.state.node import PhysicalDisk
from proxmox_client.emulator.state.sizes import GIB

_MODELS: Final = (
    ("nvme", "SAMSUNG MZQL21T9HCJR-00A07", 1788 * GIB, "ZFS"),
    ("nvme", "INTEL SSDPE2KX020T8", 1863 * GIB, "LVM"),
    ("ssd", "SAMSUNG MZ7L3960HCJR", 894 * GIB, "LVM"),
    ("hdd", "ST12000NM001G-2MV103", 11176 * GIB, "ZFS"),
)


def random_disks(draw: random.Random) -> list[PhysicalDisk]:
    """Return a boot disk and two data disks with random wear."""
    disks = [
        PhysicalDisk(
            "/dev/sda", 223 * GIB, "INTEL SSDSC2KB240G8", _serial(draw), "ssd", used="BIOS boot"
        )
    ]
    for number in range(2):
        kind, model, size, used = draw.choice(_MODELS)
        device = f"/dev/nvme{number}n1" if kind == "nvme" else f"/dev/sd{'bc'[number]}"
        disks.append(PhysicalDisk(device, size, model, _serial(draw), kind, used=used))
    for disk in disks:
        disk.wearout = "N/A" if disk.kind == "hdd" else draw.randrange(62, 100)
        disk.rpm = 7200 if disk.kind == "hdd" else 0
    return disks


def _serial(draw: random.Random) -> str:
    return "S" + "".join(draw.choice("0123456789ABCDEFGHJKLMNPRSTVWX") for _ in range(13))
