"""The records of the demo cluster prod: snapshots, backups, jobs, tasks and users."""

from proxmox_client.emulator.scenario import history, people, storage_content
from proxmox_client.emulator.scenario.builder import Builder
from proxmox_client.emulator.state.guest import Guest
from proxmox_client.emulator.state.jobs import BackupJob, HaResource, Replication
from proxmox_client.emulator.state.user_config import AclEntry, Group, SecondFactor, Token, User
from proxmox_client.emulator.tasks.backup import scheduled_arguments

USERS = ("root@pam", "alice@pve", "bob@pve", "carol@pve", "ops@pve!ansible")
SATURDAY = 5
ARCHIVED = (101, 102, 103, 105, 150, 200)
EXCLUDED = (403, 9000, 9001)
"""Guests that no job backs up any more."""


def add_records(builder: Builder) -> None:
    """Add all records; the guests must exist."""
    _add_snapshots(builder)
    _add_storage_content(builder)
    _add_backup_jobs(builder)
    _add_replications(builder)
    _add_ha(builder)
    _add_users(builder)
    history.add_failed_tasks(builder, USERS, 34)
    history.add_routine_tasks(builder, USERS, 12)


def _add_snapshots(builder: Builder) -> None:
    guests = builder.state.guests
    builder.snapshot(guests[101], "before-pg16", 210, "before PostgreSQL 16")
    builder.snapshot(guests[101], "before-vacuum", 33, "before the big vacuum")
    builder.snapshot(guests[105], "release-4-2", 64, "release 4.2")
    builder.snapshot(guests[105], "release-4-3", 5, "release 4.3", ram=True)
    builder.snapshot(guests[150], "last-known-good", 480, "do not delete")
    builder.snapshot(guests[200], "after-cert-renewal", 18)
    other_guests = [
        guest for guest in guests.values() if not guest.template and guest.vmid not in ARCHIVED
    ]
    for position, guest in enumerate(other_guests[::4]):
        age = (0.2, 2, 9, 27, 31, 58, 120, 260, 400)[position % 9]
        builder.snapshot(
            guest, f"pre-patch-{position:02d}", age, "monthly patches", ram=position % 5 == 0
        )


def _add_storage_content(builder: Builder) -> None:
    storage_content.add_isos(builder, "local", "pve01")
    storage_content.add_isos(builder, "nfs-iso", "pve01", step=2)
    for node in builder.state.nodes:
        storage_content.add_templates(builder, "local", node)
    builder.volume("local", "pve01", "snippets/cloud-init.yaml", "snippets", 1850, format="snippet")
    hours_ago = builder.hours_since(1)
    for position, guest in enumerate(builder.state.guests.values()):
        if not guest.template:
            newest = hours_ago - position / 300
            nights = [newest + night * 24 for night in range(5)]
            storage_content.add_backups(builder, "pbs-main", guest, nights)
    newest = builder.hours_since(22, SATURDAY) + 168
    weeks = [newest + week * 168 for week in range(4)]
    for vmid in ARCHIVED:
        guest = builder.state.guests[vmid]
        storage_content.add_backups(builder, "nfs-archive", guest, weeks, protected={3})
    storage_content.fill_storage(builder, "local", "pve01", 0.71)
    storage_content.fill_storage(builder, "local-zfs", "pve01", 0.62)
    storage_content.fill_storage(builder, "ceph-vm", "pve01", 0.69)
    storage_content.fill_storage(builder, "nfs-iso", "pve01", 0.86)
    storage_content.fill_storage(builder, "nfs-archive", "pve01", 0.93)
    storage_content.fill_storage(builder, "pbs-main", "pve01", 0.74)


