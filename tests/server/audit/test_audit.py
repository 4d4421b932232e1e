"""The audit: recording, searching and exporting events."""

import asyncio
import csv
import io
import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest
from pydantic import TypeAdapter

from pvemcp_server.audit import Audit, AuditFilter, Event, Kind, Outcome, open_audit
from pvemcp_server.audit import audit as audit_module
from pvemcp_server.audit.audit import (
    ADDRESS_PER_MINUTE,
    ANONYMOUS_PER_MINUTE,
    MOST_BUFFERED,
    NAMED_PER_MINUTE,
    ClockGuard,
)
from pvemcp_server.audit.reader import Entry
from pvemcp_server.errors import Unrecorded
from pvemcp_server.store import Store, audit_search

pytestmark = pytest.mark.anyio


@pytest.fixture
async def audit(store: Store) -> AsyncIterator[Audit]:
    async with open_audit(store, lambda: 180) as opened:
        yield opened


@pytest.fixture
def broken_database(store: Store, monkeypatch: pytest.MonkeyPatch):
    """Return a switch: with True, writes to the database fail."""
    writing = store.database.writing

    def unreachable():
        raise ConnectionError("connection refused")

    def switch(broken: bool) -> None:
        monkeypatch.setattr(store.database, "writing", unreachable if broken else writing)

    return switch


def write(**values) -> Event:
    return Event(**{"tool": "ChangeVmState", "key_id": "abcDEF12", "cluster": "lab", **values})


def sign_in(**values) -> Event:
    return Event(**{"tool": "sign in", "outcome": Outcome.REFUSED, **values})


async def test_a_write_is_one_entry_with_its_outcome(audit: Audit):
    call = await audit.intent(write(arguments={"vmid": 100}, client="Claude", address="::1"))
    [pending] = await audit.find()
    assert (pending.kind, pending.outcome, pending.upid) == (Kind.INTENT, None, None)
    await audit.outcome(call, write(outcome=Outcome.OK, upid="UPID:pve1:1:", duration_ms=120))
    [entry] = await audit.find()
    assert (entry.call_id, entry.tool, entry.client) == (call, "ChangeVmState", "Claude")
    assert (entry.outcome, entry.upid, entry.duration_ms) == ("ok", "UPID:pve1:1:", 120)
    assert entry.arguments == {"vmid": 100}


async def test_an_intent_is_stored_before_the_call_returns(audit: Audit, other_store: Store):
    await audit.intent(write())
    [seen] = await Audit(other_store).find()
    assert seen.tool == "ChangeVmState"


async def test_a_write_that_cannot_be_recorded_is_refused(audit: Audit, broken_database):
    broken_database(True)
    with pytest.raises(Unrecorded, match="cannot be recorded"):
        await audit.intent(write())
    broken_database(False)
    assert await audit.find() == []
    assert await audit.intent(write())


async def test_an_outcome_is_buffered_while_the_database_fails(audit: Audit, broken_database):
    call = await audit.intent(write())
    broken_database(True)
    await audit.outcome(call, write(outcome=Outcome.OK))
    broken_database(False)
    await audit.flush()
    assert [entry.outcome for entry in await audit.find()] == ["ok"]


async def test_a_flush_waits_for_a_concurrent_flush(store: Store):
    audit = Audit(store)  # without housekeeping, which flushes as well
    await audit.call(Event(tool="ListVms"))
    first = asyncio.create_task(audit.flush())
    await anyio.lowlevel.checkpoint()
    await audit.flush()
    assert [entry.tool for entry in await audit.find()] == ["ListVms"]
    await first


async def test_reads_and_refusals_are_stored_in_batches(audit: Audit):
    await audit.call(Event(tool="ListVms", outcome=Outcome.OK, rows=12, bytes=480))
    await audit.refused(write(outcome=Outcome.REFUSED, reason="tool not granted"))
    await audit.flush()
    refused, read = await audit.find()
    assert (refused.kind, refused.outcome, refused.reason) == (
        Kind.REFUSED,
        "refused",
        "tool not granted",
    )
    assert (read.kind, read.rows, read.bytes) == (Kind.CALL, 12, 480)


