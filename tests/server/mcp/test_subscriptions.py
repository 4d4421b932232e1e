"""Changes of resources and prompts are announced to their subscribers in each era."""

from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import mcp_types as types
import pytest
from mcp import MCPError
from mcp.client import Client
from mcp.client.sse import sse_client

import proxmox_client
from pvemcp_server.access.limits import CallLimits
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
    """The notifications of a client, as they come."""

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
    """Return how to connect a listening client of one era, with its notifications."""

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
            await until(demo_served.app.endpoint.active_requests.streams)
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
    """Rename the guest directly in Proxmox."""
    guest.config["name" if "name" in guest.config else "hostname"] = name
    guest.row = None


async def test_a_changed_guest_is_announced_to_its_subscribers(connect, guests, renew_inventory):
    async with connect(GUEST, OTHER) as (_, heard):
        assert heard.honoured == [GUEST, OTHER]
        await renew_inventory()
        rename(guests[100], "renamed")
        await renew_inventory()
        await until(lambda: heard.uris)
        assert heard.uris == [GUEST]


async def test_a_removed_guest_changes_its_cluster(connect, guests, renew_inventory):
    async with connect(CLUSTER) as (_, heard):
        assert heard.honoured == [CLUSTER]
        del guests[100]
        await renew_inventory()
        await until(lambda: heard.uris)
        assert heard.uris == [CLUSTER]


async def test_only_watchable_and_visible_resources_are_acknowledged(connect):
    async with connect(*UNWATCHED, *NOTHING, GUEST) as (_, heard):
        assert heard.honoured == [GUEST]


async def test_the_watcher_announces_changes_by_itself(connect, demo_served, guests, monkeypatch):
    await demo_served.state.settings.change({"inventory_freshness_seconds": 1}, by="test")
    async with connect(GUEST) as (_, heard), anyio.create_task_group() as tasks:
        tasks.start_soon(demo_served.app.endpoint.watcher.run)
        rename(guests[100], "renamed")
        await until(lambda: heard.uris)
        tasks.cancel_scope.cancel()
    assert heard.uris == [GUEST]


async def test_a_failure_does_not_end_the_watcher(demo_served, monkeypatch, caplog):
    watcher, looks = demo_served.app.endpoint.watcher, []
    seen = anyio.Event()

    async def failing():
        looks.append("failed" if not looks else "seen")
        if len(looks) == 1:
            raise RuntimeError("an unexpected failure")
        seen.set()

    await demo_served.state.settings.change({"inventory_freshness_seconds": 1}, by="test")
    monkeypatch.setattr(watcher, "compare_all", failing)
    monkeypatch.setattr(resource_watcher, "RETRY_SECONDS", 0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watcher.run)
        with anyio.fail_after(20):
            await seen.wait()
        tasks.cancel_scope.cancel()
    assert looks == ["failed", "seen"]
    assert "an unexpected failure" in caplog.text


async def test_a_guest_out_of_reach_is_announced_once(
    connect, demo_served, guests, renew_inventory
):
    access = demo_served.state.access
    seen = Grant(frozenset({"*"}), frozenset({"home-lab"}), Resources(vmids=frozenset({100, 101})))
    await access.roles.create("two", [seen])
    key = await demo_served.new_key("two", role="two")
    async with connect(GUEST, OTHER, key=key) as (_, heard):
        assert heard.honoured == [GUEST, OTHER]
        less = Grant(frozenset({"*"}), frozenset({"home-lab"}), Resources(vmids=frozenset({101})))
        await access.roles.change("two", grants=[less])
        await demo_served.state.store.watch.poll()
        await renew_inventory()
        await until(lambda: len(heard.uris) == 1)
        rename(guests[100], "unseen")
        await renew_inventory()
        rename(guests[101], "seen")
        await renew_inventory()
        await until(lambda: len(heard.uris) == 2)
        assert heard.uris == [GUEST, OTHER]


async def test_an_unsubscribed_client_is_not_notified(demo_served, guests, renew_inventory):
    heard = Heard()
    async with Client(demo_served.mcp, mode="legacy", message_handler=heard) as client:
        await client.subscribe_resource(GUEST)
        await client.subscribe_resource(OTHER)
        await until(demo_served.app.endpoint.active_requests.streams)
        await client.unsubscribe_resource(GUEST)
        rename(guests[100], "renamed")
        rename(guests[101], "renamed")
        await renew_inventory()
        await until(lambda: heard.uris)
    assert heard.uris == [OTHER]
    await until(lambda: not demo_served.app.endpoint.notifications.watched())


