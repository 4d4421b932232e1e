"""The tool Undo: makes the call that reverses the key's last write."""

from pvemcp_server.access.model import Area, Effect
from pvemcp_server.errors import Precondition
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import AnyVm, ItsCluster
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.registry import tool
from pvemcp_server.toolkit.undo import KeptUndo


@tool(
    "Undo",
    title="Undo last write",
    area=Area.VMS,
    effect=Effect.WRITE,
    may_lose_data=True,
    needs=(needs.GUESTS,),
)
async def undo_last_write(
    call: Call, *, cluster_name: ItsCluster = None, vmid: AnyVm = None
) -> KeptUndo:
    """Reverse this key's last write, or its last one on a cluster or guest."""
    cluster = None if cluster_name is None else (await call.cluster(cluster_name)).name
    kept = await call.undo_log.last(call.caller.key_id, cluster, vmid)
    if kept is None:
        raise Precondition(
            "No write of this key can be undone here.",
            hint="Only writes whose answer has `undo` can, for a week.",
        )
    return kept
