"""Groups, roles, and who is granted what."""

from typing import Any

from proxmox_client.emulator.access.roles import all_privileges, builtin_roles
from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.router import Call, route
from proxmox_client.emulator.state.people import Grant, Group


@route("GET", "/access/groups")
def groups(call: Call) -> list[dict[str, Any]]:
    """GET /access/groups."""
    people = call.state.people
    return [
        {
            "groupid": group.groupid,
            "users": ",".join(people.members(group.groupid)),
            **({"comment": group.comment} if group.comment else {}),
        }
        for group in people.groups.values()
        if call.rights.has_any(
            f"/access/groups/{group.groupid}", "User.Modify", "Sys.Audit", "Group.Allocate"
        )
    ]


@route("POST", "/access/groups")
def create_group(call: Call) -> None:
    """POST /access/groups."""
    groupid = call.params["groupid"]
    if groupid in call.state.people.groups:
        raise ApiError(f"create group failed: group '{groupid}' already exists")
    call.state.people.groups[groupid] = Group(groupid, call.get("comment", ""))


@route("DELETE", "/access/groups/{groupid}")
def delete_group(call: Call) -> None:
    """DELETE /access/groups/{groupid}."""
    groupid, people = call.params["groupid"], call.state.people
    if groupid not in people.groups:
        raise ApiError(f"delete group failed: group '{groupid}' does not exist")
    del people.groups[groupid]
    people.forget("group", groupid)
    for each in people.users.values():
        each.groups.discard(groupid)


@route("GET", "/access/roles")
def roles(call: Call) -> list[dict[str, Any]]:
    """GET /access/roles."""
    builtin, added = builtin_roles(call.state.release), call.state.people.roles
    rows = [(name, names, 1) for name, names in builtin.items()]
    rows += [(name, names, 0) for name, names in added.items()]
    return [
        {"roleid": name, "privs": ",".join(sorted(names)), "special": special}
        for name, names, special in rows
    ]


@route("GET", "/access/roles/{roleid}")
def role(call: Call) -> dict[str, int]:
    """GET /access/roles/{roleid}."""
    name = call.params["roleid"]
    known = builtin_roles(call.state.release) | call.state.people.roles
    if name not in known:
        raise ApiError(f"role '{name}' does not exist")
    return dict.fromkeys(sorted(known[name]), 1)


@route("POST", "/access/roles")
def create_role(call: Call) -> None:
    """POST /access/roles."""
    names = [name for name in str(call.get("privs", "")).replace(" ", ",").split(",") if name]
    for name in names:
        if name not in all_privileges(call.state.release):
            raise call.bad(privs=f"invalid format - invalid privilege '{name}'\n")
    roleid = call.params["roleid"]
    if roleid in builtin_roles(call.state.release) or roleid in call.state.people.roles:
        raise ApiError(f"create role failed: role '{roleid}' already exists")
    call.state.people.roles[roleid] = frozenset(names)


@route("DELETE", "/access/roles/{roleid}")
def delete_role(call: Call) -> None:
    """DELETE /access/roles/{roleid}."""
    roleid = call.params["roleid"]
    if call.state.people.roles.pop(roleid, None) is None:
        raise ApiError(f"delete role failed: role '{roleid}' does not exist")


@route("GET", "/access/acl")
def acl(call: Call) -> list[dict[str, Any]]:
    """GET /access/acl: all of it with Sys.Audit on /access, else where one may change it."""
    sees_all = call.rights.has("/access", "Sys.Audit")
    return [
        {
            "path": grant.path,
            "type": grant.kind,
            "ugid": grant.whom,
            "roleid": grant.role,
            "propagate": int(grant.propagate),
        }
        for grant in call.state.people.grants
        if sees_all or call.rights.has_any(grant.path, *_modifying(grant.path))
    ]


def _modifying(path: str) -> tuple[str, ...]:
    """The privileges with which one may change the grants on a path."""
    kind, _, name = path.strip("/").partition("/")
    own = {"vms": "VM.Allocate", "storage": "Datastore.Allocate", "pool": "Pool.Allocate"}
    return ("Permissions.Modify", own[kind]) if name and kind in own else ("Permissions.Modify",)


@route("PUT", "/access/acl")
def update_acl(call: Call) -> None:
    """PUT /access/acl."""
    people = call.state.people
    whom = {
        kind: [name for name in str(call.get(f"{kind}s", "")).replace(";", ",").split(",") if name]
        for kind in ("user", "group", "token")
    }
    if not any(whom.values()):
        raise call.bad(users="either 'users', 'groups' or 'tokens' is required")
    path = "/" + str(call.params["path"]).strip("/")
    propagate = bool(call.get("propagate", True))
    changed = [
        Grant(path, kind, name, role, propagate)
        for kind, names in whom.items()
        for name in names
        for role in str(call.params["roles"]).split(",")
    ]
    same = {(grant.path, grant.kind, grant.whom, grant.role) for grant in changed}
    people.grants = [
        grant
        for grant in people.grants
        if (grant.path, grant.kind, grant.whom, grant.role) not in same
    ]
    if not call.get("delete"):
        people.grants += changed