def _add_backup_jobs(builder: Builder) -> None:
    jobs = builder.state.backup_jobs
    nightly = {"all": 1, "storage": "pbs-main", "mode": "snapshot"}
    nightly["exclude"] = ",".join(map(str, EXCLUDED))
    retention = {
        "prune-backups": {"keep-daily": "7", "keep-weekly": "4"},
        "notes-template": "{{guestname}}",
    }
    jobs["backup-nightly"] = BackupJob("backup-nightly", "01:00", nightly | retention)
    vmids = ",".join(map(str, ARCHIVED))
    weekly = {"vmid": vmids, "storage": "nfs-archive", "mode": "snapshot", "compress": "zstd"}
    jobs["backup-archive"] = BackupJob(
        "backup-archive",
        "sat 22:00",
        weekly | {"prune-backups": {"keep-last": "4"}, "mailto": "ops@example.test"},
    )
    staging = {"pool": "staging", "storage": "nfs-archive", "mode": "stop", "compress": "zstd"}
    jobs["backup-staging"] = BackupJob("backup-staging", "sun 03:30", staging, enabled=False)
    history.add_backup_runs(
        builder,
        scheduled_arguments(jobs["backup-nightly"]),
        hours_ago=builder.hours_since(1),
        every_hours=24,
        runs=9,
    )
    history.add_backup_runs(
        builder,
        scheduled_arguments(jobs["backup-archive"]),
        hours_ago=builder.hours_since(22, SATURDAY),
        every_hours=168,
        runs=4,
        outcomes=("job errors", "OK", "job errors"),
        vmids=ARCHIVED,
    )


def _add_replications(builder: Builder) -> None:
    state = builder.state
    local = [guest for guest in state.guests.values() if _is_local(guest)]
    online = [node.name for node in state.nodes.values()][:4]
    for position, guest in enumerate(local[:6]):
        target = next(node for node in online if node != guest.node)
        job = Replication(guest.vmid, 0, guest.node, target, comment="standby copy")
        job.last_sync = job.last_try = builder.now - 300 - position * 40
        job.duration = 2.4 + position * 1.7
        state.replications[job.id] = job
    broken = next(iter(state.replications.values()))
    broken.fail_count, broken.last_sync = 3, builder.now - 7200
    broken.error = broken.obstacle = (
        "command 'zfs snapshot rpool/data@__replicate__' failed: out of space"
    )


def _is_local(guest: Guest) -> bool:
    """Return whether a guest has local disks only and is on an online node."""
    storages = {disk.storage for disk in guest.disks()}
    return storages == {"local-zfs"} and guest.node != "pve05"


def _add_ha(builder: Builder) -> None:
    state = builder.state
    for vmid in (103, 110, 111, 112):
        state.ha_resources[f"vm:{vmid}"] = HaResource(f"vm:{vmid}", comment="database and API")
    state.ha_rules["prefer-new-nodes"] = {
        "rule": "prefer-new-nodes",
        "type": "node-affinity",
        "nodes": "pve03,pve04",
        "resources": "vm:103,vm:110",
    }
    state.ha_rules["api-apart"] = {
        "rule": "api-apart",
        "type": "resource-affinity",
        "affinity": "negative",
        "resources": "vm:110,vm:111",
        "comment": "never both on one node",
    }


def _add_users(builder: Builder) -> None:
    config = builder.state.user_config
    config.groups["admins"] = Group("admins", "On call")
    config.groups["developers"] = Group("developers", "Developers")
    people.add_realm(builder, people.DIRECTORY)
    people.add_realm(builder, people.PROVIDER)
    people.add_person(builder, "alice@pve", groups={"admins"})
    people.add_person(builder, "bob@pve", groups={"developers"})
    factors = [
        SecondFactor("1", "totp", people.TOTP_SECRET, "Phone"),
        SecondFactor("2", "recovery", "0a1b-2c3d-4e5f-6789 9876-f5e4-d3c2-b1a0"),
    ]
    people.add_person(builder, "carol@pve", groups={"developers"}, factors=factors)
    people.add_person(builder, "dana@corp", groups={"developers"})
    people.add_person(builder, "erin@sso", password="")
    ops = config.users["ops@pve"] = User("ops@pve", comment="Automation")
    ops.tokens["ansible"] = Token("ansible", builder.uuid(), privsep=False, comment="playbooks")
    config.acl += [
        AclEntry("/", "group", "admins", "Administrator"),
        AclEntry("/pool/staging", "group", "developers", "PVEVMAdmin"),
        AclEntry("/pool/production", "group", "developers", "PVEAuditor"),
        AclEntry("/", "user", "ops@pve", "PVEAdmin"),
        AclEntry("/", "user", "erin@sso", "PVEAuditor"),
    ]
