"""Prompts, resources and completion, on the demo clusters."""

import json
import re

import pytest
from mcp import MCPError
from mcp.client import Client
from mcp_types import PromptReference, ResourceTemplateReference

from pvemcp_server.access.model import EVERYTHING, Grant
from pvemcp_server.mcp import resources
from pvemcp_server.mcp.handlers import _contents
from pvemcp_server.mcp.prompts import PLAYBOOKS, QUESTIONS
from pvemcp_server.pipeline.pipeline import Result
from pvemcp_server.store.columns import utc_now
from pvemcp_server.tables.registry import tables
from pvemcp_server.toolkit.registry import tools

pytestmark = pytest.mark.anyio
ALL = (*QUESTIONS, *PLAYBOOKS)


def test_there_are_seventeen_questions_and_four_playbooks():
    assert (len(QUESTIONS), len(PLAYBOOKS)) == (17, 4)
    assert len({prompt.name for prompt in ALL}) == 21


@pytest.mark.parametrize("prompt", ALL, ids=lambda prompt: prompt.name)
def test_a_prompt_declares_the_tools_in_its_text(prompt):
    assert set(prompt.tools) <= set(tools())
    assert [name for name in prompt.tools if name not in prompt.text] == []
    mentioned = {name for name in tools() if re.search(rf"\b{name}\b", prompt.text)}
    assert mentioned == set(prompt.tools)


@pytest.mark.parametrize("prompt", ALL, ids=lambda prompt: prompt.name)
def test_a_filled_prompt_has_no_open_slots(prompt):
    filled = prompt.filled({name: f"<{name}>" for name in prompt.slots})
    assert all(f"<{name}>" in filled for name in prompt.slots)
    assert "{" not in filled


@pytest.fixture(params=["auto", "legacy"])
async def client(request, demo_served):
    async with Client(demo_served.mcp, mode=request.param) as client:
        yield client


async def test_a_client_lists_prompts_and_gets_one(client):
    listed = {prompt.name: prompt for prompt in (await client.list_prompts()).prompts}
    assert set(listed) == {prompt.name for prompt in ALL}
    arguments = [(a.name, a.required) for a in listed["busy-guests"].arguments]
    assert arguments == [("cluster", True), ("percent", False)]
    got = await client.get_prompt("busy-guests", {"cluster": "home-lab"})
    assert got.messages[0].content.text.startswith(
        "Which VMs in cluster home-lab are running and using more than 70% CPU?"
    )


async def test_wrong_prompt_arguments_are_explained(client):
    misspelt = {"cluster": "x", "percnt": "1"}
    for name, arguments, message in (
        ("no-such", {}, "Unknown prompt: no-such"),
        ("busy-guests", {}, "cluster: this argument is required."),
        (
            *("busy-guests", misspelt),
            "percnt: there is no such argument. Did you mean percent?",
        ),
    ):
        with pytest.raises(MCPError) as caught:
            await client.get_prompt(name, arguments)
        assert (caught.value.error.code, caught.value.error.message) == (-32602, message)


async def test_prompts_need_the_keys_tools(demo_served):
    reader = await demo_served.new_key("reader")
    async with Client(f"{demo_served.url}/mcp/{reader}") as client:
        names = {prompt.name for prompt in (await client.list_prompts()).prompts}
    assert "cluster-health" in names
    assert names.isdisjoint({"reset-guest", "migrate-guest", "before-maintenance"})


async def test_a_saved_query_is_a_prompt(demo_served):
    query = {"from": "guests", "select": ["vmid"], "limit": 3}
    await demo_served.state.store.saved_queries.add(
        name="first",
        description="The first three",
        query=query,
        created=utc_now(),
        changed=utc_now(),
    )
    async with Client(demo_served.mcp) as client:
        got = await client.get_prompt("query-first")
    assert got.description == "The first three"
    assert json.dumps(query) in got.messages[0].content.text


async def test_a_saved_query_the_key_may_not_run_is_no_prompt(demo_served):
    query = {"from": "guests", "select": ["name"]}
    state = demo_served.state
    await state.store.saved_queries.add(
        name="hidden", description="", query=query, created=utc_now(), changed=utc_now()
    )
    await state.access.roles.create(
        "storages", [Grant(frozenset({"ExecuteQuery", "ListStorage"}), resources=EVERYTHING)]
    )
    _, narrow = await state.access.keys.create("narrow", role="storages")
    async with Client(f"{demo_served.url}/mcp/{narrow}") as client:
        names = {prompt.name for prompt in (await client.list_prompts()).prompts}
    assert "query-hidden" not in names
    async with Client(demo_served.mcp) as client:
        names = {prompt.name for prompt in (await client.list_prompts()).prompts}
    assert "query-hidden" in names


async def test_each_cluster_is_a_resource(client):
    listed = [str(resource.uri) for resource in (await client.list_resources()).resources]
    assert listed == [
        *("pve://clusters", "pve://schema"),
        *("pve://clusters/home-lab", "pve://clusters/prod"),
    ]
    templates = await client.list_resource_templates()
    assert "pve://clusters/{cluster}/guests/{vmid}" in [
        template.uri_template for template in templates.resource_templates
    ]


async def test_a_resource_has_the_answer_of_its_tool(client):
    for uri, holds in (
        ("pve://clusters", '"name":"home-lab"'),
        ("pve://clusters/home-lab", '"cluster":"home-lab"'),
        ("pve://schema/guests", "cpu_usage"),
    ):
        contents, *_notes = (await client.read_resource(uri)).contents
        assert contents.mime_type == "application/json"
        assert json.loads(contents.text)
        assert holds in contents.text


