"""Storages and volumes in API responses."""

from typing import Any

from proxmox_client.emulator.state.storage import Storage, Volume


def storage_status(storage: Storage, node: str) -> dict[str, Any]:
    """Return the status of a storage on a node."""
    used = storage.used(node)
    return {
        "type": storage.type,
        "content": ",".join(storage.content),
        "shared": int(storage.shared),
        "enabled": int(storage.enabled),
        "active": int(storage.enabled),
        "total": storage.total,
        "used": used,
        "avail": max(0, storage.total - used),
    }


def volume_row(volume: Volume) -> dict[str, Any]:
    """Return the row of a volume in the content list."""
    row: dict[str, Any] = {
        "volid": volume.volid,
        "content": volume.content,
        "format": volume.format,
        "size": volume.size,
        "ctime": volume.ctime,
    }
    if volume.content in ("images", "rootdir"):
        return row | {"vmid": volume.vmid, "used": volume.allocated, "parent": volume.parent}
    if volume.content == "backup":
        row |= {"vmid": volume.vmid, "subtype": volume.subtype}
    extra = {
        "notes": volume.notes,
        "protected": int(volume.protected),
        "encrypted": volume.encrypted,
    }
    row |= {key: value for key, value in extra.items() if value}
    if volume.verified:
        when = f"{volume.ctime:08X}"
        upid = f"UPID:pbs:{when}:00000000:{when}:verify:{volume.vmid}:root@pam:"
        row["verification"] = {"state": volume.verified, "upid": upid}
    return row
