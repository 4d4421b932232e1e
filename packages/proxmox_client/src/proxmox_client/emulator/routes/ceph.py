"""The status of Ceph, for clusters with an RBD storage."""

from typing import Any

from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.router import ApiRequest, route
from proxmox_client.emulator.state.storage import Storage

OSDS_OF_A_NODE = 4
MONITORS = 3


@route("GET", "/cluster/ceph/status", "/nodes/{node}/ceph/status")
def status(request: ApiRequest) -> dict[str, Any]:
    """GET …/ceph/status: the OSDs of an offline node are down."""
    pools = _pools(request)
    nodes = request.state.nodes.values()
    down = [node.name for node in nodes if not node.online]
    disks = OSDS_OF_A_NODE * len(nodes)
    checks = _checks(down) | _flags(request.state.ceph_flags)
    used = sum(storage.used(request.local_node.name) for storage in pools)
    total = sum(storage.total for storage in pools)
    return {
        "fsid": f"{request.state.seed:08x}-0000-4000-8000-00000000ce91",
        "health": {"status": "HEALTH_WARN" if checks else "HEALTH_OK", "checks": checks},
        "quorum_names": [node.name for node in nodes if node.online][:MONITORS],
        "osdmap": {
            "num_osds": disks,
            "num_up_osds": disks - OSDS_OF_A_NODE * len(down),
            "num_in_osds": disks - OSDS_OF_A_NODE * len(down),
        },
        "pgmap": {
            "num_pgs": 512,
            "num_pools": len(pools),
            "bytes_used": used,
            "bytes_avail": total - used,
            "bytes_total": total,
        },
    }


@route("GET", "/cluster/ceph/metadata")
def metadata(request: ApiRequest) -> dict[str, Any]:
    """GET /cluster/ceph/metadata: the daemons and their nodes."""
    _pools(request)
    nodes = request.state.nodes.values()
    monitors = [node.name for node in nodes if node.online][:MONITORS]
    return {
        "mds": {},
        "mgr": {},
        "mon": {f"{name}@{name}": {"hostname": name, "name": name} for name in monitors},
        "node": {node.name: {"buildcommit": "", "version": {}} for node in nodes},
        "osd": [
            {"id": number * OSDS_OF_A_NODE + disk, "hostname": node.name}
            for number, node in enumerate(nodes)
            for disk in range(OSDS_OF_A_NODE)
        ],
    }


def _pools(request: ApiRequest) -> list[Storage]:
    """Return the storages on Ceph; raise ApiError if there are none."""
    pools = [storage for storage in request.state.storages.values() if storage.type == "rbd"]
    if not pools:
        raise ApiError("binary not installed: /usr/bin/ceph-mon")
    return pools


def _flags(flags: set[str]) -> dict[str, Any]:
    if not flags:
        return {}
    summary = {"message": f"{','.join(sorted(flags))} flag(s) set", "count": len(flags)}
    return {"OSDMAP_FLAGS": {"severity": "HEALTH_WARN", "muted": False, "summary": summary}}


def _checks(down: list[str]) -> dict[str, Any]:
    if not down:
        return {}
    message = f"{OSDS_OF_A_NODE * len(down)} osds down on {', '.join(down)}"
    summary = {"message": message, "count": OSDS_OF_A_NODE * len(down)}
    return {"OSD_DOWN": {"severity": "HEALTH_WARN", "muted": False, "summary": summary}}
