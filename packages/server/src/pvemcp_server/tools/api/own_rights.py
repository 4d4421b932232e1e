"""Requests by which a key would change what it may do: tags and pools that its role grants by.

A role may give CallApi on a whole cluster and other tools, such as ExecInGuest, on some guests.
"""

import re
from typing import Final

from proxmox_client.json_decoder import split_list
from pvemcp_server.clusters import Cluster
from pvemcp_server.errors import Precondition
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.granting_tags import refuse_granting_tags
from pvemcp_server.toolkit.write_target import target_guest
from pvemcp_server.tools.api.request import ApiRequest

_CONFIG: Final = re.compile(r"(?:PUT|POST) /nodes/\{node\}/(?:qemu|lxc)/\{vmid\}/config")
_ROLLBACK: Final = re.compile(r"POST .*/snapshot/\{snapname\}/rollback")
_CREATION: Final = re.compile(r"POST /nodes/\{node\}/(?:qemu|lxc)")
_POOLS: Final = re.compile(r"(?:PUT|POST) /pools.*")


async def refuse_own_rights(call: Call, cluster: Cluster, request: ApiRequest) -> None:
    """Raise Precondition for a request that changes which guests the role of this key covers."""
    sent = f"{request.method} {request.endpoint.path}"
    if _CONFIG.fullmatch(sent) or _ROLLBACK.fullmatch(sent):
        await _refuse_tags(call, cluster, request)
    elif _CREATION.fullmatch(sent):
        await _refuse_replacement(cluster, request)
    elif _POOLS.fullmatch(sent) and request.values.get("vms"):
        _refuse_pool(call, cluster, str(request.values.get("poolid", "")))


async def _refuse_tags(call: Call, cluster: Cluster, request: ApiRequest) -> None:
    unset = split_list(str(request.parameters.get("delete", "")))
    snapshot = request.path_values.get("snapname")
    if not (snapshot or "tags" in request.parameters or "tags" in unset):
        return
    guest = await target_guest(call, cluster.name, int(request.path_values["vmid"]), locks=None)
    if snapshot:
        after = (await guest.api.config(snapshot=snapshot)).tag_list
        refuse_granting_tags(call, guest, guest.status.tag_list, after, "The snapshot")
    else:
        tags = split_list(str(request.parameters.get("tags", "")))
        refuse_granting_tags(call, guest, guest.status.tag_list, tags)


async def _refuse_replacement(cluster: Cluster, request: ApiRequest) -> None:
    """Raise Precondition for a new guest in place of another, whose tags and pool it would get."""
    vmid = str(request.values.get("vmid", ""))
    if "force" in request.parameters and int(vmid) in (await cluster.inventory.view()).by_vmid:
        raise Precondition(
            f"Guest {vmid} exists, and CallApi restores over none.",
            hint="RestoreBackup with overwrite does, and checks what the backup brings.",
        )


def _refuse_pool(call: Call, cluster: Cluster, pool: str) -> None:
    for grant in call.caller.role.grants:
        own = grant.resources
        if grant.reaches(cluster.name) and own.covers_pool(pool) and not own.everything:
            raise Precondition(
                f"Which guests are in pool {pool} decides what this key may do with them.",
                hint="An administrator can change that in Proxmox.",
            )
