"""High availability: resources, status, groups (until 8.4) and rules (from 9.0)."""

from datetime import UTC, datetime
from typing import Any

from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.router import ApiRequest, route
from proxmox_client.emulator.state.jobs import HaResource
from proxmox_client.emulator.state.node import Node

MIGRATED = "ha groups have been migrated to rules"
GROUPS_ARE_GONE = f"cannot index groups: {MIGRATED}"
DEFAULT_LIMITS = {"max_restart": 1, "max_relocate": 1}
DIGEST = "4dd3971250fa8fec8b0671a603fab2ce9977ba0f"


@route("GET", "/cluster/ha/resources")
def resources(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /cluster/ha/resources."""
    return [
        _row(entry)
        for entry in request.state.ha_resources.values()
        if request.get("type") in (None, entry.sid.partition(":")[0])
    ]


@route("GET", "/cluster/ha/resources/{sid}")
def resource(request: ApiRequest) -> dict[str, Any]:
    """GET /cluster/ha/resources/{sid}."""
    return _row(_find(request))


@route("POST", "/cluster/ha/resources")
def create(request: ApiRequest) -> None:
    """POST /cluster/ha/resources."""
    sid = _sid(request)
    if sid in request.state.ha_resources:
        raise ApiError(f"create resource failed: resource ID '{sid}' already defined")
    vmid = int(sid.partition(":")[2])
    if vmid not in request.state.guests:
        raise ApiError(f"resource '{sid}' does not exist in cluster")
    if request.get("group") and request.state.release >= (9, 0):
        raise ApiError(f"invalid parameter 'group': {MIGRATED}")
    entry = HaResource(sid)
    _update(entry, request)
    request.state.ha_resources[sid] = entry
    request.state.guests[vmid].touch()


@route("PUT", "/cluster/ha/resources/{sid}")
def update(request: ApiRequest) -> None:
    """PUT /cluster/ha/resources/{sid}."""
    entry = _find(request)
    _update(entry, request)
    if entry.vmid in request.state.guests:
        request.state.guests[entry.vmid].touch()


@route("DELETE", "/cluster/ha/resources/{sid}")
def delete(request: ApiRequest) -> None:
    """DELETE /cluster/ha/resources/{sid}."""
    if _sid(request) not in request.state.ha_resources:
        raise ApiError(f"cannot delete service '{_sid(request)}', not HA managed!")
    entry = _find(request)
    del request.state.ha_resources[entry.sid]
    if entry.vmid in request.state.guests:
        request.state.guests[entry.vmid].touch()


@route("GET", "/cluster/ha/status/current")
def status(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /cluster/ha/status/current."""
    state = request.state
    quorum = {
        "id": "quorum",
        "type": "quorum",
        "node": request.local_node.name,
        "status": "OK" if state.quorate else f"No quorum on node '{request.local_node.name}'!",
        "quorate": int(state.quorate),
    }
    rows: list[dict[str, Any]] = [quorum]
    if state.ha_resources:
        master = next(node.name for node in state.nodes.values() if node.online)
        text = f"{master} (active)"
        rows.append({"id": "master", "type": "master", "node": master, "status": text})
    rows += [_agent(request, node) for node in state.nodes.values() if node.maintenance]
    if state.release >= (9, 1):
        rows.append(_fencing(request))
    return [*rows, *(_service(request, entry) for entry in state.ha_resources.values())]


def _agent(request: ApiRequest, node: Node) -> dict[str, Any]:
    """Return the row of a node in maintenance: its resource manager's state and time."""
    time = datetime.fromtimestamp(request.state.now, UTC).ctime()
    status = f"{node.name} (maintenance mode, {time})"
    return {
        "id": f"lrm:{node.name}",
        "type": "lrm",
        "node": node.name,
        "status": status,
        "timestamp": int(request.state.now),
    }


@route("GET", "/cluster/ha/groups")
def groups(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /cluster/ha/groups."""
    if request.state.release >= (9, 0):
        raise ApiError(GROUPS_ARE_GONE)
    return list(request.state.ha_groups.values())


@route("GET", "/cluster/ha/groups/{group}")
def group(request: ApiRequest) -> dict[str, Any]:
    """GET /cluster/ha/groups/{group}."""
    if request.state.release >= (9, 0):
        raise ApiError(f"cannot read group: {MIGRATED}")
    name = request.params["group"]
    if name not in request.state.ha_groups:
        raise ApiError(f"no such ha group '{name}'")
    return request.state.ha_groups[name]


@route("GET", "/cluster/ha/rules")
def rules(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /cluster/ha/rules."""
    return [{**rule, "digest": DIGEST} for rule in request.state.ha_rules.values()]


def _fencing(request: ApiRequest) -> dict[str, Any]:
    armed = bool(request.state.ha_resources)
    return {
        "id": "fencing",
        "type": "fencing",
        "node": request.local_node.name,
        "armed-state": "armed" if armed else "standby",
        "status": "armed (CRM watchdog active)" if armed else "standby (CRM watchdog standby)",
    }


def _service(request: ApiRequest, entry: HaResource) -> dict[str, Any]:
    guest = request.state.guests[entry.vmid]
    crm = "started" if guest.running else "stopped"
    return {
        "id": f"service:{entry.sid}",
        "type": "service",
        "sid": entry.sid,
        "node": guest.node,
        "state": crm,
        "crm_state": crm,
        "request_state": entry.state,
        **DEFAULT_LIMITS,
        **entry.limits,
        "status": f"{entry.sid} ({guest.node}, {crm})",
    }


def _sid(request: ApiRequest) -> str:
    sid = str(request.params["sid"])
    if ":" in sid:
        return sid
    guest = request.state.guests.get(int(sid)) if sid.isdigit() else None
    return f"{guest.kind.word.lower() if guest else 'vm'}:{sid}"


def _update(entry: HaResource, request: ApiRequest) -> None:
    entry.state = request.get("state", entry.state)
    entry.shows_state |= "state" in request.params
    entry.comment = request.get("comment", entry.comment)
    entry.group = request.get("group", entry.group)
    entry.limits |= {
        name: request.params[name] for name in DEFAULT_LIMITS if name in request.params
    }


def _find(request: ApiRequest) -> HaResource:
    sid = _sid(request)
    if sid not in request.state.ha_resources:
        raise ApiError(f"no such resource '{sid}'")
    return request.state.ha_resources[sid]


def _row(entry: HaResource) -> dict[str, Any]:
    row: dict[str, Any] = {
        "sid": entry.sid,
        "type": entry.sid.partition(":")[0],
        "digest": DIGEST,
        **entry.limits,
    }
    extra = {"group": entry.group, "comment": entry.comment}
    if entry.shows_state or entry.state != "started":
        extra["state"] = entry.state
    return row | {key: value for key, value in extra.items() if value}
