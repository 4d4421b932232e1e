"""The cluster as a whole."""

from typing import Any

from proxmox_client.emulator.router import Call, Encoded, route
from proxmox_client.emulator.views.tasks import task_row

NEWEST_TASKS = 25
"""Finished tasks /cluster/tasks shows of every node."""


@route("GET", "/cluster/resources")
def resources(call: Call) -> Encoded:
    """GET /cluster/resources."""
    return Encoded(call.cluster.resources.json(call.rights, call.get("type")))


@route("GET", "/cluster/status")
def status(call: Call) -> list[dict[str, Any]]:
    """GET /cluster/status."""
    state = call.state
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
            "online": int(node.online),
            "local": int(node is call.here),
        }
        for node in state.nodes.values()
    )
    return [*rows, *members]


@route("GET", "/cluster/tasks")
def tasks(call: Call) -> list[dict[str, Any]]:
    """GET /cluster/tasks."""
    sees_all = call.rights.has("/", "Sys.Audit")
    counted: dict[str, int] = {}
    rows = []
    for task in call.cluster.tasks.all():
        if not sees_all and not call.caller.owns(task.user):
            continue
        if not task.running:
            counted[task.node] = counted.get(task.node, 0) + 1
        if counted.get(task.node, 0) <= NEWEST_TASKS:
            rows.append(task_row(task, in_cluster=True))
    return rows


@route("GET", "/cluster/nextid")
def next_id(call: Call) -> str:
    """GET /cluster/nextid."""
    wanted = call.get("vmid")
    if wanted is not None:
        if wanted in call.state.guests:
            raise call.bad(vmid=f"VM {wanted} already exists")
        return str(wanted)
    return str(next(vmid for vmid in range(100, 10**9) if vmid not in call.state.guests))


@route("GET", "/cluster/options")
def options(call: Call) -> dict[str, Any]:
    """GET /cluster/options."""
    if not call.rights.has_any("/", "Sys.Audit", "Sys.Modify"):
        limited = ("console", "tag-style", "mac_prefix")
        shown = {key: value for key, value in call.state.options.items() if key in limited}
        return shown | {"allowed-tags": _tags(call)}
    return {"description": "", **call.state.options, "allowed-tags": _tags(call)}


@route("PUT", "/cluster/options")
def set_options(call: Call) -> None:
    """PUT /cluster/options."""
    for key in str(call.get("delete", "")).replace(";", ",").split(","):
        call.state.options.pop(key.strip(), None)
    for key, value in call.given("delete").items():
        parameter = call.cluster.schema.find("PUT", "/cluster/options")
        parts = parameter[0].parameters[key].parts if parameter else None
        call.state.options[key] = _property(value) if parts else value
    if "description" in call.params:
        call.state.options["description"] = f"{call.params['description']}\n"


@route("GET", "/cluster/log")
def log(call: Call) -> list[dict[str, Any]]:
    """GET /cluster/log."""
    sees_all = call.rights.has("/", "Sys.Syslog")
    entries = [
        entry for entry in reversed(call.state.log) if sees_all or call.caller.owns(entry.user)
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
        for entry in entries[: call.get("max", 50)]
    ]


@route("GET", "/cluster/config/nodes")
def config_nodes(call: Call) -> list[dict[str, Any]]:
    """GET /cluster/config/nodes."""
    return [
        {
            "node": node.name,
            "name": node.name,
            "nodeid": str(node.number),
            "quorum_votes": "1",
            "ring0_addr": node.address,
        }
        for node in call.state.nodes.values()
    ]


@route("GET", "/cluster/config/totem")
def totem(call: Call) -> dict[str, Any]:
    """GET /cluster/config/totem."""
    return {
        "cluster_name": call.state.name,
        "config_version": str(len(call.state.nodes)),
        "interface": {"0": {"linknumber": "0"}},
        "ip_version": "ipv4-6",
        "link_mode": "passive",
        "secauth": "on",
        "version": "2",
    }


def _tags(call: Call) -> list[str]:
    tags: set[str] = set()
    for guest in call.state.guests.values():
        text = str(guest.config.get("tags", ""))
        tags.update(tag for tag in text.split(";") if tag.strip())
    return sorted(tags)


def _property(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.split(",") if "=" in part)