async def test_closing_stores_buffered_events(store: Store):
    async with open_audit(store, lambda: 180) as audit:
        await audit.call(Event(tool="ListVms"))
    assert [entry.tool for entry in await audit.find()] == ["ListVms"]


async def test_housekeeping_stores_batches(audit: Audit):
    await audit.call(Event(tool="ListVms"))
    with anyio.fail_after(5):
        while not await audit.find():  # noqa: ASYNC110 - another task stores it
            await anyio.sleep(0.05)


async def test_housekeeping_removes_old_entries(store: Store, monkeypatch: pytest.MonkeyPatch):
    old = Audit(store, clock=lambda: datetime(2020, 1, 1, tzinfo=UTC))
    await old.intent(write())
    await Audit(store).intent(write(tool="BackupVm"))
    monkeypatch.setattr(audit_module, "PRUNE_SECONDS", 0)
    async with open_audit(store, lambda: 180) as audit:
        pass
    tools = [entry.tool for entry in await audit.find()]
    assert sorted(tools) == ["BackupVm", "audit.retention"]


@pytest.mark.parametrize("text", ["\0", "\ud800"])
@pytest.mark.parametrize("condition", ["key_id", "tool", "cluster", "address", "text"])
async def test_a_text_that_no_database_holds_matches_no_entry(
    audit: Audit, condition: str, text: str
):
    await audit.call(Event(tool="ListVms"))
    await audit.flush()
    assert await audit.find(AuditFilter(**{condition: text})) == []


async def test_strangers_with_many_addresses_fill_no_disk_and_hide_no_known_name(audit: Audit):
    for number in range(ANONYMOUS_PER_MINUTE + 50):
        await audit.refused_sign_in(sign_in(address=f"192.0.2.{number}", reason="no key"))
    named = [{"key_id": "abcDEF12"}, {"key_name": "ada"}]
    for names in named:
        await audit.refused_sign_in(sign_in(reason="wrong", **names))
    await audit.end_minute()
    await audit.refused_sign_in(sign_in(reason="in the next minute"))
    await audit.end_minute()
    await audit.flush()
    newest = await audit.find(limit=1000)
    assert len(newest) == ANONYMOUS_PER_MINUTE + len(named) + 2
    following, further, *named_entries = newest[:4]
    assert (following.reason, further.rows) == ("in the next minute", 50)
    assert further.reason == "50 further attempts: no known key or administrator"
    assert {(each.key_id, each.key_name) for each in named_entries} == {
        ("abcDEF12", None),
        (None, "ada"),
    }


async def test_one_address_hides_no_attempts_of_others(audit: Audit):
    for number in range(ANONYMOUS_PER_MINUTE + 50):
        for address in ("192.0.2.1", f"2001:db8::{number:x}"):
            await audit.refused_sign_in(sign_in(address=address, reason="no key"))
    await audit.refused_sign_in(sign_in(address="192.0.2.2", reason="no key"))
    await audit.end_minute()
    await audit.flush()
    further, other, *flood = await audit.find(limit=1000)
    assert (other.address, len(flood)) == ("192.0.2.2", 2 * ADDRESS_PER_MINUTE)
    assert further.rows == 2 * (ANONYMOUS_PER_MINUTE + 50 - ADDRESS_PER_MINUTE)


@pytest.mark.parametrize("names", [{"key_id": "abcDEF12"}, {"key_name": "token:robot"}])
async def test_strangers_who_know_a_name_fill_no_disk_and_hide_no_use_of_its_secret(
    audit: Audit, names: dict[str, str]
):
    for number in range(NAMED_PER_MINUTE + 50):
        event = sign_in(address=f"192.0.2.{number}", reason="wrong secret", **names)
        await audit.refused_sign_in(event)
    await audit.refused_sign_in(sign_in(reason="disabled", **names))
    await audit.end_minute()
    await audit.end_minute()
    await audit.flush()
    further, right, *wrong = await audit.find(limit=1000)
    assert (right.reason, len(wrong)) == ("disabled", NAMED_PER_MINUTE)
    assert (further.reason, further.rows) == ("50 further attempts: wrong secret", 50)
    assert {"key_id": further.key_id, "key_name": further.key_name}.items() >= names.items()


