"""Endpoints of the whole cluster: resources, status, tasks, options, log."""

from typing import Any

from proxmox_client.emulator.router import ApiRequest, Encoded, route
from proxmox_client.emulator.serializers.tasks import task_row

NEWEST_TASKS = 25
"""The number of finished tasks per node in /cluster/tasks."""


@route("GET", "/cluster/resources")
def resources(request: ApiRequest) -> Encoded:
    """GET /cluster/resources."""
    return Encoded(
        request.backend.resources.json(request.rights, request.get("type"), request.local_node)
    )


@route("GET", "/cluster/status")
def status(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /cluster/status."""
    state = request.state
    rows: list[dict[str, Any]] = []
    if state.grouped:
        rows.append(
            {
                "id": "cluster",
                "type": "cluster",
                "name": state.name,
                "version": len(state.nodes),
                "quorate": int(state.quorate),
                "nodes": len(state.nodes),
            }
        )
    members = (
        {
            "id": node.id,
            "type": "node",
            "name": node.name,
            "ip": node.address,
            "level": "",
            "nodeid": node.number if state.grouped else 0,
            "online": int(node.is_member),
            "local": int(node is request.local_node),
        }
        for node in state.nodes.values()
    )
    return [*rows, *members]


@route("GET", "/cluster/tasks")
def tasks(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /cluster/tasks."""
    sees_all = request.rights.has("/", "Sys.Audit")
    counts: dict[str, int] = {}
    rows = []
    for task in request.backend.tasks.all():
        if not sees_all and not request.principal.owns(task.user):
            continue
        if not task.running:
            counts[task.node] = counts.get(task.node, 0) + 1
        if counts.get(task.node, 0) <= NEWEST_TASKS:
            rows.append(task_row(task, in_cluster=True))
    return rows


@route("GET", "/cluster/nextid")
def next_id(request: ApiRequest) -> str:
    """GET /cluster/nextid."""
    vmid = request.get("vmid")
    if vmid is not None:
        if request.state.with_vmid(vmid):
            raise request.invalid(vmid=f"VM {vmid} already exists")
        return str(vmid)
    return str(next(free for free in range(100, 10**9) if not request.state.with_vmid(free)))


@route("GET", "/cluster/options")
def options(request: ApiRequest) -> dict[str, Any]:
    """GET /cluster/options."""
    if not request.rights.has_any("/", "Sys.Audit", "Sys.Modify"):
        public = ("console", "tag-style")
        visible = {key: value for key, value in request.state.options.items() if key in public}
        return visible | {"allowed-tags": _tags(request)}
    return {"description": "", **request.state.options, "allowed-tags": _tags(request)}


@route("PUT", "/cluster/options")
def set_options(request: ApiRequest) -> None:
    """PUT /cluster/options."""
    for key in str(request.get("delete", "")).replace(";", ",").split(","):
        request.state.options.pop(key.strip(), None)
    for key, value in request.params_without("delete").items():
        parts = request.endpoint.parameters[key].parts
        request.state.options[key] = _property(value) if parts else value
    if "description" in request.params:
        request.state.options["description"] = f"{request.params['description']}\n"


@route("GET", "/cluster/log")
def log(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /cluster/log."""
    sees_all = request.rights.has("/", "Sys.Syslog")
    entries = [
        entry
        for entry in reversed(request.state.log)
        if sees_all or request.principal.owns(entry.user)
    ]
    return [
        {
            "uid": str(entry.number),
            "id": f"{entry.number}:{entry.node}",
            "node": entry.node,
            "time": entry.time,
            "pid": entry.pid,
            "pri": entry.priority,
            "tag": entry.tag,
            "user": entry.user,
            "msg": entry.text,
        }
        for entry in entries[: request.get("max", 50)]
    ]


@route("GET", "/cluster/config/nodes")
def config_nodes(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /cluster/config/nodes: empty for a standalone node."""
    if not request.state.grouped:
        return []
    return [
        {
            "node": node.name,
            "name": node.name,
            "nodeid": str(node.number),
            "quorum_votes": "1",
            "ring0_addr": node.address,
        }
        for node in request.state.nodes.values()
    ]


@route("GET", "/cluster/config/qdevice")
def quorum_device(request: ApiRequest) -> dict[str, Any]:
    """GET /cluster/config/qdevice: an empty object without one."""
    return request.state.quorum_device


@route("GET", "/cluster/config/totem")
def totem(request: ApiRequest) -> dict[str, Any]:
    """GET /cluster/config/totem."""
    return {
        "cluster_name": request.state.name,
        "config_version": str(len(request.state.nodes)),
        "interface": {"0": {"linknumber": "0"}},
        "ip_version": "ipv4-6",
        "link_mode": "passive",
        "secauth": "on",
        "version": "2",
    }


def _tags(request: ApiRequest) -> list[str]:
    tags: set[str] = set()
    for guest in request.state.guests.values():
        text = str(guest.config.get("tags", ""))
        tags.update(tag for tag in text.split(";") if tag.strip())
    return sorted(tags)


def _property(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.split(",") if "=" in part)