async def test_many_subscribers_cost_one_request_per_renewal(
    demo_served, guests, renew_inventory, monkeypatch
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
        await renew_inventory()
        assert len(asked) == 1
    await until(lambda: not demo_served.app.endpoint.notifications.watched())
    await renew_inventory()
    assert len(asked) == 1


async def test_the_subscriptions_of_a_key_are_limited(demo_served, monkeypatch):
    monkeypatch.setattr(resource_watcher, "MOST_WATCHED", 1)
    async with Client(demo_served.mcp, mode="legacy") as client:
        again = [await subscribed(client, uri) for uri in (GUEST, OTHER, GUEST)]
    assert again == [True, False, True]


async def test_the_subscriptions_of_all_connections_of_a_user_are_limited_together(
    demo_served, monkeypatch
):
    monkeypatch.setattr(resource_watcher, "MOST_WATCHED", 2)
    key = await demo_served.state.access.authenticator.caller(demo_served.key_id)
    first, second, stranger = (
        replace(key, key_id=name, holder=user)
        for name, user in [("first", "alice"), ("second", "alice"), ("third", "bob")]
    )
    endpoint = demo_served.app.endpoint

    async def ignored(_event):
        pass

    one = Subscriber(first.key_id, first.holder, "", ignored, {GUEST})
    end = endpoint.notifications._add(one)
    try:
        accepted = [
            await endpoint.watcher.accepted(caller, [GUEST, OTHER])
            for caller in (first, second, stranger)
        ]
    finally:
        end()
    assert accepted == [[GUEST, OTHER], [GUEST], [GUEST, OTHER]]


async def test_a_watched_resource_takes_no_place_of_calls_on_its_cluster(demo_served, monkeypatch):
    taken, on_cluster = [], CallLimits.on_cluster

    def recorded(limits, holder, cluster, most):
        taken.append(cluster)
        return on_cluster(limits, holder, cluster, most)

    monkeypatch.setattr(CallLimits, "on_cluster", recorded)
    async with Client(demo_served.mcp, mode="legacy") as client:
        await client.subscribe_resource(GUEST)
        argument = {"name": "vmid", "value": "1"}
        template = types.ResourceTemplateReference(uri="pve://clusters/{cluster}/guests/{vmid}")
        await client.complete(template, argument, context_arguments={"cluster": "home-lab"})
        assert taken == []  # nothing would give it back
        await client.call_tool("ListNodes", {"cluster_name": "home-lab"})
    assert taken == ["home-lab"]


async def test_a_cluster_that_does_not_answer_has_not_changed(
    demo_served, demo_pve, guests, renew_inventory
):
    heard = Heard()
    async with (
        Client(demo_served.mcp, message_handler=heard) as client,
        client.listen(resource_subscriptions=[GUEST]),
    ):
        fault = demo_pve["home-lab"].fault("error", path="/cluster/resources")
        await renew_inventory()
        demo_pve["home-lab"].faults.remove(fault)
        rename(guests[100], "renamed")
        await renew_inventory()
        await until(lambda: heard.uris)
    assert heard.uris == [GUEST]


async def test_a_client_that_does_not_read_delays_no_other(connect, demo_served, caplog):
    async def broken(_event):
        raise anyio.ClosedResourceError

    notifications = demo_served.app.endpoint.notifications
    async with connect() as (_, heard):
        gone = notifications._add(Subscriber(demo_served.key_id, "", "", broken))
        await notifications.queries_changed()
        await until(lambda: heard.prompts)
        gone()
    assert "could not be notified" in caplog.text


async def test_saving_and_removing_a_query_changes_the_prompts(connect, demo_served):
    saved = demo_served.state.store.saved_queries
    query = {"from": "guests"}
    values = {"description": "", "query": query, "created": utc_now(), "changed": utc_now()}
    async with connect() as (client, heard):
        one = await saved.add(name="first", **values)
        await demo_served.state.store.watch.poll()
        await until(lambda: heard.prompts == 1)
        names = {p.name for p in (await client.list_prompts(cache_mode="refresh")).prompts}
        assert "query-first" in names
        await saved.remove(one.id)
        await demo_served.state.store.watch.poll()
        await until(lambda: heard.prompts == 2)
