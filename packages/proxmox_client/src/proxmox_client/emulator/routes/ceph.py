"""Ceph, where a cluster has a storage on it."""

from typing import Any

from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.router import Call, route


@route("GET", "/cluster/ceph/status", "/nodes/{node}/ceph/status")
def status(call: Call) -> dict[str, Any]:
    """GET …/ceph/status: a node that is down takes its disks out of service."""
    pools = [storage for storage in call.state.storages.values() if storage.type == "rbd"]
    if not pools:
        raise ApiError("binary not installed: /usr/bin/ceph-mon")
    nodes = call.state.nodes.values()
    down = [node.name for node in nodes if not node.online]
    disks = 4 * len(nodes)
    used = sum(storage.used(call.here.name) for storage in pools)
    total = sum(storage.total for storage in pools)
    return {
        "fsid": f"{call.state.seed:08x}-0000-4000-8000-00000000ce91",
        "health": {"status": "HEALTH_WARN" if down else "HEALTH_OK", "checks": _checks(down)},
        "quorum_names": [node.name for node in nodes if node.online][:3],
        "osdmap": {
            "num_osds": disks,
            "num_up_osds": disks - 4 * len(down),
            "num_in_osds": disks - 4 * len(down),
        },
        "pgmap": {
            "num_pgs": 512,
            "num_pools": len(pools),
            "bytes_used": used,
            "bytes_avail": total - used,
            "bytes_total": total,
        },
    }


def _checks(down: list[str]) -> dict[str, Any]:
    if not down:
        return {}
    message = f"{4 * len(down)} osds down on {', '.join(down)}"
    summary = {"message": message, "count": 4 * len(down)}
    return {"OSD_DOWN": {"severity": "HEALTH_WARN", "muted": False, "summary": summary}}
