"""The status of Ceph, for clusters with an RBD storage."""

from typing import Any

from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.router import ApiRequest, route


@route("GET", "/cluster/ceph/status", "/nodes/{node}/ceph/status")
def status(request: ApiRequest) -> dict[str, Any]:
    """GET …/ceph/status: the OSDs of an offline node are down."""
    pools = [storage for storage in request.state.storages.values() if storage.type == "rbd"]
    if not pools:
        raise ApiError("binary not installed: /usr/bin/ceph-mon")
    nodes = request.state.nodes.values()
    down = [node.name for node in nodes if not node.online]
    disks = 4 * len(nodes)
    used = sum(storage.used(request.local_node.name) for storage in pools)
    total = sum(storage.total for storage in pools)
    return {
        "fsid": f"{request.state.seed:08x}-0000-4000-8000-00000000ce91",
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
