"""Jobs run when their time has come."""

from datetime import UTC, datetime

import pytest

from proxmox_client.emulator import Emulator, ManualClock, Scenario
from proxmox_client.emulator.state.jobs import BackupJob, Replication
from proxmox_client.emulator.state.storage import Volume
from proxmox_client.emulator.tasks import retention

pytestmark = pytest.mark.anyio
MONDAY = datetime(2026, 11, 23, 0, 30, tzinfo=UTC).timestamp()


@pytest.fixture
async def night():
    """A cluster half an hour after midnight, with a clock that is moved by hand."""
    clock = ManualClock(MONDAY)
    async with Emulator(Scenario.cluster("lab", nodes=2, guests=4), clock=clock) as pve:
        yield pve["lab"], clock


def backups(cluster):
    volumes = cluster.state.storages["shared"].everything()
    return sorted(volume.vmid for volume in volumes if volume.content == "backup")


async def test_a_backup_job_saves_every_guest_it_covers_on_its_node(night):
    cluster, clock = night
    options = {"all": 1, "exclude": "101", "storage": "shared", "mode": "snapshot"}
    cluster.state.backup_jobs["nightly"] = BackupJob("nightly", "01:00", options)
    await clock.advance(29 * 60)
    assert backups(cluster) == []
    await clock.advance(3600)
    assert backups(cluster) == [100, 102, 103]
    tasks = [task for task in cluster.state.tasks.values() if task.type == "vzdump"]
    assert {(task.node, task.outcome) for task in tasks} == {("pve1", "OK"), ("pve2", "OK")}
    asked = "vzdump --all 1 --exclude 101 --storage shared --mode snapshot"
    assert {task.log[0] for task in tasks} == {f"INFO: starting new backup job: {asked}"}


async def test_a_disabled_job_rests(night):
    cluster, clock = night
    options = {"all": 1, "storage": "shared"}
    cluster.state.backup_jobs["off"] = BackupJob("off", "01:00", options, enabled=False)
    await clock.advance(7200)
    assert backups(cluster) == []


async def test_a_retention_holds_the_number_of_backups(night):
    cluster, clock = night
    options = {"vmid": "100", "storage": "shared", "prune-backups": {"keep-last": "2"}}
    cluster.state.backup_jobs["often"] = BackupJob("often", "*:00", options)
    await clock.advance(5 * 3600)
    assert backups(cluster) == [100, 100]


async def test_replication_runs_and_notices_that_its_target_is_gone(night):
    cluster, clock = night
    job = cluster.state.replications["100-0"] = Replication(100, 0, "pve1", "pve2", "*/15")
    await clock.advance(20 * 60)
    assert (job.last_sync, job.fail_count) == (int(MONDAY) + 15 * 60, 0)
    await cluster.node_down("pve2")
    await clock.advance(15 * 60)
    assert (job.last_sync, job.fail_count) == (int(MONDAY) + 15 * 60, 1)
    assert "failed" in job.error


def volume(day, hour=0, *, protected=False):
    made = int(datetime(2026, 11, day, hour, tzinfo=UTC).timestamp())
    return Volume(f"s:{day}-{hour}", "backup", "vma", 1, made, 100, protected=protected)


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        ("keep-all=1", ["1-0", "2-0", "2-9", "9-0", "10-0"]),
        ("keep-last=2", ["9-0", "10-0"]),
        ("keep-daily=3", ["2-9", "9-0", "10-0"]),
        ("keep-weekly=2", ["2-9", "10-0"]),
        ("keep-last=1,keep-monthly=1", ["10-0"]),
        ("keep-last=1,keep-daily=1", ["9-0", "10-0"]),
    ],
)
def test_retentions_keep_the_newest_of_each_period(keep, kept):
    group = [volume(1), volume(2), volume(2, 9), volume(9), volume(10)]
    marks = retention.mark(group, retention.parse(keep))
    assert [each.name for each, mark in marks if mark == "keep"] == kept


def test_a_protected_backup_does_not_count():
    group = [volume(1), volume(2, protected=True), volume(3)]
    marks = [mark for _, mark in retention.mark(group, {"keep-last": 1})]
    assert marks == ["remove", "protected", "keep"]
