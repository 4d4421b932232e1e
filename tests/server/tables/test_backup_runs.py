"""Which tasks were runs of which backup job, told from the command that they logged."""

import pytest

from proxmox_client.api.backups import BackupJob
from proxmox_client.api.tasks import TaskRow
from pvemcp_server.tables.backup_runs import Command, Run, Unsaid

LINE = "INFO: starting new backup job: vzdump "


def command(text):
    return Command.read(LINE + text)


def test_a_command_is_guests_and_options():
    read = command("100 200 --mode snapshot --storage nfs --notes-template '{{guestname}} x'")
    assert read.vmids == {100, 200}
    assert read.options["storage"] == "nfs"
    assert read.options["notes-template"] == "{{guestname}} x"


def test_a_command_whose_quotation_goes_on_in_the_next_line_is_read_as_far_as_it_goes():
    read = command("100 --storage nfs --notes-template 'of a")
    assert (read.vmids, read.options["storage"]) == ({100}, "nfs")


def test_a_task_that_never_told_its_command_is_of_the_only_job_that_writes_to_its_storage():
    nightly = BackupJob(id="nightly", storage="nfs")
    others = [BackupJob(id="off", storage="nfs", enabled=False), BackupJob(id="x", storage="pbs")]
    assert Unsaid.read("nfs", [nightly, *others]).fits(nightly)
    assert not any(Unsaid.read("nfs", [nightly, *others]).fits(job) for job in others)
    weekly = BackupJob(id="weekly", storage="nfs")
    assert Unsaid.read("nfs", [nightly, weekly]) == Unsaid("")


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


def test_a_job_for_all_guests_and_one_for_a_pool():
    everybody = BackupJob(id="all", storage="nfs", all=True, exclude="100")
    assert command("--all 1 --exclude 100 --storage nfs").fits(everybody)
    assert not command("100 --storage nfs").fits(everybody)
    pool = BackupJob(id="pool", storage="nfs", pool="web")
    assert command("--pool web --storage nfs").fits(pool)


def task(start, status="OK", end=1):
    return TaskRow(upid=f"UPID:{start}", start_time=start, end_time=end, status=status)


def test_the_last_run_is_all_its_tasks_and_as_good_as_the_worst():
    run = Run.of([task(1_000), task(90_000), task(90_060, "job errors"), task(90_120)])
    assert (run.upid, run.status, run.ok) == ("UPID:90060", "job errors", False)
    warned = Run.of([task(90_000), task(90_060, "WARNINGS: 1")])
    assert (warned.status, warned.ok) == ("WARNINGS: 1", True)
    running = Run.of([task(90_000, "RUNNING", None), task(90_060)])
    assert (running.status, running.ok) == ("RUNNING", None)
    assert Run.of([]) is None
