"""The access of a key: its tools, its resources, and missing Proxmox privileges."""

from typing import Annotated, Any

from proxmox_client.api.access import Permissions
from pvemcp_server.access.grants import resources_to_json
from pvemcp_server.access.model import GUEST_LISTS, Area, Caller, Effect, Resources
from pvemcp_server.clusters import Cluster, offload, outcome_of
from pvemcp_server.clusters.acl import Acl
from pvemcp_server.clusters.backup_server import ROLES, grant_lines, missing_privileges
from pvemcp_server.store.records import ClusterKind
from pvemcp_server.tables.permissions import covers_path
from pvemcp_server.tables.reach import Reach
from pvemcp_server.tables.registry import EVERY_KIND
from pvemcp_server.tables.rows import Col, Row
from pvemcp_server.toolkit.arguments import ClusterName
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.needs import Extent, Held, RequiredPrivilege, extent
from pvemcp_server.toolkit.registry import Document, Tool, document, missing_toolsets, tool, tools


class Access(Row):
    """The access of the calling key."""

    key: Annotated[str, Col("Name of the key")]
    role: Annotated[str, Col("Role of the key")]
    role_description: Annotated[str, Col("What the role is for")]
    tools: Annotated[list[str], Col("Tools that it may call")]
    not_granted: Annotated[list[str], Col("Tools that it may not call: a matter of the role")]
    missing_toolsets: Annotated[
        dict[str, list[str]],
        Col("Toolsets that the key lacks, with their tools that its role grants"),
    ]
    protected_tags: Annotated[list[str], Col("Guests with one of these tags refuse every write")]
    clusters: Annotated[
        list[dict[str, Any]],
        Col("Per cluster: what is granted, the Proxmox account, and what that has and lacks"),
    ]


@tool("ExplainAccess", area=Area.ACCESS, effect=Effect.READ, answer=Access, kinds=EVERY_KIND)
async def explain_access(call: Call, *, cluster_name: ClusterName = None) -> Document:
    """Explain what this key may do, and which Proxmox privileges are missing for it."""
    caller = call.caller
    granted = [tool for tool in tools().values() if caller.may_call(tool)]
    missing = missing_toolsets(tools(), caller)
    clusters = await call.all_clusters(cluster_name)
    needing = [each for each in granted if each.is_switched_on(call.settings)]
    access = await call.each(clusters, lambda cluster: _access_to(call, cluster, needing))
    return document(
        Access(
            key=caller.key_name,
            role=caller.role.name,
            role_description=caller.role.description,
            tools=[tool.name for tool in granted],
            not_granted=[name for tool in tools().values() for name in _not_granted(caller, tool)],
            missing_toolsets={str(toolset): names for toolset, names in missing.items()},
            protected_tags=sorted(call.settings.protected_tags),
            clusters=[fields for _, fields in access],
        )
    )


def _not_granted(caller: Caller, tool: Tool) -> list[str]:
    """Return the tool, or its permission to write, if the role does not grant it."""
    if not caller.is_granted(tool):
        return [tool.name]
    return [tool.write_permission] if tool.of(caller) is not tool else []


async def _access_to(call: Call, cluster: Cluster, granted: list[Tool]) -> dict[str, Any]:
    """Return what is granted on a cluster and, if it answers, what its account has and lacks."""
    tools_of: dict[Resources, list[str]] = {}
    for entry in granted:
        if resources := call.caller.resources(entry.name, entry.effect, cluster.name):
            tools_of.setdefault(resources, []).append(entry.name)
    access = {
        "cluster": cluster.name,
        "account": cluster.account,
        "granted": [
            {
                "resources": "all" if resources.everything else resources_to_json(resources),
                "tools": "all" if len(names) == len(granted) else names,
            }
            for resources, names in tools_of.items()
        ],
    }
    if lists := _guest_lists(call, cluster, granted):
        access["inside_guests"] = lists

    async def read() -> dict[str, Any]:
        if cluster.kind is ClusterKind.PBS:
            return backup_server_privileges(cluster.account, await cluster.pbs.permissions())
        held = await cluster.pve.access.permissions()
        major = (await cluster.pve.version()).number[0]
        rights = await privileges(cluster.acl, granted, held, major)
        await _hide_paths(cluster, rights["lacks"])
        return rights

    rights = await outcome_of(read(), f"privileges on {cluster.name}")
    if isinstance(rights, Exception):
        return access | {"reachable": False, "reason": await cluster.explain(rights)}
    return access | {"reachable": True, **rights}


def _guest_lists(call: Call, cluster: Cluster, granted: list[Tool]) -> list[dict[str, Any]]:
    """Return the programs and files that the guests of each grant may be asked for."""
    grants = (
        grant
        for entry in granted
        if entry.guarded_by
        for grant in call.caller.grants(entry.name, entry.effect, cluster.name)
    )
    return [
        {"resources": "all" if grant.resources.everything else resources_to_json(grant.resources)}
        | {kind: sorted(listed) for kind in GUEST_LISTS if (listed := getattr(grant, kind))}
        for grant in dict.fromkeys(grants)
        if any(getattr(grant, kind) for kind in GUEST_LISTS)
    ]


def backup_server_privileges(account: str, held: Permissions) -> dict[str, Any]:
    """Return what the account has and lacks on a backup server, with the fix."""
    missing = missing_privileges(held)
    return {
        "has": [privilege for privilege in ROLES if privilege not in missing],
        "lacks": [
            {
                "privilege": privilege,
                "path": "/",
                "needed_by": ["ExecuteQuery"],
                "fix": " && ".join(grant_lines(account, [privilege])),
            }
            for privilege in missing
        ],
    }


async def _hide_paths(cluster: Cluster, lacks: list[dict[str, Any]]) -> None:
    """Leave out the paths of resources that the caller does not see."""
    partly = [lack for lack in lacks if "only_on" in lack]
    if cluster.scope.everything or not partly:
        return
    reach = await Reach.of(cluster)
    for lack in partly:
        lack["only_on"] = [path for path in lack["only_on"] if covers_path(reach, path)]


async def privileges(acl: Acl, granted: list[Tool], held: Held, major: int) -> dict[str, Any]:
    """Return what the account has and lacks of all that the granted tools need, with the fix."""
    tools_of: dict[RequiredPrivilege, list[str]] = {}
    for entry in granted:
        for need in entry.needs:
            tools_of.setdefault(need, []).append(entry.name)
    has: dict[str, None] = {}  # needs that differ in their alternatives name the same privilege
    lacks: dict[tuple[Any, ...], dict[str, Any]] = {}
    extents = await offload(
        len(held), lambda: {need: extent(need, held, major) for need in tools_of}
    )
    for need, names in tools_of.items():
        how_far, paths = extents[need]
        privilege = need.of(major)[0]
        if how_far is Extent.EVERYWHERE:
            has[f"{privilege} on {need.path}"] = None
            continue
        if lack := lacks.get((privilege, need.path, *paths)):
            lack["needed_by"] = list(dict.fromkeys((*lack["needed_by"], *names)))
            continue
        advice = await acl.advice(need.path, [privilege])
        lacks[privilege, need.path, *paths] = {
            "privilege": privilege,
            "path": need.path,
            **({"only_on": paths} if paths else {}),
            "needed_by": names,
            **({"fix": advice.line} if advice.line else {"ask": advice.question}),
        }
    return {"has": list(has), "lacks": list(lacks.values())}
