"""Content of storages: ISO images, container templates and backups."""

from collections.abc import Container, Iterable
from typing import Final

from proxmox_client.emulator.scenario.builder import Builder
from proxmox_client.emulator.state.appliance import Appliance
from proxmox_client.emulator.state.guest import Guest
from proxmox_client.emulator.state.sizes import GIB, MIB
from proxmox_client.emulator.state.storage import Volume
from proxmox_client.emulator.state.volume_names import backup_name

ISOS: Final = (
    ("debian-12.11.0-amd64-netinst.iso", 670, 150),
    ("debian-13.1.0-amd64-netinst.iso", 783, 60),
    ("ubuntu-24.04.3-live-server-amd64.iso", 3070, 95),
    ("ubuntu-22.04.4-live-server-amd64.iso", 2010, 560),
    ("AlmaLinux-9.4-x86_64-minimal.iso", 1790, 430),
    ("proxmox-ve_8.2-1.iso", 1400, 520),
    ("virtio-win-0.1.271.iso", 690, 210),
    ("virtio-win-0.1.240.iso", 590, 730),
    ("Windows_Server_2022_eval.iso", 4810, 690),
    ("systemrescue-11.00-amd64.iso", 850, 240),
    ("alpine-virt-3.22.1-x86_64.iso", 66, 40),
)
"""Names, sizes in MiB and ages in days; TEMPLATES likewise."""

TEMPLATES: Final = (
    ("debian-12-standard_12.7-1_amd64.tar.zst", 121, 300),
    ("debian-13-standard_13.1-2_amd64.tar.zst", 124, 45),
    ("ubuntu-24.04-standard_24.04-2_amd64.tar.zst", 135, 180),
    ("alpine-3.22-default_20250617_amd64.tar.xz", 3, 100),
)

INDEX: Final = (
    Appliance("debian-12", "debian-12-standard", "12.12-1"),
    Appliance("debian-13", "debian-13-standard", "13.1-2"),
    Appliance("ubuntu-24.04", "ubuntu-24.04-standard", "24.04-2"),
    Appliance("alpine", "alpine-3.22-default", "20250617", "tar.xz"),
    Appliance("alpine", "alpine-3.23-default", "20260116", "tar.xz"),
    Appliance("almalinux", "almalinux-10-default", "20250930", "tar.xz"),
    Appliance(
        "debian-12",
        "debian-12-turnkey-nextcloud",
        "18.1-1",
        "tar.gz",
        "turnkeylinux",
        "https://releases.turnkeylinux.org/pve",
    ),
)
"""Container templates that the nodes of the demo can download."""

OCI_IMAGES: Final = {
    "docker.io/library/alpine": ("3.22", "3.23", "latest"),
    "docker.io/library/nginx": ("1.28", "1.29", "1.29-alpine", "latest"),
    "registry.example.com/shop/web": ("1.4.0", "1.4.1"),
}


def add_index(builder: Builder) -> None:
    """Add the index of container templates and some images of registries."""
    builder.state.appliances = {appliance.template: appliance for appliance in INDEX}
    builder.state.oci_images = dict(OCI_IMAGES)


def add_isos(builder: Builder, storage: str, node: str, *, step: int = 1) -> None:
    """Add ISO images to a storage: all of them, or every second with a step of 2."""
    for name, megabytes, age in ISOS[::step]:
        builder.volume(storage, node, f"iso/{name}", "iso", megabytes * MIB, age_days=age)


def add_templates(builder: Builder, storage: str, node: str) -> None:
    """Add container templates to a storage."""
    for name, megabytes, age in TEMPLATES:
        suffix = "tzst" if name.endswith("zst") else "txz"
        size = megabytes * MIB
        builder.volume(storage, node, f"vztmpl/{name}", "vztmpl", size, age_days=age, format=suffix)


def add_backups(
    builder: Builder,
    storage: str,
    guest: Guest,
    hours_ago: Iterable[float],
    *,
    protected: Container[int] = (),
) -> None:
    """Add backups of a guest to a storage; on a backup server, one in fifty is corrupt.

    `protected` has the positions of the protected ones.
    """
    target, random = builder.state.storages[storage], builder.random.random
    disk_size = sum(disk.size for disk in guest.disks())
    config = "".join(f"{key}: {value}\n" for key, value in sorted(guest.config.items()))
    for position, age in enumerate(hours_ago):
        created = int(builder.now - age * 3600)
        volid, format_ = backup_name(target, guest, created)
        size = int(disk_size * (0.25 + 0.2 * random()))
        volume = Volume(
            volid,
            "backup",
            format_,
            size or GIB,
            created,
            guest.vmid,
            subtype=guest.kind.value,
            notes=guest.name,
            protected=position in protected,
            used=size // 8 if target.is_backup_server else None,
        )
        volume.config = config
        if target.is_backup_server:
            volume.verified = "failed" if random() < 0.02 else "ok"
        target.put(guest.node, volume)


def fill_storage(builder: Builder, storage: str, node: str, share: float) -> None:
    """Set the used space of a storage to a share of its size, unlisted files included."""
    target = builder.state.storages[storage]
    target.other_used = 0
    target.other_used = max(0, int(target.total * share) - target.used(node))
