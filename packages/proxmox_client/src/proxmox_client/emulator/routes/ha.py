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
MODIFIED = "detected modified configuration - file changed by other user? Try again."
RULE_OPTIONS = ("type", "resources", "nodes", "affinity", "strict", "comment", "disable")
GROUP_OPTIONS = ("nodes", "restricted", "nofailback", "comment")


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
    _require_digest(request)
    for name in _removed(request):
        entry.limits.pop(name, None)
        if name in ("comment", "group"):
            setattr(entry, name, "")
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
    return _find_group(request)


@route("POST", "/cluster/ha/groups")
def create_group(request: ApiRequest) -> None:
    """POST /cluster/ha/groups."""
    if request.state.release >= (9, 0):
        raise ApiError(f"cannot create group: {MIGRATED}")
    name = request.params["group"]
    if name in request.state.ha_groups:
        raise ApiError(f"create ha group failed: group ID '{name}' already defined")
    request.state.ha_groups[name] = {
        "group": name,
        "type": "group",
        **_chosen(request, GROUP_OPTIONS),
    }


@route("PUT", "/cluster/ha/groups/{group}")
def update_group(request: ApiRequest) -> None:
    """PUT /cluster/ha/groups/{group}."""
    if request.state.release >= (9, 0):
        raise ApiError(f"cannot update group: {MIGRATED}")
    entry = _find_group(request)
    for name in _removed(request):
        entry.pop(name, None)
    entry |= _chosen(request, GROUP_OPTIONS)


@route("DELETE", "/cluster/ha/groups/{group}")
def delete_group(request: ApiRequest) -> None:
    """DELETE /cluster/ha/groups/{group}."""
    if request.state.release >= (9, 0):
        raise ApiError(f"cannot delete group: {MIGRATED}")
    name = request.params["group"]
    users = [sid for sid, entry in request.state.ha_resources.items() if entry.group == name]
    if users:
        raise ApiError(f"delete group failed: ha group is used by service '{users[0]}'")
    request.state.ha_groups.pop(name, None)


@route("GET", "/cluster/ha/rules")
def rules(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /cluster/ha/rules."""
    return [
        {**rule, "digest": DIGEST}
        for rule in request.state.ha_rules.values()
        if request.get("type") in (None, rule["type"])
        and request.get("resource") in (None, *rule["resources"].split(","))
    ]


@route("GET", "/cluster/ha/rules/{rule}")
def rule(request: ApiRequest) -> dict[str, Any]:
    """GET /cluster/ha/rules/{rule}."""
    return {**_find_rule(request), "digest": DIGEST}


@route("POST", "/cluster/ha/rules")
def create_rule(request: ApiRequest) -> None:
    """POST /cluster/ha/rules."""
    name = request.params["rule"]
    if name in request.state.ha_rules:
        raise ApiError(f"create ha rule failed: HA rule '{name}' already defined")
    entry = {"rule": name, "order": len(request.state.ha_rules) + 1}
    request.state.ha_rules[name] = _checked_rule(
        request, entry | _chosen(request, RULE_OPTIONS), "create"
    )


@route("PUT", "/cluster/ha/rules/{rule}")
def update_rule(request: ApiRequest) -> None:
    """PUT /cluster/ha/rules/{rule}."""
    _require_digest(request)
    entry = dict(_find_rule(request))
    for name in _removed(request):
        entry.pop(name, None)
    changed = _checked_rule(request, entry | _chosen(request, RULE_OPTIONS), "update")
    request.state.ha_rules[request.params["rule"]] = changed


@route("DELETE", "/cluster/ha/rules/{rule}")
def delete_rule(request: ApiRequest) -> None:
    """DELETE /cluster/ha/rules/{rule}: a missing one is no error."""
    request.state.ha_rules.pop(request.params["rule"], None)


def _checked_rule(request: ApiRequest, entry: dict[str, Any], action: str) -> dict[str, Any]:
    """Return the rule in the order of Proxmox; raise ApiError for what it cannot be about."""
    failed = f"{action} ha rule failed"
    sids = sorted(sid for sid in str(entry.get("resources", "")).split(",") if sid)
    if unmanaged := [sid for sid in sids if sid not in request.state.ha_resources]:
        raise ApiError(f"{failed}: cannot use unmanaged resource(s) {', '.join(unmanaged)}.")
    nodes = [node.partition(":")[0] for node in str(entry.get("nodes", "")).split(",") if node]
    if missing := [node for node in nodes if node not in request.state.nodes]:
        raise ApiError(f"{failed}: cannot use non-existent node(s) {', '.join(missing)}.")
    if entry["type"] == "resource-affinity" and (reasons := _conflicts(request, sids)):
        invalid = f"400 Rule '{entry['rule']}' is invalid."
        raise ApiError(f"{failed}: {invalid}\nresources: {', '.join(reasons)}")
    return entry | {"resources": ",".join(sids)}


def _conflicts(request: ApiRequest, sids: list[str]) -> list[str]:
    """Return why resources cannot be kept together or apart, in Proxmox's words."""
    reasons = []
    if len(sids) < 2:
        reasons.append("rule is ineffective as there are less than two resources")
    for other in request.state.ha_rules.values():
        nodes = str(other.get("nodes", "")).split(",")
        priorities = {node.partition(":")[2] for node in nodes}
        if len(priorities) > 1 and not set(sids).isdisjoint(other["resources"].split(",")):
            reasons.append("resources are in node affinity rules with multiple priorities")
    return reasons


def _find_group(request: ApiRequest) -> dict[str, Any]:
    name = request.params["group"]
    if name not in request.state.ha_groups:
        raise ApiError(f"no such ha group '{name}'")
    return request.state.ha_groups[name]


def _find_rule(request: ApiRequest) -> dict[str, Any]:
    name = request.params["rule"]
    if name not in request.state.ha_rules:
        raise ApiError(f"no such ha rule '{name}'")
    return request.state.ha_rules[name]


def _chosen(request: ApiRequest, names: tuple[str, ...]) -> dict[str, Any]:
    values = {name: request.params[name] for name in names if name in request.params}
    return {n: int(v) if isinstance(v, bool) else v for n, v in values.items()}


def _removed(request: ApiRequest) -> list[str]:
    return [name for name in str(request.get("delete", "")).split(",") if name]


def _require_digest(request: ApiRequest) -> None:
    if request.get("digest") not in (None, DIGEST):
        raise ApiError(MODIFIED)


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
