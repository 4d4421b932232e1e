"""The audit chain reveals tampering: edited, deleted and moved rows, missing ends, forged marks."""

import json
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest
from sqlalchemy import text

from pvemcp_server.audit import Audit, AuditFilter, AuditGuard, Event, Mark, Outcome
from pvemcp_server.audit import guard as guard_module
from pvemcp_server.audit.json_lines import to_json
from pvemcp_server.config import Config
from pvemcp_server.store import Store, audit_chain, audit_log, open_store, records
from pvemcp_server.store.audit_chain import Finding
from pvemcp_server.store.background import housekeeping

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
async def audit(store: Store) -> Audit:
    return await five_rows(store)


async def five_rows(store: Store) -> Audit:
    """Record two writes with their outcomes, and a read."""
    audit = Audit(store, clock=lambda: NOW)
    for vmid in (100, 101):
        call = await audit.intent(Event(tool="ChangeVmState", arguments={"vmid": vmid}))
        await audit.outcome(call, Event(tool="ChangeVmState", outcome=Outcome.OK))
    await audit.call(Event(tool="ListVms", rows=5, outcome=Outcome.OK))
    await audit.flush()
    return audit


async def run(store: Store, *statements: str) -> None:
    async with store.database.writing() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def facts(audit: Audit) -> list[tuple[int, str]]:
    return [(finding.seq, finding.fact) for finding in await audit.verify()]


async def test_an_unchanged_chain_has_no_findings(audit: Audit):
    assert await audit.verify() == []
    assert (await audit.head()).seq == 5


NUMBERS = ("at", "rows", "bytes", "duration_ms")
EDITABLE = [
    column.name
    for column in records.audit.columns
    if column.name not in {"seq", "previous", "hash", "root", *NUMBERS}
]


@pytest.mark.parametrize("column", EDITABLE)
async def test_a_changed_text_is_found(audit: Audit, store: Store, column: str):
    await run(store, f"UPDATE audit SET {column} = 'else' WHERE seq = 3")  # noqa: S608 - a column of ours
    assert (3, "was changed") in await facts(audit)


@pytest.mark.parametrize("column", [*NUMBERS, "root"])
async def test_a_changed_number_is_found(audit: Audit, store: Store, column: str):
    await run(store, f"UPDATE audit SET {column} = 1 WHERE seq = 3")  # noqa: S608 - a column of ours
    assert await facts(audit) == [(3, "was changed")]


DAMAGE = {
    "bytes": "x'00ff'",
    "no UTF-8": "CAST(x'ff' AS TEXT)",
    "a text": "'é'",
    "a large number": "9223372036854775807",
    "broken JSON": "'{'",
    "nested JSON": f"'{'[' * 100_000}'",
}


@pytest.fixture
async def sqlite_store(tmp_path: Path, new_state: Path) -> AsyncIterator[Store]:
    """Open a store on SQLite: a column of PostgreSQL holds values of its own type only."""
    shutil.copytree(new_state, tmp_path / "sqlite")
    async with open_store(Config(state_dir=tmp_path / "sqlite")) as opened:
        yield opened


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_value_of_another_type_hides_no_change(sqlite_store: Store, damage: str):
    audit = await five_rows(sqlite_store)
    for column in (column.name for column in records.audit.columns if column.name != "seq"):
        await run(
            sqlite_store,
            "CREATE TABLE original AS SELECT * FROM audit WHERE seq = 3",
            f"UPDATE audit SET {column} = {DAMAGE[damage]} WHERE seq = 3",  # noqa: S608 - values of ours
        )
        assert 3 in {seq for seq, _ in await facts(audit)}, column
        if damage != "no UTF-8":
            rows = await sqlite_store.audit_log.rows_after(0, 10)
            assert [json.loads(to_json(row))["seq"] for row in rows] == [1, 2, 3, 4, 5]
            assert [line async for line in audit.export_json()]
        await run(
            sqlite_store,
            "DELETE FROM audit WHERE seq = 3",
            "INSERT INTO audit SELECT * FROM original",
            "DROP TABLE original",
        )
    assert await facts(audit) == []


