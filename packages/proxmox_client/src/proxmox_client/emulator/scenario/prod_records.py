"""What prod remembers: snapshots, backups, jobs, tasks, people."""

from proxmox_client.emulator.scenario import archive, history
from proxmox_client.emulator.scenario.builder import Builder
from proxmox_client.emulator.state.jobs import BackupJob, HaResource, Replication
from proxmox_client.emulator.state.people import Grant, Group, Token, User

USERS = ("root@pam", "alice@pve", "bob@pve", "carol@pve", "ops@pve!ansible")
SATURDAY = 5
ARCHIVED = (101, 102, 103, 105, 150, 200)


def add(builder: Builder) -> None:
    """Add all of it."""
    _snapshots(builder)
    _files(builder)
    _jobs(builder)
    _replications(builder)
    _high_availability(builder)
    _people(builder)
    history.failures(builder, USERS, 34)
    history.routine(builder, USERS, 12)


def _snapshots(builder: Builder) -> None:
    guests = builder.state.guests
    builder.snapshot(guests[101], "before-pg16", 210, "before PostgreSQL 16")
    builder.snapshot(guests[101], "before-vacuum", 33, "before the big vacuum")
    builder.snapshot(guests[105], "release-4-2", 64, "release 4.2")
    builder.snapshot(guests[105], "release-4-3", 5, "release 4.3", ram=True)
    builder.snapshot(guests[150], "last-known-good", 480, "do not delete")
    builder.snapshot(guests[200], "after-cert-renewal", 18)
    movable = [
        guest for guest in guests.values() if not guest.template and guest.vmid not in ARCHIVED
    ]
    for place, guest in enumerate(movable[::4]):
        age = (0.2, 2, 9, 27, 31, 58, 120, 260, 400)[place % 9]
        builder.snapshot(
            guest, f"pre-patch-{place:02d}", age, "monthly patches", ram=place % 5 == 0
        )


def _files(builder: Builder) -> None:
    archive.isos(builder, "local", "pve01")
    archive.isos(builder, "nfs-iso", "pve01", every=2)
    for node in builder.state.nodes:
        archive.templates(builder, "local", node)
    builder.volume("local", "pve01", "snippets/cloud-init.yaml", "snippets", 1850, format="snippet")
    night = builder.hours_since(1)
    for place, guest in enumerate(builder.state.guests.values()):
        if not guest.template:
            archive.nightly(builder, "pbs-main", guest, 5, hours_ago=night - place / 300)
    for vmid in ARCHIVED:
        for week in range(4):
            archive.backup(
                builder,
                "nfs-archive",
                builder.state.guests[vmid],
                builder.hours_since(22, SATURDAY) + 168 + week * 168,
                protected=week == 3,
            )
    archive.fill(builder, "local", "pve01", 0.71)
    archive.fill(builder, "local-zfs", "pve01", 0.62)
    archive.fill(builder, "ceph-vm", "pve01", 0.69)
    archive.fill(builder, "nfs-iso", "pve01", 0.86)
    archive.fill(builder, "nfs-archive", "pve01", 0.93)
    archive.fill(builder, "pbs-main", "pve01", 0.74)


def _jobs(builder: Builder) -> None:
    jobs = builder.state.backup_jobs
    nightly = {"all": 1, "storage": "pbs-main", "mode": "snapshot", "exclude": "9000,9001"}
    kept = {
        "prune-backups": {"keep-daily": "7", "keep-weekly": "4"},
        "notes-template": "{{guestname}}",
    }
    jobs["backup-nightly"] = BackupJob("backup-nightly", "01:00", nightly | kept)
    listed = ",".join(map(str, ARCHIVED))
    weekly = {"vmid": listed, "storage": "nfs-archive", "mode": "snapshot", "compress": "zstd"}
    jobs["backup-archive"] = BackupJob(
        "backup-archive",
        "sat 22:00",
        weekly | {"prune-backups": {"keep-last": "4"}, "mailto": "ops@example.test"},
    )
    staging = {"pool": "staging", "storage": "nfs-archive", "mode": "stop", "compress": "zstd"}
    jobs["backup-staging"] = BackupJob("backup-staging", "sun 03:30", staging, enabled=False)
    history.backup_runs(
        builder,
        "--all 1 --exclude 9000,9001 --storage pbs-main --mode snapshot --quiet 1",
        hours_ago=builder.hours_since(1),
        every_hours=24,
        runs=9,
    )
    history.backup_runs(
        builder,
        f"{listed.replace(',', ' ')} --storage nfs-archive --mode snapshot --compress zstd",
        hours_ago=builder.hours_since(22, SATURDAY),
        every_hours=168,
        runs=4,
        outcomes=("job errors", "OK", "job errors"),
        vmids=ARCHIVED,
    )


def _replications(builder: Builder) -> None:
    state = builder.state
    local = [guest for guest in state.guests.values() if _is_local(guest.vmid, builder)]
    online = [node.name for node in state.nodes.values()][:4]
    for place, guest in enumerate(local[:6]):
        target = next(node for node in online if node != guest.node)
        job = Replication(guest.vmid, 0, guest.node, target, comment="standby copy")
        job.last_sync = job.last_try = builder.now - 300 - place * 40
        job.duration = 2.4 + place * 1.7
        state.replications[job.id] = job
    broken = next(iter(state.replications.values()))
    broken.fail_count, broken.last_sync = 3, builder.now - 7200
    broken.error = broken.obstacle = (
        "command 'zfs snapshot rpool/data@__replicate__' failed: out of space"
    )


def _is_local(vmid: int, builder: Builder) -> bool:
    guest = builder.state.guests[vmid]
    disks = list(guest.disks())
    on_live_node = guest.node != "pve05"
    return bool(disks) and on_live_node and all(disk.storage == "local-zfs" for disk in disks)


def _high_availability(builder: Builder) -> None:
    state = builder.state
    for vmid in (103, 110, 111):
        state.ha_resources[f"vm:{vmid}"] = HaResource(f"vm:{vmid}", comment="database and API")
    state.ha_rules["prefer-new-nodes"] = {
        "rule": "prefer-new-nodes",
        "type": "node-affinity",
        "nodes": "pve03,pve04",
        "resources": "vm:103,vm:110",
    }


def _people(builder: Builder) -> None:
    people = builder.state.people
    people.groups["admins"] = Group("admins", "Those who are called at night")
    people.groups["developers"] = Group("developers", "Those who build")
    for name, group in (("alice", "admins"), ("bob", "developers"), ("carol", "developers")):
        mail = f"{name}@example.test"
        people.users[f"{name}@pve"] = User(
            f"{name}@pve", firstname=name.title(), email=mail, groups={group}
        )
    ops = people.users["ops@pve"] = User("ops@pve", comment="Automation")
    ops.tokens["ansible"] = Token("ansible", builder.uuid(), privsep=False, comment="playbooks")
    people.grants += [
        Grant("/", "group", "admins", "Administrator"),
        Grant("/pool/staging", "group", "developers", "PVEVMAdmin"),
        Grant("/pool/production", "group", "developers", "PVEAuditor"),
        Grant("/", "user", "ops@pve", "PVEAdmin"),
    ]
