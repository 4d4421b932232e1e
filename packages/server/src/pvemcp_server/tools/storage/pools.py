"""Lists of resource pools."""

from operator import attrgetter

from pvemcp_server.access.model import Area, Effect
from pvemcp_server.tables import Pool, pools
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import ClusterName
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.lists import listed
from pvemcp_server.toolkit.registry import Rows, tool


@tool("ListPools", area=Area.STORAGE, effect=Effect.READ, answer=Pool, needs=(needs.POOLS,))
async def list_pools(call: Call, *, cluster_name: ClusterName = None) -> Rows:
    """List resource pools and their members."""
    return await listed(call, pools, cluster_name, Pool.minimal, order=attrgetter("poolid"))