@pytest.mark.parametrize("damage", [each for each in DAMAGE if each != "no UTF-8"])
async def test_a_mark_of_another_type_is_found_and_stops_no_append(
    sqlite_store: Store, damage: str
):
    audit = await five_rows(sqlite_store)
    for column in ("seq", "hash", "root", "seal"):
        head = await audit.head()
        await run(
            sqlite_store,
            f"UPDATE audit_marks SET {column} = {DAMAGE[damage]} WHERE name = 'head'",  # noqa: S608 - values of ours
        )
        assert "the mark of its end was changed" in dict(await facts(audit)).values()
        await audit.intent(Event(tool="BackupVm"))
        assert (head.seq + 1, audit_log.MARK_CHANGED) in await facts(audit)


async def test_a_row_with_a_forged_hash_is_found(audit: Audit, store: Store):
    await run(store, "UPDATE audit SET tool = 'x', hash = 'forged' WHERE seq = 3")
    assert await facts(audit) == [(3, "was changed"), (4, "does not follow the row before it")]


async def test_a_deleted_row_is_found(audit: Audit, store: Store):
    await run(store, "DELETE FROM audit WHERE seq = 3")
    assert await facts(audit) == [(3, "is missing")]


async def test_swapped_rows_are_found(audit: Audit, store: Store):
    await run(
        store,
        "UPDATE audit SET seq = 99 WHERE seq = 2",
        "UPDATE audit SET seq = 2 WHERE seq = 3",
        "UPDATE audit SET seq = 3 WHERE seq = 99",
    )
    assert {seq for seq, _ in await facts(audit)} >= {2, 3}


async def test_a_deleted_row_is_found_after_renumbering(audit: Audit, store: Store):
    await run(
        store,
        "DELETE FROM audit WHERE seq = 3",
        "UPDATE audit SET seq = 3 WHERE seq = 4",
        "UPDATE audit SET seq = 4 WHERE seq = 5",
    )
    assert (3, "was changed") in await facts(audit)


async def test_a_missing_end_is_found(audit: Audit, store: Store):
    await run(store, "DELETE FROM audit WHERE seq >= 4")
    assert await facts(audit) == [(4, "the end is missing, up to row 5")]


async def test_a_missing_end_is_found_when_its_mark_is_moved(audit: Audit, store: Store):
    await run(
        store,
        "DELETE FROM audit WHERE seq >= 4",
        "UPDATE audit_marks SET seq = 3, hash = (SELECT hash FROM audit WHERE seq = 3)",
    )
    assert await facts(audit) == [
        (3, "the mark of its end was changed"),
        (4, "ends before the noted row 5"),
    ]


async def test_an_emptied_chain_is_found(audit: Audit, store: Store):
    await run(store, "DELETE FROM audit", "DELETE FROM audit_marks")
    assert await facts(audit) == [
        (0, "the mark of its end was changed"),
        (1, "ends before the noted row 5"),
    ]


async def test_appending_after_tampering_does_not_hide_it(audit: Audit, store: Store):
    await run(
        store,
        "DELETE FROM audit WHERE seq >= 4",
        "UPDATE audit_marks SET seq = 3, hash = (SELECT hash FROM audit WHERE seq = 3)",
    )
    await audit.intent(Event(tool="BackupVm"))
    gap, (seq, fact) = await facts(audit)
    assert gap == (4, "is missing, and all up to 5")
    assert seq == 6
    assert "rows before this one may be missing" in fact
    assert (await audit.find())[0].tool == "BackupVm"


async def test_appending_after_a_missing_end_does_not_hide_it(audit: Audit, store: Store):
    await run(store, "DELETE FROM audit WHERE seq >= 4")
    await audit.intent(Event(tool="BackupVm"))
    assert await facts(audit) == [(4, "is missing, and all up to 5")]


async def cut(store: Store, head: Mark, *, removing: bool = True) -> None:
    """Remove all rows after an older head, and put back the head mark of its time."""
    seal = audit_chain.seal_of(store.vault.derive("audit"), audit_chain.HEAD, head)
    await run(
        store,
        f"DELETE FROM audit WHERE seq > {head.seq} AND {int(removing)} = 1",  # noqa: S608 - values of ours
        f"UPDATE audit_marks SET seq = {head.seq}, hash = '{head.hash}', seal = '{seal}' "  # noqa: S608 - values of ours
        "WHERE name = 'head'",
    )


async def test_a_tail_cut_with_an_older_mark_is_found_and_continued_by_a_break(
    audit: Audit, store: Store
):
    before = await audit.head()
    await audit.intent(Event(tool="BackupVm"))
    await audit.intent(Event(tool="DeleteBackup"))
    await cut(store, before)
    assert await facts(audit) == [(6, "ends before the noted row 7")]
    await audit.intent(Event(tool="ListVms"))
    gap, (seq, reason) = await facts(audit)
    assert gap == (6, "is missing, and all up to 7")
    assert (seq, reason) == (8, audit_log.CUT.format(seq=7))
    assert (await audit.find())[0].tool == "ListVms"


