"""Changes of single resources and of prompts reach whoever wants to hear of them, in each era."""

from contextlib import asynccontextmanager

import anyio
import mcp_types as types
import pytest
from mcp import MCPError
from mcp.client import Client
from mcp.client.sse import sse_client

import proxmox_client
from pvemcp_server.access.model import Grant, Resources
from pvemcp_server.mcp import resource_watcher
from pvemcp_server.mcp.notifications import Subscriber
from pvemcp_server.store.columns import utc_now

pytestmark = [
    pytest.mark.anyio,
    # sessions have no other way to subscribe
    pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning"),
]
GUEST = "pve://clusters/home-lab/guests/100"
OTHER = "pve://clusters/home-lab/guests/101"
NODE = "pve://clusters/home-lab/nodes/pve"
CLUSTER = "pve://clusters/home-lab"
UNWATCHED = ["pve://clusters", f"{GUEST}/config", "pve://schema", "pve://schema/guests"]
NOTHING = [f"{CLUSTER}/guests/9", f"{CLUSTER}/guests/x", "pve://clusters/none", "file:///etc"]


class Heard:
    """What a client was told, as it comes."""

    def __init__(self):
        self.uris = []
        self.prompts = 0

    async def __call__(self, message):
        if isinstance(message, types.ResourceUpdatedNotification):
            self.uris.append(str(message.params.uri))
        if isinstance(message, types.PromptListChangedNotification):
            self.prompts += 1


@pytest.fixture(params=["auto", "legacy", "sse"])
def connect(request, demo_served):
    """A client of one era, listening, with what it hears."""

    @asynccontextmanager
    async def connected(*uris, key=demo_served.key):
        heard, options = Heard(), {"mode": request.param}
        target = f"{demo_served.url}/mcp/{key}"
        if request.param == "sse":
            target, options = sse_client(f"{demo_served.url}/sse/{key}"), {"mode": "legacy"}
        async with Client(target, message_handler=heard, **options) as client:
            if client.protocol_version == "2026-07-28":
                async with client.listen(
                    prompts_list_changed=True, resource_subscriptions=uris
                ) as stream:
                    heard.honoured = list(stream.honored.resource_subscriptions or ())
                    yield client, heard
                return
            heard.honoured = [uri for uri in uris if await subscribed(client, uri)]
            await until(demo_served.app.endpoint.active_requests.keys)
            yield client, heard

    return connected


async def subscribed(client, uri):
    try:
        await client.subscribe_resource(uri)
    except MCPError as refused:
        return refused.error.code != -32602
    return True


async def until(fact):
    with anyio.fail_after(20):
        while not fact():
            await anyio.lowlevel.checkpoint()


@pytest.fixture
def guests(demo_pve):
    return demo_pve["home-lab"].state.guests


def rename(guest, name):
    """As somebody would in Proxmox itself."""
    guest.config["name" if "name" in guest.config else "hostname"] = name
    guest.row = None


async def test_a_change_of_a_guest_is_told_to_those_who_watch_it(connect, guests, look):
    async with connect(GUEST, OTHER) as (_, heard):
        assert heard.honoured == [GUEST, OTHER]
        await look()
        rename(guests[100], "renamed")
        await look()
        await until(lambda: heard.uris)
        assert heard.uris == [GUEST]


async def test_a_cluster_that_loses_a_guest_has_changed(connect, guests, look):
    async with connect(CLUSTER) as (_, heard):
        assert heard.honoured == [CLUSTER]
        del guests[100]
        await look()
        await until(lambda: heard.uris)
        assert heard.uris == [CLUSTER]


async def test_what_nobody_watches_or_may_see_is_not_promised(connect):
    async with connect(*UNWATCHED, *NOTHING, GUEST) as (_, heard):
        assert heard.honoured == [GUEST]


async def test_the_loop_itself_tells_of_changes(connect, demo_served, guests, monkeypatch):
    await demo_served.state.settings.change({"inventory_freshness_seconds": 1}, by="test")
    async with connect(GUEST) as (_, heard), anyio.create_task_group() as tasks:
        tasks.start_soon(demo_served.app.endpoint.watcher.run)
        rename(guests[100], "renamed")
        await until(lambda: heard.uris)
        tasks.cancel_scope.cancel()
    assert heard.uris == [GUEST]


async def test_a_failure_does_not_end_the_looking(demo_served, monkeypatch, caplog):
    watcher, looks = demo_served.app.endpoint.watcher, []
    seen = anyio.Event()

    async def failing():
        looks.append("failed" if not looks else "seen")
        if len(looks) == 1:
            raise RuntimeError("nobody has foreseen this")
        seen.set()

    await demo_served.state.settings.change({"inventory_freshness_seconds": 1}, by="test")
    monkeypatch.setattr(watcher, "look", failing)
    monkeypatch.setattr(resource_watcher, "PAUSE_SECONDS", 0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watcher.run)
        with anyio.fail_after(20):
            await seen.wait()
        tasks.cancel_scope.cancel()
    assert looks == ["failed", "seen"]
    assert "nobody has foreseen this" in caplog.text


