"""2026-07-28 on the wire: what an SDK client hides."""

import json

import anyio
import pytest

pytestmark = pytest.mark.anyio

FORMS = {"io.modelcontextprotocol/clientCapabilities": {"elicitation": {}}}


def deletion(vmid=101, **more):
    return {"name": "DeleteThing", "arguments": {"vmid": vmid}, "_meta": FORMS, **more}


async def asked(modern, **options):
    """Return the question that a destructive call results in."""
    return (await modern.send("tools/call", deletion(**options))).json()["result"]


def agreed(result, **more):
    content = {"action": "accept", "content": {"confirm": True}}
    return {"inputResponses": {"confirm": content}, "requestState": result["requestState"], **more}


async def test_a_destructive_call_returns_a_question(modern, fake_tools):
    result = await asked(modern)
    assert result["resultType"] == "input_required"
    question = result["inputRequests"]["confirm"]
    assert question["method"] == "elicitation/create"
    assert question["params"]["message"] == "Delete thing 101."
    assert question["params"]["requestedSchema"]["required"] == ["confirm"]
    assert fake_tools.done == []


async def test_the_state_of_a_question_is_sealed_and_serves_once(served, modern, fake_tools):
    result = await asked(modern)
    assert "101" not in result["requestState"]
    tampered = dict(agreed(result), requestState=result["requestState"][:-2] + "xx")
    other = await served.new_key("other", role="Administrator")
    for attempt, path in (
        (deletion(**tampered), modern.path),  # changed by the client
        (deletion(vmid=102, **agreed(result)), modern.path),  # for other arguments
        (deletion(**agreed(result)), f"/mcp/{other}"),  # by another key
    ):
        modern.path = path
        answer = (await modern.send("tools/call", attempt)).json()
        assert answer["error"]["code"] == -32602
    assert fake_tools.done == []


async def test_a_changed_question_is_asked_again(modern, fake_tools):
    result = await asked(modern)
    fake_tools.loses = "Its backups go with it."  # changed after the question
    again = await asked(modern, **agreed(result))
    assert again["inputRequests"]["confirm"]["params"]["message"].endswith(
        "Its backups go with it."
    )
    assert fake_tools.done == []


async def test_an_answer_without_state_is_ignored(modern, fake_tools):
    content = {"action": "accept", "content": {"confirm": True}}
    result = await asked(modern, inputResponses={"confirm": content})
    assert result["resultType"] == "input_required"
    assert fake_tools.done == []


async def test_a_question_can_be_answered_to_another_process(serving, fake_tools):
    """Answer the question of one server to a second one on the same state."""
    async with serving() as one:
        result = await asked(one.modern)
        async with one.twin() as two:
            done = await asked(two.modern, **agreed(result))
    assert done["isError"] is False
    assert fake_tools.done == ["Delete thing 101."]


@pytest.mark.parametrize("first", ["accept", "decline", "cancel"])
async def test_an_answer_to_a_question_counts_once(serving, fake_tools, first):
    """Replay a consent and a refusal, in the same process and in another one."""
    async with serving() as one:
        result = await asked(one.modern)
        answer = agreed(result)
        answer["inputResponses"]["confirm"] |= {"action": first}
        await asked(one.modern, **answer)
        assert fake_tools.done == ["Delete thing 101."] * (first == "accept")
        fake_tools.done.clear()
        async with one.twin() as two:
            for server in (one, two):
                again = await asked(server.modern, **agreed(result))
                assert again["resultType"] == "input_required"
    assert fake_tools.done == []


async def test_an_answer_to_a_changed_question_is_used_up(modern, fake_tools):
    result = await asked(modern)
    fake_tools.loses = "Its backups go with it."
    await asked(modern, **agreed(result))
    fake_tools.loses = ""  # the question of before
    again = await asked(modern, **agreed(result))
    assert again["resultType"] == "input_required"
    assert (await asked(modern, **agreed(again)))["isError"] is False


async def test_lists_are_private_and_have_a_lifetime(modern):
    result = (await modern.send("tools/list")).json()["result"]
    assert (result["cacheScope"], result["ttlMs"] > 0) == ("private", True)
    discovered = (await modern.send("server/discover")).json()["result"]
    assert (discovered["cacheScope"], discovered["supportedVersions"]) == (
        "private",
        ["2026-07-28"],
    )


async def test_the_list_cache_separates_keys(served, modern):
    reader = await served.new_key("reader")
    paths = [modern.path, f"/mcp/{reader}"] * 2
    names = []
    for path in paths:
        modern.path = path
        tools = (await modern.send("tools/list")).json()["result"]["tools"]
        names.append([tool["name"] for tool in tools])
    assert names[0] == names[2] != names[1] == names[3]
    assert "DeleteThing" not in names[1]


async def test_a_key_for_some_tools_sees_only_its_tools(served, modern):
    modern.path = f"/mcp/{await served.new_key('narrow', tools=['GetThing', 'DeleteThing'])}"
    tools = (await modern.send("tools/list")).json()["result"]["tools"]
    assert [tool["name"] for tool in tools] == ["GetThing"]


async def test_tools_have_annotations(modern):
    tools = (await modern.send("tools/list")).json()["result"]["tools"]
    hints = {tool["name"]: tool["annotations"] for tool in tools}
    assert hints["GetThing"] == {
        "title": "Get thing",
        "readOnlyHint": True,
        "destructiveHint": False,
        "openWorldHint": False,
    }
    assert hints["DeleteThing"]["destructiveHint"] is True
    assert hints["StartThing"]["destructiveHint"] is False


async def test_only_announced_changes_are_acknowledged(modern):
    everything = {
        "toolsListChanged": True,
        "resourceSubscriptions": ["pve://nothing/of/ours"],
    }
    params = {"notifications": everything}
    async with modern.http.stream(
        "POST",
        modern.path,
        json=modern.message("subscriptions/listen", params),
        headers=modern.headers("subscriptions/listen"),
    ) as stream:
        with anyio.fail_after(20):
            async for line in stream.aiter_lines():
                if line.startswith("data: "):
                    break
    acknowledged = json.loads(line.removeprefix("data: "))
    assert acknowledged["params"]["notifications"] == {"toolsListChanged": True}


async def test_a_header_that_differs_from_the_body_is_refused(modern):
    answer = await modern.send("tools/list", Mcp_Method="tools/call")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32020)


async def test_get_and_delete_are_refused_in_this_revision(modern):
    for method in ("GET", "DELETE"):
        headers = {"MCP-Protocol-Version": "2026-07-28"}
        answer = await modern.http.request(method, modern.path, headers=headers)
        assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