async def test_a_tail_cut_while_no_process_runs_is_found_by_the_noted_head(
    audit: Audit, store: Store, config: Config
):
    before = await audit.head()
    await audit.intent(Event(tool="BackupVm"))
    await AuditGuard(store).note_head()
    await cut(store, before)
    async with open_store(config) as later:
        assert await facts(Audit(later)) == [(6, "ends before the noted row 6")]
        guard = AuditGuard(later)
        await guard.verify()
        await guard.verify()
        [notice] = await later.notices.open()
        assert (notice.kind, notice.count) == ("audit-broken", 1)
        assert "row 6: ends before the noted row 6" in notice.message
        await guard.note_head()
        [notice] = await later.notices.open()
        assert audit_log.CUT.format(seq=6) in notice.message
        await Audit(later).intent(Event(tool="ListVms"))
        assert await facts(Audit(later)) == [
            (6, "is missing"),
            (7, audit_log.CUT.format(seq=6)),
        ]


async def test_a_cut_that_another_process_continued_is_found(
    audit: Audit, store: Store, config: Config
):
    before = await audit.head()
    await audit.intent(Event(tool="BackupVm"))
    await cut(store, before)
    async with open_store(config) as other:  # it has not seen row 6
        for _ in range(3):
            await Audit(other).intent(Event(tool="ListVms"))
    assert await facts(audit) == [(6, "is not the row that was noted")]
    await audit.intent(Event(tool="ListVms"))
    assert (9, audit_log.CUT.format(seq=6)) in await facts(audit)


async def test_a_process_accepts_rows_of_others_and_retention(
    audit: Audit, store: Store, other_store: Store
):
    other = Audit(other_store)
    for _ in range(3):
        await other.intent(Event(tool="BackupVm"))
        await audit.intent(Event(tool="ListVms"))
    await store.audit_log.prune(NOW + timedelta(days=1000))
    await other.intent(Event(tool="BackupVm"))
    assert await audit.verify() == []
    assert await other.verify() == []


@pytest.mark.parametrize(
    "content",
    ["", "9:ff", "9:ff 00", "-1: x", "²: x", "99999999999999999999999:a b", "9:ff é\0"],
)
async def test_a_forged_note_of_the_head_is_not_used(
    audit: Audit, store: Store, config: Config, content: str
):
    store.audit_head.path.write_text(content)
    assert store.audit_head.read() is None
    async with open_store(config) as later:
        await Audit(later).intent(Event(tool="ListVms"))
    assert await audit.verify() == []


