"""The pipeline: blocks of an answer, errors with a next step, and the audit."""

import json
import logging
from functools import partial

import anyio
import pytest
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
)

from pvemcp_server.errors import StateUnavailable, Unrecorded
from pvemcp_server.store import audit_log

pytestmark = pytest.mark.anyio


def texts(answer):
    return [block["text"] for block in answer["result"]["content"]]


async def test_notes_are_a_second_block(modern):
    data, notes = texts(await modern.call("ListThings"))
    assert json.loads(data)["data"]["headers"] == ["vmid", "name"]
    assert notes == "\nThing 7 did not answer.\nLeft out because empty in every row: tags."


async def test_an_answer_without_notes_is_one_block(modern):
    answer = await modern.call("GetThing", vmid=101)
    assert texts(answer) == ['{"data":{"vmid":101,"name":"web","cpu_usage":12.3}}']
    assert "structuredContent" not in answer["result"]


@pytest.mark.parametrize("name", ["NoSuchTool", "StartThing"])
async def test_unknown_and_ungranted_tools_are_the_same_protocol_error(served, modern, name):
    reader = await served.new_key("reader")
    modern.path = f"/mcp/{reader}"
    answer = await modern.send("tools/call", {"name": name, "arguments": {"vmid": 1}})
    assert answer.json()["error"] == {
        "code": -32602,
        "message": f"Unknown tool: {name} does not exist or is not granted to this key. "
        "tools/list names those that are.",
    }
    [entry] = await served.recorded()
    assert (entry.kind, entry.tool, entry.outcome) == ("refused", name, "refused")


@pytest.mark.parametrize("method", ["tools/call", "prompts/get"])
@pytest.mark.parametrize("place", ["name", "argument", "value"])
async def test_no_error_repeats_a_key_that_was_sent_in_the_wrong_place(served, method, place):
    known = {"tools/call": "GetThing", "prompts/get": "guest-health"}[method]
    name = served.key if place == "name" else known
    arguments = {served.key if place == "argument" else "vmid": served.key}
    answer = await served.modern.send(method, {"name": name, "arguments": arguments})
    assert served.key.rpartition("_")[2] not in answer.text


async def test_a_granted_tool_in_other_letters_is_suggested(modern):
    answer = await modern.send("tools/call", {"name": "list_things", "arguments": {}})
    assert answer.json()["error"]["message"].endswith("Did you mean ListThings?")


@pytest.mark.parametrize(("name", "outcome"), [("NoSuchTool", "refused"), ("GetThing", "error")])
async def test_deeply_nested_arguments_are_answered_and_recorded(served, modern, name, outcome):
    nested: list[object] = []
    for _ in range(600):
        nested = [nested]
    answer = await modern.send("tools/call", {"name": name, "arguments": {"vmid": nested}})
    assert "Internal server error" not in answer.text
    [entry] = await served.recorded()
    assert (entry.tool, entry.outcome) == (name, outcome)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"vmid": 101, "dryrun": True},
            (
                "dryrun: there is no such argument, did you mean dry_run? "
                "Accepted are vmid, format, dry_run, wait."
            ),
        ),
        (
            {"VmId": 101},
            (
                "vmid: this argument is required. "
                "VmId: there is no such argument, did you mean vmid? "
                "Accepted are vmid, format, dry_run, wait."
            ),
        ),
        (
            {"vmid": "web"},
            "vmid: Input should be a valid integer, unable to parse string as an integer.",
        ),
    ],
    ids=["misspelt", "other case", "wrong type"],
)
async def test_wrong_arguments_are_named_and_nothing_runs(modern, fake_tools, arguments, text):
    answer = await modern.call("StartThing", **arguments)
    assert answer["result"]["isError"] is True
    first_text, *_ = texts(answer)
    assert first_text.startswith(text)
    assert fake_tools.done == []


async def test_an_unexpected_failure_shows_only_an_incident_number(modern, caplog):
    with caplog.at_level(logging.ERROR):
        answer = await modern.call("Break")
    assert answer["result"]["isError"] is True
    [text] = texts(answer)
    incident = text.split()[-1].rstrip(".")
    assert "secret detail" not in text
    [record] = [r for r in caplog.records if incident in r.getMessage()]
    assert "secret detail" in str(record.exc_info)


def statement_failed(kind: type[DBAPIError]) -> DBAPIError:
    return kind("SELECT 1", {}, Exception("secret detail"))


OUTAGES = [
    StateUnavailable("The state's database does not answer."),
    SQLAlchemyError("Connect call failed"),
    *map(statement_failed, (DBAPIError, InterfaceError, OperationalError)),
]


@pytest.mark.parametrize("error", OUTAGES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    ("step", "next_step"),
    [("open", "Nothing was changed. Try again"), ("_check_write", "check ListTasks before you")],
    ids=["before a write", "while a write is sent"],
)
async def test_a_database_that_is_away_during_a_call_is_no_incident(
    served, modern, fake_tools, monkeypatch, error, step, next_step
):
    async def away(*_args):
        raise error

    monkeypatch.setattr(served.app.endpoint.pipeline, step, away)
    answer = await modern.call("StartThing", vmid=101)
    assert answer["result"]["isError"] is True
    [text] = texts(answer)
    assert text.startswith("The server's database does not answer, so this call was given up.")
    assert next_step in text
    assert fake_tools.done == []
    [entry] = await served.recorded()
    assert (entry.outcome, entry.reason) == ("error", text)


