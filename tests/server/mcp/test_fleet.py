"""Two whole servers on one PostgreSQL database: what clients of one see of the other."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import mcp_types as types
import pytest
from mcp.client import Client
from tests.server.conftest import FakeTools, Served, _add_cluster, _served

from proxmox_client.emulator import Clock, Emulator, Scenario
from pvemcp_server.access import open_access
from pvemcp_server.access.model import Toolset
from pvemcp_server.cli.state import State
from pvemcp_server.config import Config
from pvemcp_server.settings import Settings
from pvemcp_server.store import open_store
from pvemcp_server.store.columns import utc_now
from pvemcp_server.toolkit import registry

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]
GUEST = "pve://clusters/lab/guests/100"


@pytest.fixture
async def lab() -> AsyncIterator[Emulator]:
    async with Emulator(Scenario.cluster("lab", nodes=1, guests=4), clock=Clock(200.0)) as pve:
        yield pve


@pytest.fixture
async def servers(
    tmp_path: Path, new_postgres_database: Callable[[], str], lab: Emulator
) -> AsyncIterator[list[Served]]:
    """Start two servers whose inventories stay fresh for ten minutes."""
    config = Config(
        state_dir=tmp_path / "var",
        database_url=new_postgres_database(),
        port=0,
        log_level="warning",
    )
    product, servers = FakeTools(tools=dict(registry.tools())), []
    async with AsyncExitStack() as stack:
        for number in range(2):
            store = await stack.enter_async_context(open_store(config))
            access = await stack.enter_async_context(open_access(store))
            state = State(config, store, access, Settings(store))
            if not number:
                values = {"enabled": True, "inventory_freshness_seconds": 600}
                values["unconfirmed_destructive"] = "allow"
                await state.settings.change(values, by="test")
                await _add_cluster(access, "lab", lab["lab"])
                key, secret = await access.keys.create(
                    "test", role="Administrator", toolsets=list(Toolset)
                )
            served = _served(state, product, secret, key.id)
            servers.append(await stack.enter_async_context(served))
        yield servers


class Heard:
    """The notifications of a client, by their kind."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[str] = asyncio.Queue()

    async def __call__(self, message: object) -> None:
        if isinstance(message, types.ResourceUpdatedNotification):
            self._queue.put_nowait(str(message.params.uri))
        if isinstance(message, types.PromptListChangedNotification):
            self._queue.put_nowait("prompts")

    async def next(self) -> str:
        with anyio.fail_after(10):
            return await self._queue.get()

    @property
    def is_empty(self) -> bool:
        return self._queue.empty()


@asynccontextmanager
async def listening(served: Served) -> AsyncIterator[Heard]:
    """Listen on a stream of the server, which watches resources as the product does."""
    heard = Heard()
    async with (
        Client(f"{served.url}/mcp/{served.key}", message_handler=heard) as client,
        client.listen(prompts_list_changed=True, resource_subscriptions=[GUEST]),
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(served.app.endpoint.watcher.run)
        tasks.start_soon(served.app.endpoint.notifications.run)
        yield heard
        tasks.cancel_scope.cancel()


async def test_a_read_after_a_write_through_another_server_shows_it(servers):
    one, other = servers

    before = await other.modern.call("ListVms")
    answer = await one.modern.call("ChangeVmState", vmid=100, action="Stop", wait=True)
    assert '"success":true' in str(answer), answer
    with anyio.fail_after(1):  # the promise; it takes milliseconds
        while await other.modern.call("ListVms") == before:  # noqa: ASYNC110 - the other server notifies
            await anyio.sleep(0.01)


async def test_each_stream_hears_of_a_change_once_whichever_server_it_came_through(servers):
    one, other = servers
    async with listening(one) as ours, listening(other) as theirs:
        answer = await one.modern.call("ChangeVmState", vmid=100, action="Stop", wait=True)
        assert '"success":true' in str(answer), answer
        assert await ours.next() == await theirs.next() == GUEST
        times = dict.fromkeys(("created", "changed"), utc_now())
        await one.state.store.saved_queries.add(name="mine", description="", query={}, **times)
        assert await ours.next() == await theirs.next() == "prompts"
        for served in servers:
            await served.app.endpoint.watcher.compare_all()
            await served.app.endpoint.notifications.refresh()
        assert ours.is_empty
        assert theirs.is_empty


async def test_the_rate_of_a_key_holds_for_both_servers(servers):
    one, other = servers
    await one.state.settings.change({"calls_per_minute_per_key": 30}, by="test")
    await other.state.store.watch.poll()
    answers = [await served.modern.send("ping") for served in servers * 25]
    admitted = sum(answer.status_code != 429 for answer in answers)
    assert 28 <= admitted <= 33