async def test_a_flood_of_limited_requests_is_one_row_a_minute_and_no_call(audit: Audit):
    for _ in range(1_000):
        audit.count_limited("abcDEF12", "agent", "too many calls")
        audit.count_limited("abcDEF12", "agent", "too large")
    audit.count_limited("other123", "other", "too many calls")
    await audit.end_minute()
    await audit.end_minute()
    await audit.flush()
    found = await audit.find(limit=100)
    assert {(each.key_name, each.reason, each.rows) for each in found} == {
        ("agent", "1000 requests: too many calls", 1_000),
        ("agent", "1000 requests: too large", 1_000),
        ("other", "1 request: too many calls", 1),
    }
    assert len(found) == 3
    assert await audit.find(AuditFilter(calls=True)) == []


async def test_calls_are_buffered_up_to_a_limit_and_then_refused(audit: Audit, broken_database):
    broken_database(True)
    for _ in range(MOST_BUFFERED):
        await audit.call(Event(tool="ListVms"))
    for _ in range(3):
        with pytest.raises(Unrecorded):
            await audit.call(Event(tool="ListVms"))
        await audit.refused(Event(tool="sign in"))
    broken_database(False)
    await audit.flush()
    assert len(await audit.find(limit=MOST_BUFFERED * 2)) == MOST_BUFFERED


async def test_concurrent_writes_share_transactions_and_none_is_lost(
    audit: Audit, other_store: Store
):
    other, ids = Audit(other_store), []

    async def record(writer: Audit, number: int) -> None:
        call = await writer.intent(write(arguments={"number": number}))
        await writer.outcome(call, write(outcome=Outcome.OK))
        ids.append(call)

    async with anyio.create_task_group() as tasks:
        for number in range(60):
            tasks.start_soon(record, (audit, other)[number % 2], number)
    entries = await audit.find(limit=100)
    assert {entry.call_id for entry in entries} == set(ids)
    assert {entry.outcome for entry in entries} == {"ok"}
    assert await audit.verify() == []
    assert (await audit.head()).seq == 120


async def test_a_cancelled_call_blocks_no_other_call(audit: Audit):
    async def cancelled() -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await audit.intent(write())

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(cancelled)
                tasks.start_soon(audit.intent, write())
    assert len(await audit.find()) >= 5
    assert await audit.verify() == []


async def test_a_call_cancelled_during_its_transaction_blocks_no_other_call(
    audit: Audit, store: Store, monkeypatch: pytest.MonkeyPatch
):
    appending, go_on = asyncio.Event(), asyncio.Event()
    append = store.audit_log.append

    async def slow_append(rows):
        appending.set()
        await go_on.wait()
        return await append(rows)

    monkeypatch.setattr(store.audit_log, "append", slow_append)
    with anyio.fail_after(10):
        first = asyncio.create_task(audit.intent(write(tool="first")))
        await appending.wait()
        second = asyncio.create_task(audit.intent(write(tool="second")))
        await anyio.lowlevel.checkpoint()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        go_on.set()
        stored = await second
    entries = await audit.find()
    assert [entry.tool for entry in entries] == ["second", "first"]
    assert entries[0].call_id == stored


