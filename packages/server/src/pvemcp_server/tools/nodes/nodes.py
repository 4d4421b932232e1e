"""Lists of nodes, of their disks and of replication jobs."""

from operator import attrgetter

from pvemcp_server.access.model import Area, Effect
from pvemcp_server.tables import (
    LoadRequest,
    Node,
    NodeDisk,
    Replication,
    node_disks,
    nodes,
    replications,
)
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import AnyNode, ClusterName, DetailLevel
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.cluster_lookup import clusters_with
from pvemcp_server.toolkit.lists import listed
from pvemcp_server.toolkit.registry import Rows, tool


@tool("ListNodes", area=Area.NODES, effect=Effect.READ, answer=Node, needs=(needs.NODES,))
async def list_nodes(
    call: Call, *, cluster_name: ClusterName = None, detail_level: DetailLevel = "Minimal"
) -> Rows:
    """List nodes with their state and use; Full adds totals and network."""
    columns = Node.full if detail_level == "Full" else Node.minimal
    return await listed(call, nodes, cluster_name, columns, order=attrgetter("node"))


@tool(
    "ListReplications",
    area=Area.NODES,
    effect=Effect.READ,
    answer=Replication,
    needs=(needs.GUESTS,),
)
async def list_replications(call: Call, *, cluster_name: ClusterName = None) -> Rows:
    """List replication jobs with the outcome of their last run."""
    order = attrgetter("vmid", "job_number")
    return await listed(call, replications, cluster_name, Replication.minimal, order=order)


@tool("ListNodeDisks", area=Area.NODES, effect=Effect.READ, answer=NodeDisk, needs=(needs.NODES,))
async def list_node_disks(
    call: Call, *, cluster_name: ClusterName = None, node: AnyNode = None
) -> Rows:
    """List physical disks of nodes with health and wearout, the life left: 100 is new."""
    return await listed(
        call,
        node_disks,
        cluster_name,
        NodeDisk.minimal,
        request=LoadRequest(nodes=frozenset(filter(None, [node]))),
        order=attrgetter("node", "device"),
        clusters=await clusters_with(call, cluster_name, node),
        required=node is not None,
    )