async def test_a_guest_that_is_withdrawn_is_told_once_and_never_again(
    connect, demo_served, guests, look
):
    access = demo_served.state.access
    seen = Grant(frozenset({"*"}), frozenset({"home-lab"}), Resources(vmids=frozenset({100, 101})))
    await access.roles.create("two", [seen])
    key = await demo_served.new_key("two", role="two")
    async with connect(GUEST, OTHER, key=key) as (_, heard):
        assert heard.honoured == [GUEST, OTHER]
        less = Grant(frozenset({"*"}), frozenset({"home-lab"}), Resources(vmids=frozenset({101})))
        await access.roles.change("two", grants=[less])
        await demo_served.state.store.watch.now()
        await look()
        await until(lambda: len(heard.uris) == 1)
        rename(guests[100], "unseen")
        await look()
        rename(guests[101], "seen")
        await look()
        await until(lambda: len(heard.uris) == 2)
        assert heard.uris == [GUEST, OTHER]


async def test_who_has_unsubscribed_hears_no_more(demo_served, guests, look):
    heard = Heard()
    async with Client(demo_served.mcp, mode="legacy", message_handler=heard) as client:
        await client.subscribe_resource(GUEST)
        await client.subscribe_resource(OTHER)
        await until(demo_served.app.endpoint.active_requests.keys)
        await client.unsubscribe_resource(GUEST)
        rename(guests[100], "renamed")
        rename(guests[101], "renamed")
        await look()
        await until(lambda: heard.uris)
    assert heard.uris == [OTHER]
    await until(lambda: not demo_served.app.endpoint.notifications.watched())


async def test_many_who_watch_cost_one_request_for_each_renewal(
    demo_served, guests, look, monkeypatch
):
    asked, ask = [], proxmox_client.api.cluster.ClusterApi.resources

    async def counted(cluster, *arguments):
        asked.append(cluster)
        return await ask(cluster, *arguments)

    uris = [*(f"{CLUSTER}/guests/{vmid}" for vmid in guests), CLUSTER, NODE]
    async with (
        Client(demo_served.mcp) as one,
        Client(demo_served.mcp) as other,
        one.listen(resource_subscriptions=uris) as first,
        other.listen(resource_subscriptions=uris) as second,
    ):
        assert first.honored.resource_subscriptions == second.honored.resource_subscriptions == uris
        monkeypatch.setattr(proxmox_client.api.cluster.ClusterApi, "resources", counted)
        await look()
        assert len(asked) == 1
    await until(lambda: not demo_served.app.endpoint.notifications.watched())
    await look()
    assert len(asked) == 1


async def test_a_key_may_not_watch_without_end(demo_served, monkeypatch):
    monkeypatch.setattr(resource_watcher, "MOST_PER_KEY", 1)
    async with Client(demo_served.mcp, mode="legacy") as client:
        again = [await subscribed(client, uri) for uri in (GUEST, OTHER, GUEST)]
    assert again == [True, False, True]


async def test_a_cluster_that_does_not_answer_has_not_changed(demo_served, demo_pve, guests, look):
    heard = Heard()
    async with (
        Client(demo_served.mcp, message_handler=heard) as client,
        client.listen(resource_subscriptions=[GUEST]),
    ):
        fault = demo_pve["home-lab"].fault("error", path="/cluster/resources")
        await look()
        demo_pve["home-lab"].faults.remove(fault)
        rename(guests[100], "renamed")
        await look()
        await until(lambda: heard.uris)
    assert heard.uris == [GUEST]


async def test_a_client_that_cannot_be_told_keeps_nothing_from_the_others(
    connect, demo_served, caplog
):
    async def broken(_event):
        raise anyio.ClosedResourceError

    notifications = demo_served.app.endpoint.notifications
    async with connect() as (_, heard):
        gone = notifications._add(Subscriber(demo_served.key_id, "", broken))
        await notifications.queries_changed()
        await until(lambda: heard.prompts)
        gone()
    assert "could not be told" in caplog.text


async def test_a_query_that_is_saved_or_removed_changes_the_prompts(connect, demo_served):
    saved = demo_served.state.store.saved_queries
    query = {"from": "guests"}
    values = {"description": "", "query": query, "created": utc_now(), "changed": utc_now()}
    async with connect() as (client, heard):
        one = await saved.add(name="first", **values)
        await demo_served.state.store.watch.now()
        await until(lambda: heard.prompts == 1)
        names = {p.name for p in (await client.list_prompts(cache_mode="refresh")).prompts}
        assert "query-first" in names
        await saved.remove(one.id)
        await demo_served.state.store.watch.now()
        await until(lambda: heard.prompts == 2)
