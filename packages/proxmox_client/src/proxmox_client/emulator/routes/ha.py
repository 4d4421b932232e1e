"""High availability: resources, state, groups until 8.4 and rules from 9.0."""

from typing import Any

from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.router import Call, route
from proxmox_client.emulator.state.jobs import HaResource

GROUPS_ARE_GONE = "cannot index groups: ha groups have been migrated to rules"
DIGEST = "4dd3971250fa8fec8b0671a603fab2ce9977ba0f"


@route("GET", "/cluster/ha/resources")
def resources(call: Call) -> list[dict[str, Any]]:
    """GET /cluster/ha/resources."""
    return [_row(each) for each in call.state.ha_resources.values()]


@route("GET", "/cluster/ha/resources/{sid}")
def resource(call: Call) -> dict[str, Any]:
    """GET /cluster/ha/resources/{sid}."""
    return _row(_find(call))


@route("POST", "/cluster/ha/resources")
def create(call: Call) -> None:
    """POST /cluster/ha/resources."""
    sid = _sid(call)
    if sid in call.state.ha_resources:
        raise ApiError(f"resource ID '{sid}' already defined")
    vmid = int(sid.partition(":")[2])
    if vmid not in call.state.guests:
        raise ApiError(f"unable to read file '{sid}': no such guest")
    made = HaResource(sid, call.get("state", "started"), call.get("group", ""))
    made.comment = call.get("comment", "")
    call.state.ha_resources[sid] = made
    call.state.guests[vmid].touch()


@route("PUT", "/cluster/ha/resources/{sid}")
def update(call: Call) -> None:
    """PUT /cluster/ha/resources/{sid}."""
    found = _find(call)
    found.state = call.get("state", found.state)
    found.comment = call.get("comment", found.comment)
    found.group = call.get("group", found.group)
    if found.vmid in call.state.guests:
        call.state.guests[found.vmid].touch()


@route("DELETE", "/cluster/ha/resources/{sid}")
def delete(call: Call) -> None:
    """DELETE /cluster/ha/resources/{sid}."""
    found = _find(call)
    del call.state.ha_resources[found.sid]
    if found.vmid in call.state.guests:
        call.state.guests[found.vmid].touch()


@route("GET", "/cluster/ha/status/current")
def status(call: Call) -> list[dict[str, Any]]:
    """GET /cluster/ha/status/current."""
    state = call.state
    quorum = {
        "id": "quorum",
        "type": "quorum",
        "node": call.here.name,
        "status": "OK" if state.quorate else "No quorum on node",
        "quorate": int(state.quorate),
    }
    rows: list[dict[str, Any]] = [quorum]
    if state.ha_resources:
        master = next(node.name for node in state.nodes.values() if node.online)
        text = f"{master} (active)"
        rows.append({"id": "master", "type": "master", "node": master, "status": text})
    if state.release >= (9, 1):
        rows.append(_fencing(call))
    return [*rows, *(_service(call, each) for each in state.ha_resources.values())]


@route("GET", "/cluster/ha/groups")
def groups(call: Call) -> list[dict[str, Any]]:
    """GET /cluster/ha/groups."""
    if call.state.release >= (9, 0):
        raise ApiError(GROUPS_ARE_GONE)
    return list(call.state.ha_groups.values())


@route("GET", "/cluster/ha/rules")
def rules(call: Call) -> list[dict[str, Any]]:
    """GET /cluster/ha/rules."""
    return [{**rule, "digest": DIGEST} for rule in call.state.ha_rules.values()]


def _fencing(call: Call) -> dict[str, Any]:
    armed = bool(call.state.ha_resources)
    return {
        "id": "fencing",
        "type": "fencing",
        "node": call.here.name,
        "armed-state": "armed" if armed else "standby",
        "status": "armed (CRM watchdog active)" if armed else "standby (CRM watchdog standby)",
    }


def _service(call: Call, each: HaResource) -> dict[str, Any]:
    guest = call.state.guests[each.vmid]
    crm = "started" if guest.running else "stopped"
    return {
        "id": f"service:{each.sid}",
        "type": "service",
        "sid": each.sid,
        "node": guest.node,
        "state": crm,
        "crm_state": crm,
        "request_state": each.state,
        "max_restart": each.max_restart,
        "max_relocate": each.max_relocate,
        "status": f"{each.sid} ({guest.node}, {crm})",
    }


def _sid(call: Call) -> str:
    sid = str(call.params["sid"])
    if ":" in sid:
        return sid
    guest = call.state.guests.get(int(sid)) if sid.isdigit() else None
    return f"{guest.kind.word.lower() if guest else 'vm'}:{sid}"


def _find(call: Call) -> HaResource:
    sid = _sid(call)
    if sid not in call.state.ha_resources:
        raise ApiError(f"no such resource '{sid}'")
    return call.state.ha_resources[sid]


def _row(each: HaResource) -> dict[str, Any]:
    row: dict[str, Any] = {
        "sid": each.sid,
        "type": each.sid.partition(":")[0],
        "state": each.state,
        "digest": DIGEST,
    }
    extra = {"group": each.group, "comment": each.comment}
    return row | {key: value for key, value in extra.items() if value}
