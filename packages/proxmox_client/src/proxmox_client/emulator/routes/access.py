"""Sign-in, realms, effective permissions and passwords."""

from typing import Any

from proxmox_client.emulator.access.principal import Principal, Rights
from proxmox_client.emulator.auth import sign_in
from proxmox_client.emulator.errors import ApiError, BadParameters
from proxmox_client.emulator.router import ApiRequest, route

NO_DIGEST = "da39a3ee5e6b4b0d3255bfef95601890afd80709"
"""The digest of a file that does not exist."""
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
def ticket_page(_request: ApiRequest) -> None:
    """GET /access/ticket."""


@route("POST", "/access/ticket")
def ticket(request: ApiRequest) -> dict[str, Any]:
    """POST /access/ticket."""
    state, tickets = request.state, request.backend.tickets
    node, host = request.local_node.name, request.headers.get("host", "")
    signed_in = sign_in.check(state, tickets, request.params, node, host)
    userid, now = signed_in.userid, request.now
    if signed_in.challenge is None:
        return signed_in_answer(request, userid)
    return {
        "username": userid,
        "NeedTFA": 1,
        "ticket": tickets.issue_half(userid, signed_in.challenge, now),
        "CSRFPreventionToken": tickets.csrf(userid, now),
    }


def signed_in_answer(request: ApiRequest, userid: str) -> dict[str, Any]:
    """Return the answer to a user who has signed in: a ticket, and what the user may do."""
    state, tickets, now = request.state, request.backend.tickets, request.now
    rights = Rights(Principal(userid), state)
    answer = {
        "username": userid,
        "ticket": tickets.issue(userid, now),
        "CSRFPreventionToken": tickets.csrf(userid, now),
        "cap": _capabilities(rights, _known_paths(request)),
    }
    has_name = state.grouped and rights.has("/", "Sys.Audit")
    return answer | ({"clustername": state.name} if has_name else {})


@route("GET", "/access/domains")
def domains(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /access/domains."""
    return [
        {"realm": realm.realm, "type": realm.type}
        | ({"comment": realm.comment} if realm.comment else {})
        | ({"default": 1} if realm.default else {})
        | ({"tfa": realm.tfa} if realm.tfa else {})
        for realm in request.state.user_config.realms.values()
    ]


@route("GET", "/access/domains/{realm}")
def domain(request: ApiRequest) -> dict[str, Any]:
    """GET /access/domains/{realm}."""
    name = request.params["realm"]
    if name not in request.state.user_config.realms:
        raise ApiError(f"domain '{name}' does not exist")
    realm = request.state.user_config.realms[name]
    details = {"type": realm.type, "comment": realm.comment, "digest": NO_DIGEST}
    if realm.type == "openid":
        details |= {"issuer-url": realm.issuer_url, "client-id": realm.client_id}
    return details | ({"plugin": "PVE::Auth::PAM"} if realm.type == "pam" else {})


@route("GET", "/access/permissions")
def permissions(request: ApiRequest) -> dict[str, Any]:
    """GET /access/permissions."""
    rights = request.rights
    own_name = request.principal.name
    if (name := request.get("userid")) and name != own_name:
        userid, _, token = name.partition("!")
        if userid != own_name:
            request.rights.require("/access", "Sys.Audit")
        principal = _find_principal(request, userid, token)
        if principal is None:
            return {}
        rights = Rights(principal, request.state)
    paths = [request.params["path"]] if request.get("path") else _known_paths(request)
    privileges = {
        path: {name: int(below) for name, below in rights.on(path).items()} for path in paths
    }
    if request.get("path"):
        return privileges
    return {path: held for path, held in privileges.items() if held}


@route("PUT", "/access/password")
def set_password(request: ApiRequest) -> None:
    """PUT /access/password."""
    userid = request.params["userid"]
    users = request.state.user_config.users
    if not request.principal.is_root and not request.get("confirmation-password"):
        raise BadParameters({"confirmation-password": "password is required to modify user"})
    if userid not in users:
        raise ApiError(f"no such user ('{userid}')")
    users[userid].password = request.params["password"]


def _find_principal(request: ApiRequest, userid: str, token: str) -> Principal | None:
    user = request.state.user_config.users.get(userid)
    if user is None or (token and token not in user.tokens):
        return None
    return Principal(userid, token, user.tokens[token].privsep if token else False)


def _known_paths(request: ApiRequest) -> list[str]:
    """Return the top paths, those of ACL entries, and those of pool members."""
    tops = ["/", "/access", "/access/groups", "/nodes", "/pool", "/sdn", "/storage", "/vms"]
    granted = [entry.path for entry in request.state.user_config.acl]
    pools = request.state.pools.values()
    pooled = [f"/vms/{vmid}" for pool in pools for vmid in pool.vmids]
    pooled += [f"/storage/{name}" for pool in pools for name in pool.storages]
    return sorted({*tops, *granted, *pooled})


def _capabilities(rights: Rights, paths: list[str]) -> dict[str, dict[str, int]]:
    """Return the privileges by area, held on any path of it, for the web interface."""
    held: dict[str, set[str]] = {area: set() for area in PREFIXES}
    for path in [*paths, "/mapping"]:
        top = path.split("/")[1]
        if (area := top or "dc") in held:
            held[area] |= rights.on(path).keys()
    return {
        area: {name: 1 for name in sorted(names) if name.startswith(PREFIXES[area])}
        for area, names in held.items()
    }
