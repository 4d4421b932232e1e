"""Groups, roles and the ACL."""

import re
from typing import Any

from proxmox_client.emulator.access.checks import modify_privileges
from proxmox_client.emulator.access.roles import all_privileges, builtin_roles
from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.router import ApiRequest, route
from proxmox_client.emulator.state.user_config import AclEntry, Group

_NAME = r"[^/]+"
PATHS = re.compile(
    rf"/|/access(/groups|/realm)?|/access/(groups|realm)/{_NAME}|/(nodes|storage)(/{_NAME})?"
    rf"|/pool(/{_NAME}){{0,3}}|/vms(/\d+)?|/mapping(/(dir|pci|usb))?(/{_NAME})?|/sdn(/.+)?"
)
"""The paths that an ACL entry can have."""


@route("GET", "/access/groups")
def groups(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /access/groups."""
    config = request.state.user_config
    return [
        {
            "groupid": group.groupid,
            "users": ",".join(config.members(group.groupid)),
            **({"comment": group.comment} if group.comment else {}),
        }
        for group in config.groups.values()
        if request.rights.has_any(
            f"/access/groups/{group.groupid}", "User.Modify", "Sys.Audit", "Group.Allocate"
        )
    ]


@route("POST", "/access/groups")
def create_group(request: ApiRequest) -> None:
    """POST /access/groups."""
    groupid = request.params["groupid"]
    if groupid in request.state.user_config.groups:
        raise ApiError(f"create group failed: group '{groupid}' already exists")
    request.state.user_config.groups[groupid] = Group(groupid, request.get("comment", ""))


@route("GET", "/access/groups/{groupid}")
def group(request: ApiRequest) -> dict[str, Any]:
    """GET /access/groups/{groupid}."""
    groupid, config = request.params["groupid"], request.state.user_config
    if groupid not in config.groups:
        raise ApiError(f"group '{groupid}' does not exist")
    comment = config.groups[groupid].comment
    return {"members": config.members(groupid)} | ({"comment": comment} if comment else {})


@route("DELETE", "/access/groups/{groupid}")
def delete_group(request: ApiRequest) -> None:
    """DELETE /access/groups/{groupid}."""
    groupid, config = request.params["groupid"], request.state.user_config
    if groupid not in config.groups:
        raise ApiError(f"delete group failed: group '{groupid}' does not exist")
    del config.groups[groupid]
    config.remove_acl("group", groupid)
    for user in config.users.values():
        user.groups.discard(groupid)


@route("GET", "/access/roles")
def roles(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /access/roles."""
    builtin, custom = builtin_roles(request.state.release), request.state.user_config.roles
    rows = [(name, names, 1) for name, names in builtin.items()]
    rows += [(name, names, 0) for name, names in custom.items()]
    return [
        {"roleid": name, "privs": ",".join(sorted(names)), "special": special}
        for name, names, special in rows
    ]


@route("GET", "/access/roles/{roleid}")
def role(request: ApiRequest) -> dict[str, int]:
    """GET /access/roles/{roleid}."""
    name = request.params["roleid"]
    all_roles = builtin_roles(request.state.release) | request.state.user_config.roles
    if name not in all_roles:
        raise ApiError(f"role '{name}' does not exist")
    return dict.fromkeys(sorted(all_roles[name]), 1)


@route("POST", "/access/roles")
def create_role(request: ApiRequest) -> None:
    """POST /access/roles."""
    names = [name for name in str(request.get("privs", "")).replace(" ", ",").split(",") if name]
    for name in names:
        if name not in all_privileges(request.state.release):
            raise request.invalid(privs=f"invalid format - invalid privilege '{name}'\n")
    roleid = request.params["roleid"]
    if roleid.upper().startswith("PVE"):
        problem = "cannot use role ID starting with the (case-insensitive) 'PVE' namespace"
        raise request.invalid(roleid=problem)
    if roleid in builtin_roles(request.state.release) or roleid in request.state.user_config.roles:
        raise ApiError(f"create role failed: role '{roleid}' already exists")
    request.state.user_config.roles[roleid] = frozenset(names)


@route("DELETE", "/access/roles/{roleid}")
def delete_role(request: ApiRequest) -> None:
    """DELETE /access/roles/{roleid}."""
    roleid = request.params["roleid"]
    if roleid in builtin_roles(request.state.release):
        raise ApiError(f"auto-generated role '{roleid}' cannot be deleted")
    if request.state.user_config.roles.pop(roleid, None) is None:
        raise ApiError(f"delete role failed: role '{roleid}' does not exist")


@route("GET", "/access/acl")
def acl(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /access/acl: all entries with Sys.Audit on /access, else those one may change."""
    sees_all = request.rights.has("/access", "Sys.Audit")
    return [
        {
            "path": entry.path,
            "type": entry.kind,
            "ugid": entry.ugid,
            "roleid": entry.role,
            "propagate": int(entry.propagate),
        }
        for entry in request.state.user_config.acl
        if sees_all or request.rights.has_any(entry.path, *modify_privileges(entry.path))
    ]


@route("PUT", "/access/acl")
def update_acl(request: ApiRequest) -> None:
    """PUT /access/acl."""
    config = request.state.user_config
    ugids = {
        kind: [
            name for name in str(request.get(f"{kind}s", "")).replace(";", ",").split(",") if name
        ]
        for kind in ("user", "group", "token")
    }
    if not any(ugids.values()):
        problem = "either 'users', 'groups' or 'tokens' is required."
        raise request.invalid(users=problem, groups=problem, tokens=problem)
    path = "/" + str(request.params["path"]).strip("/")
    if not PATHS.fullmatch(path):
        raise request.invalid(path=f"invalid ACL path '{request.params['path']}'")
    _require_names(request, ugids, str(request.params["roles"]).split(","))
    propagate = bool(request.get("propagate", True))
    changed = [
        AclEntry(path, kind, name, role, propagate)
        for kind, names in ugids.items()
        for name in names
        for role in str(request.params["roles"]).split(",")
    ]
    keys = {(entry.path, entry.kind, entry.ugid, entry.role) for entry in changed}
    config.acl = [
        entry
        for entry in config.acl
        if (entry.path, entry.kind, entry.ugid, entry.role) not in keys
    ]
    if not request.get("delete"):
        config.acl += changed


def _require_names(request: ApiRequest, ugids: dict[str, list[str]], roles: list[str]) -> None:
    """Raise ApiError for a role, user, group or token that does not exist."""
    config = request.state.user_config
    all_roles = builtin_roles(request.state.release).keys() | config.roles.keys()
    problems = [f"role '{name}' does not exist" for name in roles if name not in all_roles]
    missing = [("user", name) for name in ugids["user"] if name not in config.users]
    missing += [("group", name) for name in ugids["group"] if name not in config.groups]
    problems += [f"{kind} '{name}' does not exist" for kind, name in missing]
    for name in ugids["token"]:
        userid, _, token = name.partition("!")
        if userid not in config.users or token not in config.users[userid].tokens:
            problems.append(f"no such token '{token}' for user '{userid}'")
    if problems:
        raise ApiError(f"ACL update failed: {problems[0]}")
