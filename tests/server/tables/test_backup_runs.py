"""Backup tasks are matched with their jobs by the command that they logged."""

import json

import pytest
from tests.cases import walk

from proxmox_client.api.backups import BackupJob
from proxmox_client.api.tasks import TaskRow
from pvemcp_server.tables.backup_runs import Command, Jobs, Run, StorageFailure

LINE = "INFO: starting new backup job: vzdump "
# options as the API returns them, and as the log of a scheduled task repeats them (9.2.11)
MANY = {
    "id": "job-many", "type": "vzdump", "enabled": 1, "schedule": "*/1", "next-run": 1795991820,
    "repeat-missed": 1, "comment": "x", "vmid": "140", "storage": "shared", "compress": "0",
    "mailto": "ops@lab.internal,b@lab.internal", "mailnotification": "failure",
    "notification-mode": "legacy-sendmail", "bwlimit": 20480, "ionice": 6, "lockwait": 60,
    "stopwait": 5, "zstd": 2, "protected": 1, "remove": 0, "fleecing": {"enabled": 0},
    "performance": {"max-workers": "4"}, "pigz": 1, "quiet": 1, "all": 0,
    "notes-template": '{{vmid}}: a "quoted"\\nsecond line',
    "prune-backups": {"keep-daily": "7", "keep-last": "1"}, "exclude-path": ["/opt/?*", "/var/a b"],
}  # fmt: skip
MANY_LOGGED = (
    "140 --bwlimit 20480 --protected 1 --lockwait 60 --mailto b@lab.internal,ops@lab.internal "
    "--notification-mode legacy-sendmail --pigz 1 --stopwait 5 --compress 0 --storage shared "
    "--mailnotification failure --quiet 1 --remove 0 --zstd 2 "
    "--notes-template '{{vmid}}: a \"quoted\"\\nsecond line' --fleecing 0 --ionice 6 "
    "--performance 'max-workers=4' --prune-backups 'keep-last=1,keep-daily=7' "
    "--exclude-path '/opt/?*' --exclude-path '/var/a b'"
)


def command(text):
    return Command.parse(LINE + text)


def job(id_="nightly", **options):
    return BackupJob.of({"id": id_, **options})


def fits(origin, job):
    return origin.jobs(Jobs.of([job])) == {job.id}


def test_a_command_has_guests_and_options():
    parsed = command("100 200 --mode snapshot --storage nfs --notes-template '{{guestname}} x'")
    assert parsed.vmids == {100, 200}
    assert parsed.options["storage"] == "nfs"
    assert parsed.options["notes-template"] == "{{guestname}} x"


def test_a_command_cut_within_a_quotation_is_parsed_to_its_end():
    parsed = command("100 --storage nfs --notes-template 'of a")
    assert (parsed.vmids, parsed.options["storage"]) == ({100}, "nfs")


@walk("word", ["a", "'a' ", "--a b ", "\\", '"', "a'"])
def test_of_a_command_of_megabytes_only_the_beginning_is_parsed(word):
    parsed = command(f"100 --storage nfs --notes-template {word * 1_000_000}")
    assert (parsed.vmids, parsed.options["storage"]) == ({100}, "nfs")
    assert sum(len(str(value)) for value in parsed.options.values()) < 10_000


def test_a_task_without_a_command_belongs_to_the_only_job_of_its_storage():
    nightly = job(storage="nfs")
    others = [job("off", storage="nfs", enabled=0), job("x", storage="pbs")]
    jobs = Jobs.of([nightly, *others])
    assert StorageFailure.of_storage("nfs", jobs).jobs(jobs) == {"nightly"}
    several = Jobs.of([nightly, job("weekly", storage="nfs")])
    assert StorageFailure.of_storage("nfs", several) == StorageFailure("")
    assert not StorageFailure("").jobs(several)


def test_every_option_of_a_job_is_found_in_its_command():
    assert fits(command(MANY_LOGGED), BackupJob.of(MANY))


