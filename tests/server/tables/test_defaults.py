"""Defaults and rules of Proxmox in rows: what an absent or meaningless value stands for."""

import pytest

from proxmox_client.api.backups import BackupJob
from proxmox_client.api.configs import QemuConfig
from proxmox_client.api.ha import HaResource, HaStatus
from proxmox_client.api.replication import ReplicationJob, ReplicationStatus
from pvemcp_server.tables.backup_jobs import _row as backup_job_row
from pvemcp_server.tables.ha import _row as ha_row
from pvemcp_server.tables.replications import _row as replication_row

JOB = {"id": "200-0", "guest": 200, "target": "pve2"}


def replication(**state):
    job = ReplicationJob(**JOB, disabled=state.get("disabled", False))
    return replication_row(job, "pve1", ReplicationStatus(**JOB, **state))


@pytest.mark.parametrize("disabled", [True, False])
def test_a_replication_that_never_ran_has_no_next_run_in_1970(disabled):
    row = replication(last_sync=0, last_try=0, next_sync=900, disabled=disabled)
    assert (row.next_sync, row.last_sync, row.last_try, row.ok) == (None, None, None, None)


def test_a_disabled_replication_has_no_next_run():
    times = {"last_sync": 1_790_000_000, "last_try": 1_790_000_000, "next_sync": 1_790_000_900}
    assert replication(**times).next_sync is not None
    row = replication(**times, disabled=True)
    assert (row.next_sync, row.last_sync is None) == (None, False)


def test_a_replication_without_a_schedule_runs_every_quarter_of_an_hour():
    assert replication().schedule == "*/15"


def test_ha_resources_have_the_defaults_of_proxmox():
    resource = HaResource(sid="vm:101")
    row = ha_row(resource, HaStatus(id="service:vm:101", sid="vm:101", failback=True))
    assert (row.max_restart, row.max_relocate, row.failback) == (1, 1, True)
    row = ha_row(HaResource(sid="vm:101", max_restart=3, failback=False), None)
    assert (row.max_restart, row.max_relocate, row.failback) == (3, 1, False)


@pytest.mark.parametrize(
    "keep", ["keep-last=3,keep-daily=7", {"keep-daily": "7", "keep-last": "3"}]
)
def test_a_retention_has_one_order(keep):
    job = BackupJob(id="a", prune_backups=keep)
    assert backup_job_row(job, [], None).retention == "keep-last=3,keep-daily=7"


@pytest.mark.parametrize(
    ("bios", "included"), [({}, False), ({"bios": "seabios"}, False), ({"bios": "ovmf"}, True)]
)
def test_backups_leave_out_the_efi_disk_of_a_guest_without_efi(bios, included):
    config = QemuConfig.of({"efidisk0": "local:vm-1-disk-0,size=4M", "scsi0": "local:b", **bios})
    assert {disk.id: disk.backup for disk in config.disks} == {
        "efidisk0": included, "scsi0": True,
    }  # fmt: skip
