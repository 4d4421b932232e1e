"""Notes on missing privileges, for lists that Proxmox filters without saying so.

Proxmox answers with an empty list both when there is nothing and when the account may see nothing.
"""

from dataclasses import dataclass

from proxmox_client import ProxmoxError
from pvemcp_server.clusters import Cluster, offload
from pvemcp_server.errors import Precondition
from pvemcp_server.tables.registry import Table
from pvemcp_server.toolkit.needs import Extent, RequiredPrivilege, extent
from pvemcp_server.toolkit.registry import tools

_NEWEST = 9  # major version
_NAMED = 3  # paths that a note names
_HIDES = "shows it little or nothing here"


@dataclass(frozen=True, slots=True)
class Right:
    """How far an account has a privilege, by the name that it has in the cluster's version.

    `paths` are those on which it has the privilege, if these are a part only.
    """

    extent: Extent
    name: str
    paths: tuple[str, ...] = ()


async def explain_filtered(cluster: Cluster, table: Table) -> None:
    """Note the privileges that the account lacks to see the table's rows.

    They are those of the tool that governs the table. Nothing is noted for tables that Proxmox
    refuses to list without them, since that is an error anyway.
    """
    governing = tools().get(table.tool)
    if governing is not None and table.looks_filtered(cluster.account, ()):
        await note_missing_privileges(cluster, *governing.needs)


async def note_missing_privileges(
    cluster: Cluster, *required: RequiredPrivilege, so: str = _HIDES
) -> None:
    """Note each privilege that the account lacks on its path; `so` is the effect.

    One that it has on some paths only hides what is elsewhere; a narrow role gets no note, because
    the paths may name what it does not cover.
    """
    for need, right in (await rights_of(cluster, *required)).items():
        if right.extent is Extent.PARTLY and cluster.scope.everything:
            some = ", ".join(right.paths[:_NAMED]) + (" …" if right.paths[_NAMED:] else "")
            cluster.notes.add(
                f"{cluster.account} has {right.name} on {some} of {cluster.name} only, so Proxmox "
                "lists nothing from elsewhere.",
                advice=True,
            )
        if right.extent is Extent.NOWHERE:
            lacks = f"{cluster.account} lacks {right.name} on {need.path} of {cluster.name}"
            advice = await cluster.acl.advice(need.path, [right.name])
            cluster.notes.add(advice.after(f"{lacks}, so Proxmox {so}"))


async def require_privileges(cluster: Cluster, *required: RequiredPrivilege, why: str) -> None:
    """Raise Precondition for a privilege that the account has nowhere; `why` says what needs it."""
    for need, right in (await rights_of(cluster, *required)).items():
        if right.extent is Extent.NOWHERE:
            lacks = f"{cluster.account} lacks {right.name} on {need.path} of {cluster.name}"
            advice = await cluster.acl.advice(need.path, [right.name])
            raise Precondition(advice.after(f"{lacks}, so Proxmox would refuse {why}"))


async def rights_of(
    cluster: Cluster, *required: RequiredPrivilege
) -> dict[RequiredPrivilege, Right]:
    """Return how far the account has each privilege; empty if Proxmox does not answer that.

    The version is asked for only if one of the privileges had another name until 8.
    """
    if not required:
        return {}
    try:
        held = await cluster.pve.access.permissions()
        renamed = any(need.until_8 for need in required)
        major = (await cluster.pve.version()).number[0] if renamed else _NEWEST
    except ProxmoxError:
        return {}  # the answer stands without the note
    rights = await offload(
        len(held), lambda: {need: extent(need, held, major) for need in required}
    )
    return {
        need: Right(how_far, need.of(major)[0], tuple(paths))
        for need, (how_far, paths) in rights.items()
    }
