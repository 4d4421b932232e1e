"""Questions on backups, their jobs and what they contain."""

from collections import defaultdict
from datetime import UTC, datetime

from .model import anything, call, query, question

DAY = 86_400


def backups(demo, fits=anything):
    """List the backups on all storages with their clusters."""
    for state in demo.states.values():
        for storage in state.storages.values():
            for volume in storage.everything():
                if volume.content == "backup" and fits(volume):
                    yield state, volume


def covered(state, vmid):
    """Return the enabled jobs that back a guest up."""
    jobs = state.backup_jobs.values()
    return {job.id for job in jobs if job.enabled and job.covers(vmid, state.pool_of(vmid))}


@question(
    "B3",
    "Which guests have no backup from the last 7 days?",
    query(
        "backup_coverage",
        any_of=[("last_backup", "<", "-7d"), ("last_backup", "IS NULL")],
    ),
)
def without_recent_backup(demo, answer):
    recent = {
        (state.name, volume.vmid)
        for state, volume in backups(demo, lambda volume: volume.ctime > demo.now - 7 * DAY)
    }
    yield answer.set("cluster", "vmid"), demo.vmids(anything) - recent
    yield "Offline on prod, so missing here: pve05" in answer.notes, True


@question(
    "B4",
    "Which guests are in no backup job?",
    query("backup_coverage", where=[("covered", "=", "false")]),
)
def in_no_job(demo, answer):
    uncovered = {(s.name, g.vmid) for s, g in demo.guests() if not covered(s, g.vmid)}
    yield answer.set("cluster", "vmid"), uncovered
    yield bool(uncovered), True


@question(
    "B6",
    "Free 200 GB on nfs-archive: what could go?",
    query(
        "backups",
        "vmid",
        "COUNT(*) as backups",
        "SUM(size) as size",
        "MIN(creation) as oldest",
        where=[("storage", "=", "nfs-archive"), ("protected", "=", "false")],
        group=["vmid"],
        order="-size",
    ),
)
def space_by_guest(demo, answer):
    sizes = defaultdict(int)
    for _, volume in backups(demo, lambda volume: not volume.protected):
        if volume.volid.startswith("nfs-archive:"):
            sizes[volume.vmid] += volume.size
    yield answer.column("vmid", "size"), sorted(sizes.items(), key=lambda pair: -pair[1])


@question(
    "B19",
    "Restore the config of 101 from last week's backup",
    call("ListBackups", vmid=101, cluster_name="prod"),
    lambda listed: call(
        "GetBackupContents", cluster_name="prod", backup=listed.column("volid")[-1]
    ),
    toolsets=frozenset({"lifecycle"}),
    tokens=1_500,
)
def configuration_in_a_backup(demo, listed, contents):
    of_guest = [
        volume
        for state, volume in backups(demo, lambda volume: volume.vmid == 101)
        if state is demo.prod
    ]
    yield listed.set("volid"), {volume.volid for volume in of_guest}
    [volume] = [volume for volume in of_guest if volume.volid == contents.data["volid"]]
    assert f"memory: {contents.data['memory_mb']}\n" in volume.config
    assert f"name: {contents.data['name']}\n" in volume.config


@question("B46", "Which backup jobs are disabled or have no retention?", call("ListBackupJobs"))
def disabled_jobs(demo, answer):
    jobs = {
        (job.id, job.enabled, "prune-backups" in job.options)
        for state in demo.states.values()
        for job in state.backup_jobs.values()
    }
    found = {(row["id"], row["enabled"], bool(row["retention"])) for row in answer.data}
    yield found, jobs


@question(
    "B47",
    "Is db-primary restorable?",
    query("backup_coverage", where=[("vm_name", "=", "db-primary")]),
)
def newest_verified_backup(demo, answer):
    verified = [
        v.ctime for s, v in backups(demo) if (s.name, v.vmid, v.verified) == ("prod", 101, "ok")
    ]
    [row] = answer.data
    yield row["last_verified_backup"], utc(max(verified))
    yield set(row["jobs"].split(";")), covered(demo.prod, 101)


@question(
    "B67",
    "Which disks are excluded from backups?",
    query("disks", "vmid", "id", "media", where=[("backup", "=", "false"), ("media", "=", "disk")]),
)
def disks_without_backup(demo, answer):
    excluded = {
        (guest.vmid, key)
        for _, guest in demo.guests()
        for key, value in guest.config.items()
        if "backup=0" in str(value) or key.startswith("unused")
    }
    yield answer.set("vmid", "id"), excluded
    yield bool(excluded), True


@question(
    "B71",
    "Which backups failed their verification?",
    query("backups", "vmid", "volid", where=[("verified", "=", "false")]),
)
def failed_verifications(demo, answer):
    failed = {volume.volid for _, volume in backups(demo, lambda v: v.verified == "failed")}
    yield answer.set("volid"), failed
    yield bool(failed), True


@question(
    "B81",
    "Which backups are older than 20 days?",
    query("backups", "volid", "vmid", where=[("creation", "<", "20 days ago")]),
)
def old_backups(demo, answer):
    old = {volume.volid for _, volume in backups(demo, lambda v: v.ctime < demo.now - 20 * DAY)}
    yield answer.set("volid"), old
    yield bool(old), True


@question(
    "N24",
    "Was läuft heute Nacht an Sicherungen, und wann?",
    call("ListBackupJobs", fields=["id", "enabled", "schedule", "next_run"]),
)
def next_runs(demo, answer):
    jobs = [job for state in demo.states.values() for job in state.backup_jobs.values()]
    yield answer.set("id", "schedule"), {(job.id, job.schedule) for job in jobs}
    yield {row["id"] for row in answer.data if row["next_run"]}, {j.id for j in jobs if j.enabled}


@question(
    "N25",
    "Top 3 largest backups on the PBS",
    query("backups", "vmid", "size", where=[("storage", "=", "pbs-main")], order="-size", limit=3),
)
def largest_backups(demo, answer):
    on_server = backups(demo, lambda volume: volume.volid.startswith("pbs-main:"))
    sizes = sorted((volume.size for _, volume in on_server), reverse=True)
    yield answer.column("size"), sizes[:3]


@question(
    "N26",
    "Backups of guests that no longer exist?",
    query(
        "backups",
        "storage",
        "COUNT(*) as backups",
        "SUM(size) as size",
        where=[("guest.vmid", "IS NULL")],
        group=["storage"],
    ),
)
def backups_without_guest(demo, answer):
    orphans = [volume for state, volume in backups(demo) if volume.vmid not in state.guests]
    yield sum(answer.column("backups")), len(orphans)


@question(
    "N49",
    "Newest backup of each guest in pool office",
    query(
        "backups",
        "vmid",
        "creation",
        where=[("guest.pool", "=", "office")],
        order="-creation",
        per=("vmid", 1),
    ),
)
def newest_backup_of_each_guest(demo, answer):
    newest = {}
    for state, volume in backups(demo):
        if state.pool_of(volume.vmid) == "office":
            newest[volume.vmid] = max(volume.ctime, newest.get(volume.vmid, 0))
    yield dict(answer.column("vmid", "creation")), {vmid: utc(t) for vmid, t in newest.items()}


def utc(seconds):
    """Return a time as answers have it."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
