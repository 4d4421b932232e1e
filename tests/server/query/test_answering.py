"""Random queries over emulated clusters: reading little gives the answers that reading all gives.

Conditions are pushed into loaders, costly tables are read for few rows, databases are kept; an
oracle that has every row of every table must not see any of it.
"""

from contextlib import AsyncExitStack
from random import Random

import pytest

from proxmox_client import ApiToken, Client, Tls
from proxmox_client.emulator import Emulator, ManualClock, demo
from pvemcp_server.access.model import EVERYTHING, READS, Caller, Grant, Resources, Role
from pvemcp_server.clusters import Cluster, Inventory, Notes
from pvemcp_server.query.execute import answer
from pvemcp_server.query.sources import Sources
from pvemcp_server.tables.load import load
from pvemcp_server.tables.registry import Budget, tables

pytestmark = pytest.mark.anyio

SCOPES = {
    "everything": EVERYTHING,
    "a pool": Resources(pools=frozenset({"production"})),
    "a node and a guest": Resources(nodes=frozenset({"pve02"}), vmids=frozenset({101})),
}
LISTED_ANYWHERE = {"backups", "storage_content"}  # on a shared storage: at the node asked for


@pytest.fixture(scope="module")
async def clusters(anyio_backend):
    """The demo clusters at one moment."""
    async with AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(Emulator(demo(), clock=ManualClock()))
        found = []
        for one in emulator:
            auth, tls = ApiToken(*one.token), Tls(ca_pem=one.ca_pem)
            client = await stack.enter_async_context(Client(one.hosts, auth, tls=tls))
            inventory = Inventory(client, lambda: 3600.0)
            found.append(
                Cluster(one.name, "", client, one.token[0], inventory, EVERYTHING, Notes())
            )
        yield found


async def world_of(differential, sources):
    """All rows that the caller may see."""
    rows = {
        name: {cluster: await load(table, view) for cluster, view in sources.views(table).items()}
        for name, table in tables().items()
    }
    return differential.World(rows)


def about(meaning, names):
    """Whether a condition is about one of these fields."""
    return any(name in repr(meaning.where) for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("scope", SCOPES)
async def test_reading_little_answers_like_reading_everything(differential, clusters, scope):
    grant = Grant(frozenset({READS}), resources=SCOPES[scope])
    caller = Caller("k", "key", Role(1, "reads", "", (grant,)))
    sources = Sources(caller, [one.within(SCOPES[scope]) for one in clusters])
    world = await world_of(differential, sources)
    rng = Random(scope)  # noqa: S311 - the same queries every time
    asker = differential.Asker(rng, world)
    for _ in range(60):
        asked, meaning = asker.query()
        if meaning.table in LISTED_ANYWHERE and about(meaning, ["name='node'"]):
            continue
        if about(meaning, ["'paused'"]):  # told apart where it is named only
            continue
        ours = (await answer(asked, sources, Budget(), differential.NOW)).rows
        theirs = differential.expected(meaning, world)
        assert len(ours) == len(theirs), asked
        for mine, other in zip(ours, theirs, strict=True):
            assert list(mine.values()) == list(map(alike, other.values())), asked


def alike(cell):
    """What a cell may be: floats add up in another order, and entries come as a list."""
    if isinstance(cell, float):
        return pytest.approx(cell, abs=0.011)
    return list(cell) if isinstance(cell, tuple) else cell
