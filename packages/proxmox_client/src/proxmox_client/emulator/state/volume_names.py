"""Names that Proxmox gives to the volumes of guests."""

from datetime import UTC, datetime

from proxmox_client.emulator.state.guest import Guest, Kind
from proxmox_client.emulator.state.storage import BLOCK_TYPES, Storage


def backup_name(
    storage: Storage, guest: Guest, created: int, *, suffix: str = ".zst"
) -> tuple[str, str]:
    """Return volume ID and format of a backup of a guest; `created` is in seconds since 1970."""
    when = datetime.fromtimestamp(created, UTC)
    if storage.is_backup_server:
        kind = "vm" if guest.kind is Kind.QEMU else "ct"
        return f"{storage.name}:backup/{kind}/{guest.vmid}/{when:%Y-%m-%dT%H:%M:%SZ}", f"pbs-{kind}"
    stem = f"vzdump-{guest.kind}-{guest.vmid}-{when:%Y_%m_%d-%H_%M_%S}"
    format_ = ("vma" if guest.kind is Kind.QEMU else "tar") + suffix
    return f"{storage.name}:backup/{stem}.{format_}", format_


def state_name(storage: Storage, guest: Guest, snapshot: str) -> str:
    """Return the name of the volume with the memory of a guest's snapshot."""
    stem = f"vm-{guest.vmid}-state-{snapshot}"
    return stem if storage.type in BLOCK_TYPES else f"{guest.vmid}/{stem}.raw"


def disk_name(storage: Storage, guest: Guest, number: int) -> tuple[str, str]:
    """Return name and format of a new disk of a guest on a storage."""
    stem = f"{'base' if guest.template else 'vm'}-{guest.vmid}-disk-{number}"
    if storage.type in BLOCK_TYPES:
        if guest.kind is Kind.LXC and storage.type == "zfspool":
            return f"subvol-{guest.vmid}-disk-{number}", "subvol"
        return stem, "raw"
    format_ = "raw" if guest.kind is Kind.LXC else "qcow2"
    return f"{guest.vmid}/{stem}.{format_}", format_
