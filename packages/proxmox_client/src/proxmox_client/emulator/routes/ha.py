"""High availability: resources, status, groups (until 8.4) and rules (from 9.0)."""

from typing import Any

from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.router import ApiRequest, route
from proxmox_client.emulator.state.jobs import HaResource

GROUPS_ARE_GONE = "cannot index groups: ha groups have been migrated to rules"
DIGEST = "4dd3971250fa8fec8b0671a603fab2ce9977ba0f"


@route("GET", "/cluster/ha/resources")
def resources(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /cluster/ha/resources."""
    return [_row(entry) for entry in request.state.ha_resources.values()]


@route("GET", "/cluster/ha/resources/{sid}")
def resource(request: ApiRequest) -> dict[str, Any]:
    """GET /cluster/ha/resources/{sid}."""
    return _row(_find(request))


@route("POST", "/cluster/ha/resources")
def create(request: ApiRequest) -> None:
    """POST /cluster/ha/resources."""
    sid = _sid(request)
    if sid in request.state.ha_resources:
        raise ApiError(f"resource ID '{sid}' already defined")
    vmid = int(sid.partition(":")[2])
    if vmid not in request.state.guests:
        raise ApiError(f"unable to read file '{sid}': no such guest")
    entry = HaResource(sid, request.get("state", "started"), request.get("group", ""))
    entry.comment = request.get("comment", "")
    request.state.ha_resources[sid] = entry
    request.state.guests[vmid].touch()


@route("PUT", "/cluster/ha/resources/{sid}")
def update(request: ApiRequest) -> None:
    """PUT /cluster/ha/resources/{sid}."""
    entry = _find(request)
    entry.state = request.get("state", entry.state)
    entry.comment = request.get("comment", entry.comment)
    entry.group = request.get("group", entry.group)
    if entry.vmid in request.state.guests:
        request.state.guests[entry.vmid].touch()


@route("DELETE", "/cluster/ha/resources/{sid}")
def delete(request: ApiRequest) -> None:
    """DELETE /cluster/ha/resources/{sid}."""
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
        "status": "OK" if state.quorate else "No quorum on node",
        "quorate": int(state.quorate),
    }
    rows: list[dict[str, Any]] = [quorum]
    if state.ha_resources:
        master = next(node.name for node in state.nodes.values() if node.online)
        text = f"{master} (active)"
        rows.append({"id": "master", "type": "master", "node": master, "status": text})
    if state.release >= (9, 1):
        rows.append(_fencing(request))
    return [*rows, *(_service(request, entry) for entry in state.ha_resources.values())]


@route("GET", "/cluster/ha/groups")
def groups(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /cluster/ha/groups."""
    if request.state.release >= (9, 0):
        raise ApiError(GROUPS_ARE_GONE)
    return list(request.state.ha_groups.values())


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
        "max_restart": entry.max_restart,
        "max_relocate": entry.max_relocate,
        "status": f"{entry.sid} ({guest.node}, {crm})",
    }


def _sid(request: ApiRequest) -> str:
    sid = str(request.params["sid"])
    if ":" in sid:
        return sid
    guest = request.state.guests.get(int(sid)) if sid.isdigit() else None
    return f"{guest.kind.word.lower() if guest else 'vm'}:{sid}"


def _find(request: ApiRequest) -> HaResource:
    sid = _sid(request)
    if sid not in request.state.ha_resources:
        raise ApiError(f"no such resource '{sid}'")
    return request.state.ha_resources[sid]


def _row(entry: HaResource) -> dict[str, Any]:
    row: dict[str, Any] = {
        "sid": entry.sid,
        "type": entry.sid.partition(":")[0],
        "state": entry.state,
        "digest": DIGEST,
    }
    extra = {"group": entry.group, "comment": entry.comment}
    return row | {key: value for key, value in extra.items() if value}
