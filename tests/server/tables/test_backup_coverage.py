"""Every guest with its jobs and backups, compared with the emulator's own state."""

from datetime import UTC, datetime

import pytest

from pvemcp_server.access.model import Resources
from pvemcp_server.tables import load, tables
from pvemcp_server.tables.registry import LoadRequest

pytestmark = pytest.mark.anyio

TABLE = tables()["backup_coverage"]


def of_state(state):
    """Return the backups of each guest in the emulator's state, the newest first."""
    volumes = {}
    for storage in state.storages.values():
        for node in state.nodes if not storage.shared else [next(iter(state.nodes))]:
            for volume in storage.volumes(node).values():
                if volume.content == "backup":
                    volumes[volume.volid] = volume
    return sorted(volumes.values(), key=lambda volume: volume.ctime, reverse=True)


async def test_every_guest_has_its_jobs_and_its_newest_backups(open_cluster, pve):
    rows = {row.vmid: row for row in await load(TABLE, open_cluster())}
    state = pve["prod"].state
    assert set(rows) == set(state.guests)
    for vmid, row in rows.items():
        jobs = [j for j in state.backup_jobs.values() if j.covers(vmid, state.pool_of(vmid))]
        assert row.jobs == sorted(job.id for job in jobs if job.enabled)
        assert row.disabled_jobs == sorted(job.id for job in jobs if not job.enabled)
        assert row.covered == any(job.enabled for job in jobs)
        assert row.not_backed_up == (not jobs)
    for vmid in state.guests:
        backups = [volume for volume in of_state(state) if volume.vmid == vmid]
        row = rows[vmid]
        verified = [volume for volume in backups if volume.verified == "ok"]
        assert row.backups == len(backups)
        assert row.last_backup_volid == (backups[0].volid if backups else None)
        assert row.last_backup == (
            datetime.fromtimestamp(int(backups[0].ctime), UTC) if backups else None
        )
        assert row.last_verified_backup == (
            datetime.fromtimestamp(int(verified[0].ctime), UTC) if verified else None
        )
        if row.last_backup:
            age = (datetime.now(UTC) - row.last_backup).total_seconds()
            assert row.last_backup_age == pytest.approx(age, abs=120)


async def test_a_guest_that_no_job_covers_is_uncovered_whatever_backups_it_has(open_cluster):
    rows = await load(TABLE, open_cluster())
    uncovered = [row for row in rows if not row.covered]
    assert [(row.vmid, row.is_template, row.backups) for row in uncovered] == [
        (403, False, 5),
        (9000, True, 0),
        (9001, True, 0),
    ]
    assert all((row.last_backup is None) == (row.backups == 0) for row in uncovered)


async def test_a_guest_of_a_disabled_job_is_not_called_uncovered_by_proxmox(open_cluster, pve):
    nightly = pve["prod"].state.backup_jobs["backup-nightly"]
    nightly.enabled = False
    try:
        rows = {row.vmid: row for row in await load(TABLE, open_cluster())}
    finally:
        nightly.enabled = True
    row = rows[104]
    assert (row.covered, row.disabled_jobs, row.not_backed_up) == (False, ["backup-nightly"], False)


async def test_a_condition_on_the_node_keeps_backups_listed_at_other_nodes(open_cluster):
    every = {row.vmid: row for row in await load(TABLE, open_cluster())}
    request = LoadRequest(nodes=frozenset({"pve05"}))
    rows = await load(TABLE, open_cluster(), request)
    assert {row.node for row in rows} == {"pve05"}
    assert all(row.last_backup == every[row.vmid].last_backup for row in rows)
    assert any(row.last_backup for row in rows)


async def test_a_role_for_a_guest_sees_its_coverage_only(open_cluster):
    cluster = open_cluster("prod", Resources(vmids=frozenset({101})))
    [row] = await load(TABLE, cluster)
    assert (row.vmid, row.jobs) == (101, ["backup-archive", "backup-nightly"])


async def test_jobs_that_cannot_be_listed_are_unknown_with_the_privilege(open_cluster, pve):
    cluster = open_cluster()
    faults = [
        pve["prod"].fault("forbidden", path=path, message="/, Sys.Audit")
        for path in ("/cluster/backup$", "/cluster/backup-info/")
    ]
    try:
        rows = await load(TABLE, cluster)
    finally:
        for fault in faults:
            pve["prod"].faults.remove(fault)
    assert {(row.jobs, row.covered, row.not_backed_up) for row in rows} == {(None, None, None)}
    assert any(row.last_backup for row in rows)
    notes = [note for note in cluster.notes if "are missing" in note]
    assert len(notes) == 2
    assert all("lacks Sys.Audit on /" in note for note in notes)


async def test_a_backup_on_a_storage_that_does_not_answer_is_noted(open_cluster, pve):
    cluster = open_cluster()
    fault = pve["prod"].fault("error", path="/nodes/[^/]*/storage/pbs-main", message="on fire")
    try:
        rows = {row.vmid: row for row in await load(TABLE, cluster)}
    finally:
        pve["prod"].faults.remove(fault)
    assert (rows[104].backups, rows[101].backups) == (0, 4)
    assert any("content of storage pbs-main" in note for note in cluster.notes)


async def test_only_what_columns_need_is_asked(open_cluster, pve):
    fault = pve["prod"].fault("error", path="/nodes/", message="not to be asked")
    cluster = open_cluster()
    try:
        request = LoadRequest(columns=frozenset({"vmid", "not_backed_up"}))
        rows = await load(TABLE, cluster, request)
    finally:
        pve["prod"].faults.remove(fault)
    assert [row.vmid for row in rows if row.not_backed_up] == [403, 9000, 9001]
    assert list(cluster.notes) == []