def test_a_resource_has_the_notes_of_its_answer():
    read = _contents("pve://clusters", Result(("{}", "home-lab did not answer.")))
    assert [(content.mime_type, content.text) for content in read] == [
        ("application/json", "{}"),
        ("text/plain", "home-lab did not answer."),
    ]


async def test_every_template_can_be_read(client):
    [nodes] = (await client.call_tool("ListNodes", {"cluster_name": "home-lab"})).content[:1]
    node = json.loads(nodes.text)["data"]["rows"][0][0]
    guests = await client.call_tool("ListVms", {"cluster_name": "home-lab", "status": "running"})
    vmid = json.loads(guests.content[0].text)["data"]["rows"][0][0]
    values = {"cluster": "home-lab", "node": node, "vmid": str(vmid), "table": "nodes"}
    for place in resources.FAMILIES:
        uri = place.uri(**{slot: values[slot] for slot in place.slots})
        contents, *_notes = (await client.read_resource(uri)).contents
        assert json.loads(contents.text), uri


async def test_an_unknown_uri_is_not_found(client):
    for uri in (
        "pve://nothing",
        "pve://clusters/nowhere",
        "pve://clusters/home-lab/guests/999",
        "pve://clusters/home-lab/guests/web",
        "pve://schema/nothing",
        "file:///etc/passwd",
    ):
        with pytest.raises(MCPError) as caught:
            await client.read_resource(uri)
        assert (caught.value.error.code, caught.value.error.data) == (-32602, {"uri": uri})


async def test_completion_offers_names_that_contain_the_typed_text(client):
    prompt = PromptReference(name="before-maintenance")
    clusters = await client.complete(prompt, {"name": "cluster", "value": "pro"})
    assert clusters.completion.values == ["prod"]
    nodes = await client.complete(
        prompt, {"name": "node", "value": ""}, context_arguments={"cluster": "home-lab"}
    )
    assert len(nodes.completion.values) == 1
    template = ResourceTemplateReference(uri="pve://clusters/{cluster}/guests/{vmid}")
    guests = await client.complete(
        template, {"name": "vmid", "value": "1"}, context_arguments={"cluster": "prod"}
    )
    assert guests.completion.total > 20
    assert guests.completion.values == sorted(
        guests.completion.values, key=lambda v: (not v.startswith("1"), int(v))
    )


async def test_completion_of_an_unknown_argument_is_empty(client):
    prompt = PromptReference(name="busy-guests")
    for argument in ({"name": "percent", "value": "7"}, {"name": "cluster", "value": "zzz"}):
        assert (await client.complete(prompt, argument)).completion.values == []


async def test_tables_of_other_tools_are_not_completed(demo_served):
    names = ["GetQuerySchema", "ExecuteQuery", "ListStorage"]
    narrow = await demo_served.new_key("tables", tools=names)
    template = ResourceTemplateReference(uri="pve://schema/{table}")
    async with Client(f"{demo_served.url}/mcp/{narrow}") as client:
        completed = await client.complete(template, {"name": "table", "value": ""})
        [schema] = (await client.call_tool("GetQuerySchema", {})).content[:1]
    assert 0 < completed.completion.total < len(tables())
    assert all(name in schema.text for name in completed.completion.values)


async def test_tables_are_completed_too(client):
    template = ResourceTemplateReference(uri="pve://schema/{table}")
    completed = await client.complete(template, {"name": "table", "value": "config"})
    assert completed.completion.values == ["lxc_configs", "qemu_configs"]


@pytest.mark.parametrize(
    "place",
    [
        PromptReference(name="reset-guest"),
        PromptReference(name="no-such"),
        ResourceTemplateReference(uri="pve://schema/{table}"),
        ResourceTemplateReference(uri="pve://{storage}"),
    ],
    ids=lambda place: getattr(place, "name", None) or place.uri,
)
async def test_only_arguments_of_the_reference_are_completed(client, place):
    completed = await client.complete(place, {"name": "storage", "value": ""})
    assert completed.completion.values == []


async def test_a_prompt_about_a_guest_may_name_the_cluster(client):
    for arguments, opening in (
        ({"vmid": "100"}, "Reset VM 100, it hangs."),
        ({"vmid": "100", "cluster": "prod"}, "Reset VM 100 of cluster prod, it hangs."),
    ):
        got = await client.get_prompt("reset-guest", arguments)
        assert got.messages[0].content.text.startswith(opening)
    prompt = PromptReference(name="reset-guest")
    typed = {"name": "vmid", "value": "100"}
    for cluster in ("home-lab", "prod"):
        completed = await client.complete(prompt, typed, context_arguments={"cluster": cluster})
        assert completed.completion.values == ["100"]


async def test_completion_reveals_nothing_beyond_the_keys_clusters(demo_served):
    narrow = await demo_served.new_key("narrow", clusters=["home-lab"])
    async with Client(f"{demo_served.url}/mcp/{narrow}") as client:
        prompt = PromptReference(name="cluster-health")
        completed = await client.complete(prompt, {"name": "cluster", "value": ""})
        listed = [str(resource.uri) for resource in (await client.list_resources()).resources]
    assert completed.completion.values == ["home-lab"]
    assert "pve://clusters/prod" not in listed
