"""What a key may do, and what stands in its way."""

from collections.abc import Mapping
from typing import Annotated, Any

from proxmox_client import ProxmoxError
from pvemcp_server.access.grants import resources_to_json
from pvemcp_server.access.model import Area, Effect, Resources
from pvemcp_server.clusters import Cluster
from pvemcp_server.clusters.acl import Acl, Advice
from pvemcp_server.tables.registry import Col, Row
from pvemcp_server.toolkit.arguments import ClusterName
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.needs import Extent, Held, RequiredPrivilege, extent
from pvemcp_server.toolkit.registry import Document, Tool, document, tool, tools


class Access(Row):
    """What this key may do."""

    key: Annotated[str, Col("Name of the key")]
    role: Annotated[str, Col("Role of the key")]
    role_description: Annotated[str, Col("What the role is for")]
    tools: Annotated[list[str], Col("Tools that it may call")]
    not_granted: Annotated[list[str], Col("Tools that it may not call: a matter of the role")]
    clusters: Annotated[
        list[dict[str, Any]],
        Col("Per cluster: what is granted, the Proxmox account, and what that has and lacks"),
    ]


@tool("ExplainAccess", area=Area.ACCESS, effect=Effect.READ, answer=Access)
async def explain_access(call: Call, *, cluster_name: ClusterName = None) -> Document:
    """Explain what this key may do, and which Proxmox privileges are missing for it."""
    caller = call.caller
    granted = [one for one in tools().values() if caller.may_call(one.name, one.effect)]
    refused = [one.name for one in tools().values() if one not in granted]
    clusters = await call.all_clusters(cluster_name)
    told = await call.each(clusters, lambda cluster: _cluster(call, cluster, granted))
    return document(
        Access(
            key=caller.key_name,
            role=caller.role.name,
            role_description=caller.role.description,
            tools=[one.name for one in granted],
            not_granted=refused,
            clusters=[one for _, one in told],
        )
    )


async def _cluster(call: Call, cluster: Cluster, granted: list[Tool]) -> dict[str, Any]:
    base = {
        "cluster": cluster.name,
        "account": cluster.account,
        "granted": _granted(call, cluster, granted),
    }
    try:
        held = await cluster.pve.access.permissions()
        major = (await cluster.pve.version()).number[0]
    except ProxmoxError as error:
        return base | {"reachable": False, "reason": await cluster.explain(error)}
    rights = await privileges(cluster.acl, granted, held, major)
    return base | {"reachable": True, **rights}


def _granted(call: Call, cluster: Cluster, granted: list[Tool]) -> list[dict[str, Any]]:
    """The tools that work on this cluster, grouped by the resources on which they do."""
    groups: dict[Resources, list[str]] = {}
    for one in granted:
        resources = call.caller.resources(one.name, one.effect, cluster.name)
        if resources:
            groups.setdefault(resources, []).append(one.name)
    return [
        {"resources": _told(resources), "tools": "all" if len(names) == len(granted) else names}
        for resources, names in groups.items()
    ]


def _told(resources: Resources) -> str | dict[str, list[Any]]:
    if resources.everything:
        return "all"
    return resources_to_json(resources)


async def privileges(acl: Acl, granted: list[Tool], held: Held, major: int) -> dict[str, Any]:
    """Return what the account has and lacks of all that the granted tools need, with the fix."""
    users: dict[RequiredPrivilege, list[str]] = {}
    for one in granted:
        for need in one.needs:
            users.setdefault(need, []).append(one.name)
    has, lacks = [], []
    for need, names in users.items():
        how_far, paths = extent(need, held, major)
        privilege = need.of(major)[0]
        if how_far is Extent.EVERYWHERE:
            has.append(f"{privilege} on {need.path}")
        else:
            advice = await acl.advice(need.path, [privilege])
            where = {"only_on": paths} if paths else {}
            lacks.append(_lack(privilege, need.path, names, where, advice))
    return {"has": has, "lacks": lacks}


def _lack(
    privilege: str, path: str, names: list[str], where: Mapping[str, Any], advice: Advice
) -> dict[str, Any]:
    fix = {"fix": advice.line} if advice.line else {"ask": advice.question}
    return {"privilege": privilege, "path": path, **where, "needed_by": names, **fix}
