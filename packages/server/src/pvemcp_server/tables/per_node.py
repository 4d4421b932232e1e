"""Tables that take one call per node and list what is there."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from proxmox_client import Node
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables import fanout
from pvemcp_server.tables.guests import TO_NODE
from pvemcp_server.tables.reach import of_node
from pvemcp_server.tables.registry import Cost, LoadRequest, made, never_filtered, table

T = TypeVar("T")
RowT = TypeVar("RowT")

node_table = partial(
    table,
    cost=Cost.PER_NODE,
    covered=of_node,
    relations=(TO_NODE,),
    looks_filtered=never_filtered,
    rare=True,
)
"""Declares a table whose rows belong to a node; Proxmox refuses it without the privilege."""


async def rows_of_nodes(
    cluster: Cluster,
    request: LoadRequest,
    ask: Callable[[Node], Awaitable[Sequence[T]]],
    make: Callable[[str, T], RowT],
    what: str,
) -> list[RowT]:
    """Ask each requested node and make a row of each item; failures are noted as `what`."""
    answers = await fanout.each(
        cluster,
        await fanout.nodes(cluster, request),
        lambda node: ask(cluster.pve.node(node)),
        request,
        what,
    )
    pairs = ((node, item) for node, items in answers.items() for item in items)
    return await made(cluster, pairs, lambda pair: [make(*pair)])
