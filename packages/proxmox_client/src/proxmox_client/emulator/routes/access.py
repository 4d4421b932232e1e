"""Signing in, and what one may do."""

from typing import Any

from proxmox_client.emulator.access.caller import Caller, Rights
from proxmox_client.emulator.auth import sign_in
from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.router import Call, route

AREAS = {
    "access": "/access",
    "dc": "/",
    "mapping": "/mapping",
    "nodes": "/nodes",
    "sdn": "/sdn",
    "storage": "/storage",
    "vms": "/vms",
}
PREFIXES = {
    "access": ("User.", "Group.", "Permissions."),
    "dc": ("Sys.", "SDN."),
    "mapping": ("Mapping.", "Permissions."),
    "nodes": ("Sys.", "Permissions."),
    "sdn": ("SDN.", "Permissions."),
    "storage": ("Datastore.", "Permissions."),
    "vms": ("VM.", "Permissions."),
}


@route("GET", "/access/ticket")
def ticket_page(_call: Call) -> None:
    """GET /access/ticket."""


@route("POST", "/access/ticket")
def ticket(call: Call) -> dict[str, Any]:
    """POST /access/ticket."""
    state, office = call.state, call.cluster.office
    signed = sign_in.check(state, office, call.params)
    if signed.owes:
        return {
            "username": signed.userid,
            "NeedTFA": 1,
            "ticket": office.issue_half(signed.userid, signed.owes, call.now),
            "CSRFPreventionToken": office.csrf(signed.userid, call.now),
        }
    rights = Rights(Caller(signed.userid), state)
    answer = {
        "username": signed.userid,
        "ticket": office.issue(signed.userid, call.now),
        "CSRFPreventionToken": office.csrf(signed.userid, call.now),
        "cap": _capabilities(rights),
    }
    is_named = state.grouped and rights.has("/", "Sys.Audit")
    return answer | ({"clustername": state.name} if is_named else {})


@route("GET", "/access/domains")
def domains(call: Call) -> list[dict[str, Any]]:
    """GET /access/domains."""
    realms = call.state.people.realms.values()
    return [{"realm": each.realm, "type": each.type, "comment": each.comment} for each in realms]


@route("GET", "/access/permissions")
def permissions(call: Call) -> dict[str, Any]:
    """GET /access/permissions."""
    rights = call.rights
    if (wanted := call.get("userid")) and wanted not in (call.caller.userid, call.caller.name):
        call.rights.require("/access", "Sys.Audit")
        userid, _, token = wanted.partition("!")
        rights = Rights(_someone(call, userid, token), call.state)
    paths = [call.params["path"]] if call.get("path") else _known_paths(call)
    found = {path: {name: int(below) for name, below in rights.on(path).items()} for path in paths}
    return found if call.get("path") else {path: held for path, held in found.items() if held}


@route("PUT", "/access/password")
def set_password(call: Call) -> None:
    """PUT /access/password."""
    userid = call.params["userid"]
    users = call.state.people.users
    if userid not in users:
        raise ApiError(f"no such user ('{userid}')")
    users[userid].password = call.params["password"]


def _someone(call: Call, userid: str, token: str) -> Caller:
    user = call.state.people.users.get(userid)
    if user is None or (token and token not in user.tokens):
        raise ApiError(f"no such user ('{userid}')")
    return Caller(userid, token, user.tokens[token].privsep if token else False)


def _known_paths(call: Call) -> list[str]:
    """The paths that matter: the tops, those of grants, and what is in pools."""
    tops = ["/", "/access", "/access/groups", "/nodes", "/pool", "/sdn", "/storage", "/vms"]
    granted = [grant.path for grant in call.state.people.grants]
    pools = call.state.pools.values()
    pooled = [f"/vms/{vmid}" for pool in pools for vmid in pool.vmids]
    pooled += [f"/storage/{name}" for pool in pools for name in pool.storages]
    return sorted({*tops, *granted, *pooled})


def _capabilities(rights: Rights) -> dict[str, dict[str, int]]:
    """What the web interface would show."""
    return {
        area: {name: 1 for name in rights.on(path) if name.startswith(PREFIXES[area])}
        for area, path in AREAS.items()
    }