@walk("option", sorted(MANY.keys() - {"id"}))
def test_a_job_that_differs_in_any_logged_option_does_not_fit(option):
    other = "140,141" if option == "vmid" else "other"
    if isinstance(MANY[option], int):
        other = 0 if MANY[option] else 1
    is_fit = fits(command(MANY_LOGGED), BackupJob.of(MANY | {option: other}))
    unlogged = {"type", "schedule", "comment", "quiet", "enabled", "next-run", "repeat-missed"}
    assert is_fit == (option in unlogged)
    absent = {name: value for name, value in MANY.items() if name != option}
    assert fits(command(MANY_LOGGED), BackupJob.of(absent)) == (option in {*unlogged, "all"})


@pytest.mark.parametrize(
    ("text", "is_fit"),
    [
        ("100 200 --storage nfs --quiet 1", True),
        ("200 100 --quiet 1 --storage nfs", True),
        ("100 200 --storage nfs", False),  # by a person: the scheduler sets quiet
        ("100 200 --storage nfs --quiet 0", False),
        ("200 100 --storage nfs --node pve1 --quiet 1", False),
        ("100 --storage nfs --quiet 1", False),
        ("100 200 --storage other --quiet 1", False),
        ("--all 1 --storage nfs --quiet 1", False),
        ("--pool web --storage nfs --quiet 1", False),
    ],
)
@pytest.mark.parametrize("vmids", ["100,200", "100 200", "200; 100"])
def test_a_job_with_guests_fits_the_command_that_names_them(text, is_fit, vmids):
    assert fits(command(text), job(storage="nfs", vmid=vmids)) == is_fit


def test_jobs_for_all_guests_and_for_a_pool_fit_their_commands():
    every_guest = job("all", storage="nfs", all=1, exclude="100,101")
    assert fits(command("--all 1 --exclude 101,100 --storage nfs --quiet 1"), every_guest)
    assert not fits(command("100 --storage nfs --quiet 1"), every_guest)
    pool = job("pool", storage="nfs", pool="web")
    assert fits(command("--pool web --storage nfs --quiet 1"), pool)


def task(start, status="OK", end=1, node="pve1"):
    upid = f"UPID:{node}:{start}"
    return TaskRow(upid=upid, node=node, start_time=start, end_time=end, status=status)


def test_the_last_run_has_the_outcome_of_its_worst_task():
    failed = task(90_060, "job errors", node="pve2")
    run = Run.newest([task(1_000), task(90_000), failed, task(90_120, node="pve3")])
    assert (run.upid, run.status, run.ok) == ("UPID:pve2:90060", "job errors", False)
    warned = Run.newest([task(90_000), task(90_060, "WARNINGS: 1", node="pve2")])
    assert (warned.status, warned.ok) == ("WARNINGS: 1", True)
    running = Run.newest([task(90_000, "RUNNING", None), task(90_060, node="pve2")])
    assert (running.status, running.ok) == ("running", None)
    assert Run.newest([]) is None


def test_the_last_run_lasts_until_its_last_task_ended():
    first, slow = task(90_000, end=90_100), task(90_060, end=93_000, node="pve2")
    assert Run.newest([task(1_000), first, slow]).seconds == 3_000
    assert Run.newest([first, task(90_060, "RUNNING", None, "pve2")]).seconds is None


def test_two_tasks_of_one_node_are_two_runs():
    run = Run.newest([task(90_000, "job errors"), task(90_120)])
    assert (run.upid, run.ok) == ("UPID:pve1:90120", True)


def test_recorded_commands_of_scheduled_jobs_fit_their_job_alone(pve_recordings):
    jobs, lines = {}, set()
    for text in (pve_recordings / "exchanges-9.2-more.jsonl").read_text().splitlines():
        exchange = json.loads(text)
        path, data = exchange["path"], exchange["body"]
        if exchange["method"] == "GET" and exchange["scenario"].startswith("backup.job") and data:
            data = data["data"] or []
            if path == "/cluster/backup":
                jobs |= {row["id"]: BackupJob.of(row) for row in data}
            if "/tasks/" in path and path.endswith("/log"):
                lines |= {row["t"] for row in data if row["t"].startswith(LINE)}
    scheduled = [parsed for parsed in map(Command.parse, lines) if parsed.is_scheduled]
    fitting = [[name for name, job in jobs.items() if fits(parsed, job)] for parsed in scheduled]
    assert len(scheduled) > 5
    assert all(fitting)
