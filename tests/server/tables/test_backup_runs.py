"""Backup tasks are matched with their jobs by the command that they logged."""

import pytest

from proxmox_client.api.backups import BackupJob
from proxmox_client.api.tasks import TaskRow
from pvemcp_server.tables.backup_runs import Command, Run, StorageFailure

LINE = "INFO: starting new backup job: vzdump "


def command(text):
    return Command.parse(LINE + text)


def test_a_command_has_guests_and_options():
    parsed = command("100 200 --mode snapshot --storage nfs --notes-template '{{guestname}} x'")
    assert parsed.vmids == {100, 200}
    assert parsed.options["storage"] == "nfs"
    assert parsed.options["notes-template"] == "{{guestname}} x"


def test_a_command_cut_within_a_quotation_is_parsed_to_its_end():
    parsed = command("100 --storage nfs --notes-template 'of a")
    assert (parsed.vmids, parsed.options["storage"]) == ({100}, "nfs")


def test_a_task_without_a_command_belongs_to_the_only_job_of_its_storage():
    nightly = BackupJob(id="nightly", storage="nfs")
    others = [BackupJob(id="off", storage="nfs", enabled=False), BackupJob(id="x", storage="pbs")]
    assert StorageFailure.of_storage("nfs", [nightly, *others]).fits(nightly)
    assert not any(StorageFailure.of_storage("nfs", [nightly, *others]).fits(job) for job in others)
    weekly = BackupJob(id="weekly", storage="nfs")
    assert StorageFailure.of_storage("nfs", [nightly, weekly]) == StorageFailure("")


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("100 200 --storage nfs --quiet 1", True),
        ("200 100 --storage nfs --node pve1", True),
        ("100 --storage nfs", False),
        ("100 200 --storage other", False),
        ("100 200 --storage nfs --job-id nightly", True),
        ("100 200 --storage nfs --job-id another", False),
        ("--all 1 --storage nfs", False),
        ("--pool web --storage nfs", False),
    ],
)
def test_a_job_with_guests_fits_the_command_that_names_them(text, fits):
    job = BackupJob(id="nightly", storage="nfs", vmid="100,200")
    assert command(text).fits(job) == fits


def test_jobs_for_all_guests_and_for_a_pool_fit_their_commands():
    every_guest = BackupJob(id="all", storage="nfs", all=True, exclude="100")
    assert command("--all 1 --exclude 100 --storage nfs").fits(every_guest)
    assert not command("100 --storage nfs").fits(every_guest)
    pool = BackupJob(id="pool", storage="nfs", pool="web")
    assert command("--pool web --storage nfs").fits(pool)


def task(start, status="OK", end=1):
    return TaskRow(upid=f"UPID:{start}", start_time=start, end_time=end, status=status)


def test_the_last_run_has_the_outcome_of_its_worst_task():
    run = Run.newest([task(1_000), task(90_000), task(90_060, "job errors"), task(90_120)])
    assert (run.upid, run.status, run.ok) == ("UPID:90060", "job errors", False)
    warned = Run.newest([task(90_000), task(90_060, "WARNINGS: 1")])
    assert (warned.status, warned.ok) == ("WARNINGS: 1", True)
    running = Run.newest([task(90_000, "RUNNING", None), task(90_060)])
    assert (running.status, running.ok) == ("running", None)
    assert Run.newest([]) is None