async def test_the_head_is_noted_each_minute_and_logged_when_the_server_stops(
    audit: Audit, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    monkeypatch.setattr(guard_module, "NOTE_SECONDS", 0.05)
    async with housekeeping(AuditGuard(store).run):
        with anyio.fail_after(10):
            while store.audit_head.read() != await audit.head():  # noqa: ASYNC110 - a file has no event
                await anyio.sleep(0.02)
        monkeypatch.setattr(guard_module, "NOTE_SECONDS", 60)
        await audit.intent(Event(tool="ListVms"))
    head = await audit.head()
    assert store.audit_head.read() == head
    lines = [message for message in caplog.messages if message.startswith("The audit ends at")]
    assert lines == [f"The audit ends at {head}"]
    assert store.audit_head.path.stat().st_mode & 0o777 == 0o600
    assert await store.notices.open() == []


async def test_the_head_is_logged_once_an_hour_while_it_changes(
    audit: Audit, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    now = 0.0
    monkeypatch.setattr(guard_module, "monotonic", lambda: now)
    guard, logged = AuditGuard(store), []
    for now in (60.0, 3599.0, 3600.0, 3660.0, 7199.0, 7200.0, 10_800.0):
        if now < 10_000:
            await audit.intent(Event(tool="ListVms"))
        caplog.clear()
        await guard.note_head()
        logged += [now for message in caplog.messages if "The audit ends at" in message]
    assert logged == [3600.0, 7200.0]


async def test_retention_removes_old_rows_and_the_rest_verifies(store: Store):
    clock = [NOW - timedelta(days=200)]
    audit = Audit(store, clock=lambda: clock[0])
    for days in (200, 190, 181, 179, 1):
        clock[0] = NOW - timedelta(days=days)
        await audit.intent(Event(tool=f"{days} days"))
    clock[0] = NOW
    assert await audit.prune(180) == 3
    assert await audit.verify() == []
    retention, *kept = await audit.find()
    assert (retention.tool, retention.rows) == ("audit.retention", 3)
    assert [entry.tool for entry in kept] == ["1 days", "179 days"]
    assert await audit.prune(180) == 0
    clock[0] = NOW + timedelta(days=400)
    assert await audit.prune(180) == 3
    assert await audit.verify() == []
    await audit.intent(Event(tool="later"))
    assert await audit.verify() == []


async def test_the_chain_verifies_after_each_step_of_retention(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(audit_log, "PRUNE", 3)
    clock = [NOW - timedelta(days=200)]
    audit = Audit(store, clock=lambda: clock[0])
    for _ in range(7):
        await audit.intent(Event(tool="old"))
    clock[0] = NOW
    await audit.intent(Event(tool="new"))
    assert (await store.audit_log._prune_some(NOW)).rows == 3
    assert await audit.verify() == []
    assert await audit.prune(180) == 4
    assert await audit.verify() == []
    assert [entry.tool for entry in await audit.find()] == ["audit.retention", "new"]


async def test_the_hash_of_a_row_is_unchanged_by_a_new_column():
    row = {"seq": 1, "kind": "call", "at": NOW, "tool": "ListVms", "previous": "", "hash": ""}
    before = audit_chain.hash_of(b"key", "", row)
    assert audit_chain.hash_of(b"key", "", {**row, "upid": None}) == before
    assert audit_chain.hash_of(b"key", "", {**row, "upid": ""}) != before


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_marks SET seq = seq + 1 WHERE name = 'base'",
        "DELETE FROM audit_marks WHERE name = 'base'",
        "DELETE FROM audit WHERE seq = (SELECT min(seq) FROM audit)",
    ],
    ids=["moved", "deleted", "cut further"],
)
async def test_gaps_besides_retention_are_found(store: Store, statement: str):
    clock = [NOW - timedelta(days=200)]
    audit = Audit(store, clock=lambda: clock[0])
    for _ in range(3):
        await audit.intent(Event(tool="old"))
    clock[0] = NOW
    await audit.intent(Event(tool="new"))
    await audit.prune(180)
    assert await audit.verify() == []
    await run(store, statement)
    assert await audit.verify() != []


VIOLATIONS = {
    "a changed text": "UPDATE audit SET tool = 'else' WHERE seq = 4",
    "a changed time": "UPDATE audit SET at = 0 WHERE seq = 8",
    "a deleted row": "DELETE FROM audit WHERE seq = 4",
    "a forged hash": "UPDATE audit SET hash = 'forged' WHERE seq = 5",
    "a moved mark": "UPDATE audit_marks SET seq = 5 WHERE name = 'base'",
    "a deleted mark": "DELETE FROM audit_marks WHERE name = 'base'",
}


@pytest.mark.parametrize("violation", VIOLATIONS)
async def test_retention_hides_no_violation(store: Store, violation: str):
    clock = [NOW - timedelta(days=200)]
    audit = Audit(store, clock=lambda: clock[0])
    await audit.intent(Event(tool="oldest"))
    clock[0] += timedelta(days=5)
    for _ in range(6):
        await audit.intent(Event(tool="old"))
    assert await audit.prune(4) == 1
    clock[0] = NOW
    await run(store, VIOLATIONS[violation])
    for _ in range(3):  # it stops there each time, and reports it once
        await audit.prune(180)
        broken, stop = (await facts(audit))[0], (await facts(audit))[-1]
        assert stop[1] == f"retention stopped at row {broken[0]}: {broken[1]}"
        await audit.intent(Event(tool="new"))
    assert [notice.count for notice in await store.notices.open()] == [1]
    assert len(await audit.find(AuditFilter(kind="break"))) == 1
    clock[0] += timedelta(days=181)  # verify has reported it for as long as rows are kept
    await audit.prune(180)
    assert await audit.verify() == []
    assert [entry.tool for entry in await audit.find()] == ["audit.retention"]


BESIDE = {"before it": "1", "negative": "-9", "a text": "'x'", "bytes": "x'00'"}
BESIDE["too large"] = str(audit_log.HIGHEST)
AFTER = {"next": 7, "second next": 8, "large": 2**62 - 2, "highest": audit_log.HIGHEST - 1}
STRAYS = BESIDE | {name: str(seq) for name, seq in AFTER.items()}
FORGED_HEAD = "UPDATE audit_marks SET seq = {}, hash = 'x', seal = 'x' WHERE name = 'head'"


async def add_stray(store: Store, call_id: str, seq: object, kind: str = "call") -> None:
    """Copy the row of a call, as one that ended well."""
    await run(
        store,
        f"CREATE TABLE forged AS SELECT * FROM audit WHERE call_id = '{call_id}' LIMIT 1",  # noqa: S608 - values of ours
        f"UPDATE forged SET seq = {seq}, kind = '{kind}', outcome = 'ok'",  # noqa: S608 - values of ours
        "INSERT INTO audit SELECT * FROM forged",
        "DROP TABLE forged",
    )


async def test_rows_beside_the_chain_are_reported_and_found_by_no_search(sqlite_store: Store):
    store, audit = sqlite_store, await five_rows(sqlite_store)
    await store.audit_log.prune(NOW + timedelta(days=1))
    write = await audit.intent(Event(tool="BackupVm"))
    for seq in STRAYS.values():
        for kind in ("outcome", "call"):
            await add_stray(store, write, seq, kind)
            [(_, fact)] = await facts(audit)
            assert fact.startswith("is not verified: the chain begins after row 5"), (seq, kind)
            assert [(each.seq, each.outcome) for each in await audit.find()] == [(6, None)]
            counts = await audit.counts(AuditFilter(calls=True), NOW, 3600)
            assert counts == [(NOW, "BackupVm", None, 1)]
            assert [row["seq"] for row in await store.audit_log.rows_after(0, 10)] == [6]
            assert (await store.audit_log.waiting_after(0))[0] == 1
            await run(store, "DELETE FROM audit WHERE kind != 'intent'")
    await run(store, "UPDATE audit_marks SET seq = 'x' WHERE name = 'head'")
    await audit.intent(Event(tool="ListVms"))
    assert (7, audit_log.MARK_CHANGED) in await facts(audit)


@pytest.mark.parametrize("head", ["sealed", "forged"])
@pytest.mark.parametrize("seq", AFTER.values(), ids=AFTER)
async def test_rows_after_the_chain_are_named_and_stop_no_append(
    audit: Audit, store: Store, seq: int, head: str
):
    write = await audit.intent(Event(tool="BackupVm"))
    for number in {seq, audit_log.HIGHEST - 1}:
        await add_stray(store, write, number)
    if head == "forged":
        await run(store, FORGED_HEAD.format(seq))
    count = len({seq, audit_log.HIGHEST - 1})
    fact = "is not verified" if count == 1 else f"is one of {count} that are not verified"
    chain = "the chain begins after row 0 and ends with row 6"
    assert (seq, f"{fact}: {chain}") in await facts(audit)
    chained = [6, 5, 3, 1]  # each with the outcome that follows it
    assert [entry.seq for entry in await audit.find()] == chained
    assert [row["seq"] for row in await store.audit_log.rows_after(0, 10)] == [1, 2, 3, 4, 5, 6]
    assert (await store.audit_log.waiting_after(0))[0] == 6
    await store.audit_log.prune(NOW - timedelta(days=1))
    await audit.intent(Event(tool="ListVms"))
    [(number, reason)] = await facts(audit)
    assert number == 7
    assert f"added after the end of the chain, the first as row {seq}" in reason
    assert (audit_log.MARK_CHANGED in reason) == (head == "forged")
    assert [entry.seq for entry in await audit.find(limit=2)] == [8, 7]
    assert store.audit_log.take_break() == Finding(7, reason)  # it becomes a notice


async def test_rows_after_an_older_mark_are_kept_and_continued_by_a_break(
    audit: Audit, store: Store, config: Config
):
    before = await audit.head()
    await audit.intent(Event(tool="BackupVm"))
    await cut(store, before, removing=False)
    async with open_store(config) as later:
        assert await facts(Audit(later)) == [(6, "comes after the mark of the chain's end")]
        await Audit(later).intent(Event(tool="ListVms"))
        assert await facts(Audit(later)) == [(7, audit_log.MARK_CHANGED)]
        assert [entry.seq for entry in await Audit(later).find(limit=3)] == [8, 7, 6]
