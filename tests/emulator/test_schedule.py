"""The scheduler and the retention of backups."""

from datetime import UTC, datetime

import pytest

from proxmox_client.emulator import Emulator, ManualClock, Scenario
from proxmox_client.emulator.state.jobs import BackupJob, Replication
from proxmox_client.emulator.state.storage import Volume
from proxmox_client.emulator.tasks import retention

pytestmark = pytest.mark.anyio
MONDAY = datetime(2026, 11, 23, 0, 30, tzinfo=UTC).timestamp()


@pytest.fixture
async def midnight():
    """Run a cluster half an hour after midnight; return it with its manual clock."""
    clock = ManualClock(MONDAY)
    async with Emulator(Scenario.cluster("lab", nodes=2, guests=4), clock=clock) as pve:
        yield pve["lab"], clock


def backed_up(cluster):
    volumes = cluster.state.storages["shared"].everything()
    return sorted(volume.vmid for volume in volumes if volume.content == "backup")


async def test_a_backup_job_backs_up_its_guests_on_their_nodes(midnight):
    cluster, clock = midnight
    options = {"all": 1, "exclude": "101", "storage": "shared", "mode": "snapshot"}
    cluster.state.backup_jobs["nightly"] = BackupJob("nightly", "01:00", options)
    await clock.advance(29 * 60)
    assert backed_up(cluster) == []
    await clock.advance(3600)
    assert backed_up(cluster) == [100, 102, 103]
    tasks = [task for task in cluster.state.tasks.values() if task.type == "vzdump"]
    assert {(task.node, task.outcome) for task in tasks} == {("pve1", "OK"), ("pve2", "OK")}
    command = "vzdump --all 1 --exclude 101 --storage shared --mode snapshot --quiet 1"
    assert {task.log[0] for task in tasks} == {f"INFO: starting new backup job: {command}"}


async def test_a_disabled_job_does_not_run(midnight):
    cluster, clock = midnight
    options = {"all": 1, "storage": "shared"}
    cluster.state.backup_jobs["off"] = BackupJob("off", "01:00", options, enabled=False)
    await clock.advance(7200)
    assert backed_up(cluster) == []


async def test_a_retention_limits_the_number_of_backups(midnight):
    cluster, clock = midnight
    options = {"vmid": "100", "storage": "shared", "prune-backups": {"keep-last": "2"}}
    cluster.state.backup_jobs["often"] = BackupJob("often", "*:00", options)
    await clock.advance(5 * 3600)
    assert backed_up(cluster) == [100, 100]


async def test_replication_runs_and_fails_while_its_target_is_offline(midnight):
    cluster, clock = midnight
    job = cluster.state.replications["100-0"] = Replication(100, 0, "pve1", "pve2", "*/15")
    await clock.advance(20 * 60)
    assert (job.last_sync, job.fail_count) == (int(MONDAY) + 15 * 60, 0)
    await cluster.node_down("pve2")
    await clock.advance(15 * 60)
    assert (job.last_sync, job.fail_count) == (int(MONDAY) + 15 * 60, 1)
    assert "failed" in job.error


def volume(day, hour=0, *, protected=False):
    created = int(datetime(2026, 11, day, hour, tzinfo=UTC).timestamp())
    return Volume(f"s:{day}-{hour}", "backup", "vma", 1, created, 100, protected=protected)


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
def test_a_retention_keeps_the_newest_of_each_period(keep, kept):
    backups = [volume(1), volume(2), volume(2, 9), volume(9), volume(10)]
    marks = retention.mark(backups, retention.parse(keep))
    assert [backup.name for backup, mark in marks if mark == "keep"] == kept


def test_protected_backups_do_not_count():
    backups = [volume(1), volume(2, protected=True), volume(3)]
    marks = [mark for _, mark in retention.mark(backups, {"keep-last": 1})]
    assert marks == ["remove", "protected", "keep"]