async def test_a_wrong_statement_is_an_incident(served, modern, monkeypatch):
    async def wrong(*_args):
        raise statement_failed(IntegrityError)

    monkeypatch.setattr(served.app.endpoint.pipeline, "open", wrong)
    [text] = texts(await modern.call("ListThings"))
    assert "incident" in text


@pytest.mark.parametrize(
    ("of_key", "of_call", "begins"),
    [
        (None, None, '{"data":{"vmid"'),
        ("Csv", None, "vmid,name"),
        ("Csv", "JsonCompact", '{"data":{"vmid"'),
    ],
    ids=["setting", "key", "call"],
)
async def test_the_format_is_the_calls_the_keys_or_the_settings(
    served, modern, of_key, of_call, begins
):
    key = await served.new_key("formatted", output_format=of_key)
    modern.path = f"/mcp/{key}"
    options = {"format": of_call} if of_call else {}
    [text] = texts(await modern.call("GetThing", vmid=101, **options))
    assert text.startswith(begins)


async def test_a_dry_run_previews_and_changes_nothing(served, modern, fake_tools):
    [text] = texts(await modern.call("DeleteThing", vmid=101, dry_run=True))
    assert json.loads(text)["data"]["would"] == "Delete thing 101."
    assert fake_tools.done == []
    assert [entry.kind for entry in await served.recorded()] == ["call"]


async def test_a_write_is_recorded_before_it_is_sent(served, modern, fake_tools):
    intents = []
    audit = served.app.endpoint.services.audit
    stored = audit.intent

    async def intent(event, call_id):
        intents.append((event.tool, dict(event.arguments), list(fake_tools.done)))
        return await stored(event, call_id)

    audit.intent = intent
    answer = await modern.call("StartThing", vmid=101)
    assert json.loads(texts(answer)[0])["data"] == {"success": True, "vmid": 101}
    assert intents == [("StartThing", {"vmid": 101}, [])]
    assert fake_tools.done == ["Start thing 101."]
    [entry] = await served.recorded()
    assert (entry.tool, entry.outcome, entry.key_name) == ("StartThing", "ok", "test")


async def test_a_write_that_cannot_be_recorded_is_not_done(served, modern, fake_tools):
    async def intent(event, call_id):
        raise Unrecorded

    served.app.endpoint.services.audit.intent = intent
    answer = await modern.call("StartThing", vmid=101)
    assert answer["result"]["isError"] is True
    assert fake_tools.done == []


async def test_a_write_cancelled_while_its_intent_is_stored_has_an_outcome(
    served, modern, fake_tools, monkeypatch
):
    append, storing, stored = audit_log.AuditLog.append, anyio.Event(), anyio.Event()

    async def slow(self, rows):
        rows = list(rows)
        if any(row["kind"] == "intent" for row in rows):
            storing.set()
            await stored.wait()
        return await append(self, rows)

    monkeypatch.setattr(audit_log.AuditLog, "append", slow)
    pipeline = served.app.endpoint.pipeline
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(modern.call, "StartThing", vmid=101))
        await storing.wait()
        for scope in list(pipeline.running):
            scope.cancel()
        stored.set()
    assert fake_tools.done == []
    [entry] = await served.recorded()
    assert (entry.kind, entry.tool, entry.outcome) == ("intent", "StartThing", "cancelled")


async def test_a_write_with_an_unrecorded_end_is_answered(served, modern, fake_tools, caplog):
    async def outcome(call_id, event):
        raise OSError("disk full")

    served.app.endpoint.services.audit.outcome = outcome
    answer = await modern.call("StartThing", vmid=101)
    assert fake_tools.done == ["Start thing 101."]
    assert answer["result"]["isError"] is False
    assert "could not be recorded" in caplog.text


async def test_a_read_that_cannot_be_recorded_is_not_answered(served, modern):
    async def call(event):
        raise Unrecorded

    served.app.endpoint.services.audit.call = call
    answer = await modern.call("ListThings")
    assert answer["result"]["isError"] is True
    assert texts(answer) == [str(Unrecorded())]


async def test_a_read_is_recorded_with_rows_bytes_and_client(served, modern):
    meta = {"io.modelcontextprotocol/clientInfo": {"name": "probe", "version": "7"}}
    call = {"name": "ListThings", "arguments": {"min_cpu": 1}, "_meta": meta}
    await modern.send("tools/call", call)
    [entry] = await served.recorded()
    assert (entry.tool, entry.rows, entry.client, entry.outcome) == (
        "ListThings",
        3,
        "probe 7",
        "ok",
    )
    assert entry.bytes > 50
    assert entry.arguments == {"min_cpu": 1}
    assert entry.address == "127.0.0.1"


async def test_a_call_beyond_its_deadline_is_an_error(serving, fake_tools, monkeypatch):
    async with serving(call_deadline_seconds=5) as served:
        monkeypatch.setattr("pvemcp_server.pipeline.pipeline.monotonic", lambda: 0.0)
        answer = await served.modern.call("Wait")
    assert texts(answer) == ["No answer within the time allowed."]
    assert fake_tools.cancelled.is_set()
