"""The configured clusters."""

from operator import attrgetter

from proxmox_client import deadline
from pvemcp_server.access.model import Area, Effect
from pvemcp_server.store.records import ClusterKind
from pvemcp_server.tables.clusters import ClusterRow, clusters
from pvemcp_server.tables.registry import EVERY_KIND
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.lists import listed
from pvemcp_server.toolkit.registry import Rows, tool


@tool("ListClusters", area=Area.CLUSTER, effect=Effect.READ, answer=ClusterRow, kinds=EVERY_KIND)
async def list_clusters(call: Call) -> Rows:
    """List the clusters you can reach, their version and whether they answer."""
    with deadline(call.seconds_left / 2):  # a cluster that hangs is still listed, as not reachable
        rows = await listed(call, clusters, None, ClusterRow.minimal, order=attrgetter("name"))
    kinds = await call.source.kinds()
    freezes = [await cluster.read_freeze() for cluster in call.opened.values()]
    rare = {
        "datastores": any(kinds[name] is ClusterKind.PBS for name in await call.reachable()),
        "frozen": any(freezes),
    }
    return Rows(rows.rows, (*ClusterRow.minimal, *(name for name, has in rare.items() if has)))
