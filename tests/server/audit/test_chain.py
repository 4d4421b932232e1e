"""The audit chain reveals tampering: edited, deleted and moved rows, missing ends, forged marks."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from pvemcp_server.audit import Audit, Event, Outcome
from pvemcp_server.store import Store, audit_chain, audit_log, records

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
async def audit(store: Store) -> Audit:
    """Record five rows: two writes with their outcomes, and a read."""
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


EDITABLE = [
    column.name
    for column in records.audit.columns
    if column.name not in {"seq", "previous", "hash", "at", "rows", "bytes", "duration_ms"}
]


@pytest.mark.parametrize("column", EDITABLE)
async def test_a_changed_text_is_found(audit: Audit, store: Store, column: str):
    await run(store, f"UPDATE audit SET {column} = 'else' WHERE seq = 3")  # noqa: S608 - a column of ours
    assert (3, "was changed") in await facts(audit)


@pytest.mark.parametrize("column", ["at", "rows", "bytes", "duration_ms"])
async def test_a_changed_number_is_found(audit: Audit, store: Store, column: str):
    await run(store, f"UPDATE audit SET {column} = 1 WHERE seq = 3")  # noqa: S608 - a column of ours
    assert await facts(audit) == [(3, "was changed")]


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
    assert await facts(audit) == [(3, "the mark of its end was changed")]


async def test_an_emptied_chain_is_found(audit: Audit, store: Store):
    await run(store, "DELETE FROM audit", "DELETE FROM audit_marks")
    assert await facts(audit) == [(0, "the mark of its end was changed")]


async def test_appending_after_tampering_does_not_hide_it(audit: Audit, store: Store):
    await run(
        store,
        "DELETE FROM audit WHERE seq >= 4",
        "UPDATE audit_marks SET seq = 3, hash = (SELECT hash FROM audit WHERE seq = 3)",
    )
    await audit.intent(Event(tool="BackupVm"))
    [(seq, fact)] = await facts(audit)
    assert seq == 4
    assert "rows before this one may be missing" in fact
    assert (await audit.find())[0].tool == "BackupVm"


async def test_appending_after_a_missing_end_does_not_hide_it(audit: Audit, store: Store):
    await run(store, "DELETE FROM audit WHERE seq >= 4")
    await audit.intent(Event(tool="BackupVm"))
    assert await facts(audit) == [(4, "is missing, and all up to 5")]


async def test_a_rolled_back_database_is_found_by_a_stored_head(audit: Audit, store: Store):
    before = await audit.head()
    async with store.database.reading() as connection:
        [seal] = await connection.scalars(text("SELECT seal FROM audit_marks"))
    await audit.intent(Event(tool="BackupVm"))
    stored = await audit.head()
    await run(
        store,
        "DELETE FROM audit WHERE seq > 5",
        f"UPDATE audit_marks SET seq = {before.seq}, hash = '{before.hash}', seal = '{seal}'",  # noqa: S608 - values of ours
    )
    assert await audit.verify() == []
    [finding] = await audit.verify(stored)
    assert finding.fact == "ends before the noted row 6"
    await audit.intent(Event(tool="DeleteBackup"))
    [finding] = await audit.verify(stored)
    assert finding.fact == "is not the row that was noted"
    assert await audit.verify(await audit.head()) == []


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
    assert await store.audit_log._prune_some(NOW) == 3
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
