"""Storages and volumes in API responses."""

from typing import Any

from proxmox_client.emulator.state.storage import Storage, Volume


def storage_status(storage: Storage, node: str) -> dict[str, Any]:
    """Return the status of a storage on a node; an inactive one has no sizes."""
    enabled = storage.enabled and storage.on(node)
    active = enabled and not storage.failure_on(node)
    total, used = (storage.total, storage.used(node)) if active else (0, 0)
    return {
        "type": storage.type,
        "content": ",".join(storage.content),
        "shared": int(storage.shared),
        "enabled": int(enabled),
        "active": int(active),
        "total": total,
        "used": used,
        "avail": max(0, total - used),
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
    if volume.content != "backup":
        return row
    row |= {"vmid": volume.vmid, "subtype": volume.subtype}
    extra = {
        "notes": volume.notes.partition("\n")[0],
        "protected": int(volume.protected),
        "encrypted": volume.encrypted,
    }
    row |= {key: value for key, value in extra.items() if value}
    if volume.verified:
        when = f"{volume.ctime:08X}"
        upid = f"UPID:pbs:{when}:00000000:{when}:verify:{volume.vmid}:root@pam:"
        row["verification"] = {"state": volume.verified, "upid": upid}
    return row
