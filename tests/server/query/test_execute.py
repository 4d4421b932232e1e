"""Random queries over emulated clusters: optimized loading gives the answers of full loading.

Predicate push-down, the reduction of costly tables and the database cache must not change any
answer of the oracle, which has every row of every table.
"""

from datetime import UTC, datetime
from random import Random

import pytest
from tests.server.tools.few_guests import few_guests
from tests.server.tools.tool_client import open_tool_client

from proxmox_client.emulator import ManualClock
from pvemcp_server.access.model import EVERYTHING, READS, Caller, Grant, Resources, Role
from pvemcp_server.clusters import Cluster, Notes
from pvemcp_server.query.execute import execute
from pvemcp_server.query.sources import Sources
from pvemcp_server.settings import DEFAULT_ROWS
from pvemcp_server.store.records import ClusterKind
from pvemcp_server.tables import rows as rows_module
from pvemcp_server.tables.registry import Budget, load, tables

pytestmark = pytest.mark.anyio

SCOPES = {
    "everything": EVERYTHING,
    "a pool": Resources(pools=frozenset({"production"})),
    "a node and a guest": Resources(nodes=frozenset({"pve02"}), vmids=frozenset({101})),
}
# On a shared storage their node is the requested one
ANY_NODE = {"backups", "storage_content"}


@pytest.fixture(scope="module")
async def clusters(anyio_backend):
    """Open the demo clusters at one moment."""
    now = datetime.now(UTC)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(rows_module, "_now", lambda: now)  # ages stand still as well
        async with open_tool_client(few_guests(), ManualClock(), kept=True) as client:
            yield [
                Cluster(name, "", one.pve, one.account, one.inventory, EVERYTHING, Notes())
                for name, one in client.clusters.connected.items()
            ]


METRICS = {n for n, table in tables().items() if "time_frame" in table.fields} | {"clocks"}
"""Tables whose values go on between two reads."""


async def dataset_of(differential, sources):
    """Load all rows that the caller may see."""
    rows = {
        name: {
            cluster: await load(table, view) if name not in METRICS else []
            for cluster, view in sources.views(table).items()
        }
        for name, table in tables().items()
    }
    return differential.Dataset(rows)


def mentions(reference, name):
    """Return whether a condition mentions the field or value."""
    return name in repr(reference.where)


@pytest.mark.slow
@pytest.mark.parametrize("scope", SCOPES)
async def test_partial_loading_answers_like_full_loading(differential, clusters, scope):
    grant = Grant(frozenset({READS}), resources=SCOPES[scope])
    caller = Caller("k", "key", Role(1, "reads", "", (grant,)))
    sources = Sources(caller, [cluster.within(SCOPES[scope]) for cluster in clusters])
    dataset = await dataset_of(differential, sources)
    rng = Random(scope)  # noqa: S311 - the same queries every time
    generator = differential.QueryGenerator(rng, dataset)
    for _ in range(60):
        query, reference = generator.query()
        if reference.table in METRICS or ClusterKind.PVE not in tables()[reference.table].kinds:
            continue
        shared = reference.table in ANY_NODE or any(mentions(reference, t) for t in ANY_NODE)
        if shared and mentions(reference, "name='node'"):
            continue
        if mentions(reference, "'paused'"):  # reported only where a condition names it
            continue
        rows = (await execute(query, sources, Budget(), differential.NOW, DEFAULT_ROWS)).rows
        expected, _ = differential.expected(reference, dataset)
        assert len(rows) == len(expected), query
        for row, truth in zip(rows, expected, strict=True):
            assert list(row.values()) == list(map(comparable, truth.values())), query


@pytest.mark.parametrize(
    ("query", "row_cap", "rows", "next_offset"),
    [
        ({}, 20, 20, 20),
        ({"offset": 5}, 20, 20, 25),
        ({"limit": 5}, 20, 5, None),
        ({"limit": 500}, 600, 500, None),
        ({"limit": 500}, 50, 50, 50),
    ],
)
async def test_the_row_cap_bounds_a_result_with_and_without_a_limit(
    differential, clusters, query, row_cap, rows, next_offset
):
    grant = Grant(frozenset({READS}), resources=EVERYTHING)
    sources = Sources(Caller("k", "key", Role(1, "reads", "", (grant,))), clusters)
    source = {"from": "permissions", **query}
    result = await execute(source, sources, Budget(), differential.NOW, row_cap)
    assert (len(result.rows), result.next_offset) == (rows, next_offset)


def comparable(cell):
    """Allow for floats that add up in another order, and for tuples that come as lists."""
    if isinstance(cell, float):
        return pytest.approx(cell, abs=0.011)
    return list(cell) if isinstance(cell, tuple) else cell


async def answer(clusters, grants, query):
    caller = Caller("k", "key", Role(1, "mine", "", (Grant(frozenset({"ExecuteQuery"})), *grants)))
    sources = Sources(caller, [cluster.within(EVERYTHING) for cluster in clusters])
    return (await execute(query, sources, Budget(), datetime.now(UTC), DEFAULT_ROWS)).rows


PARTS = {
    "of each cluster": {"resources": Resources(nodes=frozenset({"pve01", "pve"}))},
    "of the clusters": {"clusters": frozenset({"home-lab"})},
}
FROM_GUESTS = {"from": "guests", "select": ["cluster", "vmid", "name", "node.node"]}
WITH_GUESTS = {
    "from": "nodes",
    "select": ["cluster", "node", "cpu_usage"],
    "where": {"field": "guests", "operator": "EXISTS"},
}


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("queries", [(FROM_GUESTS, WITH_GUESTS), (WITH_GUESTS, FROM_GUESTS)])
async def test_queries_of_other_keys_change_no_answer(clusters, part, queries):
    own, others = queries
    names = ("ListVms", "ListNodes")
    for narrow, other in (names, names[::-1]):
        grants, crossed = (
            [Grant(frozenset({name}), **(part if name == narrowed else {})) for name in names]
            for narrowed in (narrow, other)
        )
        for cluster in clusters:
            cluster.inventory.invalidate()
        before = await answer(clusters, grants, own)
        await answer(clusters, crossed, others)
        assert await answer(clusters, grants, own) == before
