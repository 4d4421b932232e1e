"""Following a Proxmox task to its end: progress while it runs, its outcome after."""

from typing import Any

from pvemcp_server.clusters import Cluster
from pvemcp_server.tools.call import Call


async def follow(call: Call, cluster: Cluster, upid: str) -> dict[str, Any]:
    """The task's outcome when the caller waits for it; a note on how to ask for it otherwise."""
    call.notes.add(f"Task runs on {cluster.name}: GetTask with this upid tells its outcome.")
    return {}