async def test_a_cancellation_loses_no_entry_when_its_transaction_fails(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    audit = Audit(store)  # without housekeeping, which flushes as well
    call = await audit.intent(write())
    appending, go_on = asyncio.Queue[bool](), asyncio.Event()
    append = store.audit_log.append

    async def failing_append(_rows):
        appending.put_nowait(True)
        await go_on.wait()
        raise ConnectionError("connection refused")

    async def cancelled(recording) -> None:
        task = asyncio.create_task(recording)
        await appending.get()
        task.cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.clear()

    monkeypatch.setattr("pvemcp_server.audit.audit.MOST_BUFFERED", 1)
    await audit.refused(Event(tool="buffered"))
    monkeypatch.setattr(store.audit_log, "append", failing_append)
    with anyio.fail_after(10):
        await cancelled(audit.refused(Event(tool="refused", outcome=Outcome.REFUSED)))
        await cancelled(audit.outcome(call, write(outcome=Outcome.OK)))
    monkeypatch.setattr(store.audit_log, "append", append)
    await audit.flush()
    entries = {entry.tool: entry.outcome for entry in await audit.find()}
    assert entries == {"ChangeVmState": "ok", "buffered": None, "refused": "refused"}


async def test_a_failing_database_is_logged_once(
    audit: Audit, broken_database, caplog: pytest.LogCaptureFixture
):
    broken_database(True)
    for _ in range(3):
        with pytest.raises(Unrecorded):
            await audit.intent(write())
    assert caplog.text.count("cannot be written") == 1
    broken_database(False)


async def test_events_lost_at_shutdown_are_counted_in_the_log(
    store: Store, broken_database, caplog: pytest.LogCaptureFixture
):
    async with open_audit(store, lambda: 180) as audit:
        await audit.call(Event(tool="ListVms"))
        broken_database(True)
    assert "1 entries of the audit could not be stored" in caplog.text


@pytest.mark.parametrize(
    ("which", "tools"),
    [
        ({}, ["c", "b", "a"]),
        ({"tool": "b"}, ["b"]),
        ({"key_id": "key00001"}, ["b", "a"]),
        ({"cluster": "prod"}, ["c"]),
        ({"outcome": "error"}, ["b"]),
        ({"kind": "intent"}, ["b"]),
        ({"address": "::1"}, ["a"]),
        ({"text": "QUOTA"}, ["b"]),
        ({"text": "%"}, []),
        ({"since": datetime(2100, 1, 1, tzinfo=UTC)}, []),
        ({"until": datetime(2100, 1, 1, tzinfo=UTC), "tool": "a"}, ["a"]),
    ],
    ids=lambda value: next(iter(value), "all") if isinstance(value, dict) else "",
)
async def test_entries_can_be_filtered(audit: Audit, which, tools):
    await audit.call(Event(tool="a", key_id="key00001", address="::1", outcome=Outcome.OK))
    await audit.flush()
    call = await audit.intent(Event(tool="b", key_id="key00001", cluster="lab"))
    await audit.outcome(call, Event(tool="b", outcome=Outcome.ERROR, reason="quota exceeded"))
    await audit.admin(Event(tool="c", cluster="prod", outcome=Outcome.OK))
    assert [entry.tool for entry in await audit.find(AuditFilter(**which))] == tools


async def test_a_write_whose_process_was_killed_is_found_by_its_unknown_outcome(audit: Audit):
    await audit.call(Event(tool="ListVms"))
    call = await audit.intent(Event(tool="BackupVm"))
    unknown = AuditFilter(outcome="unknown")
    assert [entry.tool for entry in await audit.find(unknown)] == ["BackupVm"]
    await audit.outcome(call, Event(tool="BackupVm", outcome=Outcome.OK))
    assert await audit.find(unknown) == []


async def test_a_call_on_several_clusters_is_found_by_each(audit: Audit):
    await audit.call(Event(tool="ListVms", cluster="home-lab, prod, prod-2"))
    await audit.flush()
    for name in ("home-lab", "prod", "prod-2"):
        assert len(await audit.find(AuditFilter(cluster=name))) == 1
    for name in ("lab", "home", "prod-", "prod_2", "home-lab, prod-2", "%"):
        assert await audit.find(AuditFilter(cluster=name)) == []


async def test_pages_have_no_gaps_and_no_repetition(audit: Audit):
    for number in range(7):
        await audit.call(Event(tool=str(number)))
    await audit.flush()
    seen, page = [], await audit.find(limit=3)
    while page:
        seen += [entry.tool for entry in page]
        page = await audit.find(AuditFilter(before=page[-1].seq), limit=3)
    assert seen == ["6", "5", "4", "3", "2", "1", "0"]


async def test_a_page_is_bounded_in_bytes_and_the_next_one_goes_on(
    audit: Audit, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(audit_search, "PAGE_SIZE", 25_000)
    monkeypatch.setattr(audit_search, "FETCHED", 3)
    for number in range(9):
        await audit.call(Event(tool=str(number), arguments={"text": "x" * 10_000}))
    await audit.flush()
    seen, page = [], await audit.find(limit=1000)
    while page:
        assert len(page) in (1, 2)
        seen += [entry.tool for entry in page]
        page = await audit.find(AuditFilter(before=page[-1].seq), limit=1000)
    assert seen == [str(number) for number in reversed(range(9))]
    pieces = [piece async for piece in audit.export_json()]
    assert max(map(len, pieces)) < 50_000
    assert [json.loads(line)["tool"] for line in "".join(pieces).splitlines()] == seen
    assert len("".join([piece async for piece in audit.export_csv()]).splitlines()) == 10
    monkeypatch.setattr(audit_search, "PAGE_SIZE", 1)
    assert len(await audit.find(limit=1000)) == 1


async def test_exports_contain_every_entry_and_no_formula(audit: Audit):
    await audit.call(Event(tool="ListVms", reason="=HYPERLINK(1)", arguments={"a": 'x,"y"\n'}))
    await audit.call(Event(tool="ListNodes", rows=3))
    await audit.flush()
    lines = await _exported(audit)
    assert [line["tool"] for line in lines] == ["ListNodes", "ListVms"]
    assert lines[1]["reason"] == "=HYPERLINK(1)"
    text = "".join([line async for line in audit.export_csv()])
    first, second = csv.DictReader(io.StringIO(text, newline=""))
    assert (first["tool"], first["rows"], second["reason"]) == ("ListNodes", "3", "'=HYPERLINK(1)")
    assert json.loads(second["arguments"]) == {"a": 'x,"y"\n'}


@pytest.mark.parametrize("client", ["=1+1", "\n=1+1", " \t@SUM(1)", "\uff1d1+1", "\u3000-1"])
async def test_formulas_with_blanks_or_full_width_signs_are_quoted(audit: Audit, client: str):
    await audit.call(Event(tool="ListVms", client=client))
    await audit.flush()
    text = "".join([line async for line in audit.export_csv()])
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert row["client"] == "'" + re.sub(r"\s+", " ", client)


async def test_a_clock_that_jumps_makes_retention_delete_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    now, stop = datetime(2026, 1, 1, tzinfo=UTC), anyio.Event()
    audit = Audit(store, clock=lambda: now)
    await audit.admin(Event(tool="admin.settings.change"))
    monkeypatch.setattr(audit_module, "PRUNE_SECONDS", 0)

    def days() -> int:
        raise AssertionError("retention ran with a clock that has jumped")

    async def jump(*_) -> AsyncIterator[None]:
        nonlocal now
        now += timedelta(days=3650)
        yield

    monkeypatch.setattr(audit_module, "ticks", jump)
    await audit.run_housekeeping(stop, days, tuple)
    assert len(await audit.find()) == 1


def test_retention_continues_a_day_after_the_last_jump_of_the_clock():
    now, passed = datetime(2026, 1, 1, tzinfo=UTC), 0.0
    guard = ClockGuard(lambda: now, lambda: passed)
    steady = []
    for hours, jump in [(1, 0), (1, 3650), (1, -3650), (23, 0), (1, 0), (1, 0.5)]:
        passed += hours * 3600
        now += timedelta(hours=hours, days=jump)
        steady.append(guard.is_steady())
    assert steady == [True, False, False, False, True, True]


@pytest.mark.parametrize(
    ("days", "is_steady"), [(-3, True), (-3650, False), (3650, False), (None, False)]
)
def test_retention_waits_a_day_after_a_start_long_after_the_newest_entry(days, is_steady):
    now, passed = datetime(2026, 1, 1, tzinfo=UTC), 0.0
    guard = ClockGuard(lambda: now, lambda: passed)
    guard.begin(days and now + timedelta(days=days))
    assert guard.is_steady() == is_steady
    passed += 24 * 3600
    now += timedelta(days=1)
    assert guard.is_steady()


async def test_calls_are_counted_by_span_and_outcome(store: Store):
    moment = datetime(2026, 1, 1, 12, tzinfo=UTC)
    audit = Audit(store, clock=lambda: moment)
    for minutes, outcome in [(0, Outcome.OK), (0.5, Outcome.OK), (0.9, Outcome.ERROR), (1, None)]:
        moment = datetime(2026, 1, 1, 12, tzinfo=UTC) + timedelta(minutes=minutes)
        await audit.call(Event(tool="x", outcome=outcome))
    await audit.admin(Event(tool="admin.settings.change", outcome=Outcome.OK))
    await audit.flush()
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    until = noon + timedelta(minutes=5)
    counts = await audit.counts(AuditFilter(calls=True, until=until), noon, 60)
    assert sorted(counts, key=str) == [
        (noon, "x", "error", 1),
        (noon, "x", "ok", 2),
        (noon + timedelta(minutes=1), "x", None, 1),
    ]
    everything = await audit.counts(AuditFilter(tool="admin.settings.change"), noon, 60)
    assert [count.entries for count in everything] == [1]


async def test_no_refused_sign_in_counts_as_a_call(store: Store):
    audit = Audit(store)
    for tool in ("sign in", "admin.sign_in", "oauth.sign_in", "admin.keys.create", "ListVms"):
        await audit.refused(Event(tool=tool, outcome=Outcome.REFUSED))
    await audit.flush()
    since = datetime.now(UTC) - timedelta(hours=1)
    counts = await audit.counts(AuditFilter(calls=True), since, 86400)
    assert [(count.tool, count.entries) for count in counts] == [("ListVms", 1)]


@pytest.mark.parametrize(
    "text", ["\0", "\ud800", "x" * 5000, "🙂", "'; DROP TABLE audit; --"],
    ids=["nul", "surrogate", "long", "emoji", "quote"],
)  # fmt: skip
async def test_any_text_can_be_recorded_and_verified(audit: Audit, text: str):
    await audit.intent(Event(tool=text, client=text, reason=text, arguments={text: text}))
    [entry] = await audit.find()
    assert entry.arguments
    assert len(entry.tool) <= 1000
    assert await audit.verify() == []


@pytest.mark.parametrize(
    "arguments",
    [{"a": "\ud800"}, {"\udfff": 1}, {"a": [{"b": "x\udc00y\0"}]}, {"a": "\ud83d" + "\ude00"}],
    ids=["value", "name", "nested", "in two halves"],
)
async def test_text_of_a_client_hides_no_entry_from_an_export(audit: Audit, arguments):
    # JSON may escape a lone surrogate, which no encoder writes again: the answer broke off
    await audit.call(write(tool="before"))
    await audit.call(write(tool="x", arguments=arguments))
    await audit.flush()
    for export in (audit.export_json, audit.export_csv):
        lines = [line.encode() async for line in export()]
        assert b"before" in lines[-1]
    assert b"before" in TypeAdapter(list[Entry]).dump_json(await audit.find())
    assert await audit.verify() == []


@pytest.mark.parametrize("letter", ["\x1b", "\x9b", "\r\n", "\u2028", "\u202e", "\x7f", "\x00"])
async def test_an_export_holds_nothing_that_a_terminal_obeys(audit: Audit, letter: str):
    text = f"a{letter}[2Jb"
    texts = dict.fromkeys(("client", "reason", "cluster", "key_name", "address", "upid"), text)
    await audit.call(write(tool=text, arguments={text: text}, **{**texts, "key_id": letter}))
    await audit.flush()
    [entry] = await _exported(audit)
    assert entry["arguments"]
    for export in (audit.export_json, audit.export_csv):
        for line in [line async for line in export()]:
            assert line.rstrip("\r\n").isprintable()


async def test_long_arguments_are_cut(audit: Audit):
    await audit.intent(write(arguments={"description": "x" * 100_000}))
    [entry] = await audit.find()
    assert len(entry.arguments["cut"]) == 16_000


async def _exported(audit: Audit) -> list[dict[str, Any]]:
    text = "".join([piece async for piece in audit.export_json()])
    return [json.loads(line) for line in text.splitlines()]
