"""The demo cluster home-lab: one node with 14 guests."""

from proxmox_client.emulator.clock import Clock
from proxmox_client.emulator.scenario import history, people, storage_content
from proxmox_client.emulator.scenario.builder import Builder
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.guest import Agent
from proxmox_client.emulator.state.jobs import BackupJob, Pool
from proxmox_client.emulator.state.sizes import GIB, TIB
from proxmox_client.emulator.state.user_config import AclEntry
from proxmox_client.emulator.tasks.backup import scheduled_arguments

NODE = "pve"
VMS = (
    (100, "opnsense", 2, 4, 32, "network", 0.18, "other"),
    (101, "homeassistant", 2, 4, 32, "automation", 0.12, "l26"),
    (102, "truenas", 4, 16, 32, "storage", 0.22, "l26"),
    (103, "media-server", 6, 8, 64, "media", 0.88, "l26"),
    (104, "docker-host", 4, 12, 128, "docker", 0.34, "l26"),
    (105, "win11-desktop", 4, 8, 120, "desktop", 0.05, "win11"),
    (106, "k3s-dev", 4, 8, 60, "dev", 0.86, "l26"),
    (110, "fedora-test", 2, 4, 40, "test", 0.02, "l26"),
)
"""VMID, name, cores, memory and disk in GiB, tag, CPU load, operating system type."""

CONTAINERS = (
    (200, "pihole", 1, 512, 4, "network"),
    (201, "nginx-proxy", 1, 512, 8, "web"),
    (202, "vaultwarden", 1, 512, 8, "web"),
    (203, "paperless", 2, 2048, 20, "web"),
    (204, "grafana", 1, 1024, 10, "monitoring"),
    (205, "minecraft", 2, 4096, 16, "games"),
)
STOPPED = frozenset({105, 110, 205})


def home_lab(clock: Clock) -> ClusterState:
    """Build the cluster."""
    builder = Builder("home-lab", "8.4", clock, seed=14)
    state = builder.state
    state.grouped = False
    builder.node(
        NODE,
        cpus=16,
        memory=64 * GIB,
        cpu_model="13th Gen Intel(R) Core(TM) i7-1360P",
        kernel="6.8.12-15-pve",
    )
    builder.storage(
        "local", "dir", "iso,vztmpl,backup", total=94 * GIB, options={"path": "/var/lib/vz"}
    )
    pool = {"thinpool": "data", "vgname": "pve"}
    builder.storage("local-lvm", "lvmthin", "images,rootdir", total=1700 * GIB, options=pool)
    share = {"server": "10.20.0.50", "export": "/mnt/tank/backup", "path": "/mnt/pve/nas-backup"}
    builder.storage("nas-backup", "nfs", "backup", shared=True, total=4 * TIB, options=share)
    _add_guests(builder)
    _add_backups(builder)
    _add_users(builder)
    history.add_log(builder, ("root@pam", "sam@pve"))
    return state


def _add_guests(builder: Builder) -> None:
    for vmid, name, cores, memory, disk, tag, cpu, system in VMS:
        builder.vm(
            vmid,
            name,
            NODE,
            storage="local-lvm",
            disks=(disk,),
            config={
                "cores": cores,
                "memory": str(memory * 1024),
                "tags": tag,
                "ostype": system,
                "onboot": 1,
            },
            running=vmid not in STOPPED,
            agent=None if vmid in (100, 110) else Agent(addresses=(f"10.20.1.{vmid - 80}",)),
            load=builder.load(vmid, cpu=cpu, swing=0.04),
        )
    for vmid, name, cores, megabytes, disk, tag in CONTAINERS:
        settings = {"cores": cores, "memory": megabytes, "tags": tag, "onboot": 1}
        running = vmid not in STOPPED
        builder.container(
            vmid, name, NODE, storage="local-lvm", disk=disk, config=settings, running=running
        )
    guests = builder.state.guests
    builder.snapshot(guests[101], "before-2025-1", 320, "before the big update")
    builder.snapshot(guests[101], "pre-zigbee", 12, "before moving the coordinator", ram=True)
    builder.snapshot(guests[104], "clean-install", 410)
    builder.snapshot(guests[203], "before-upgrade", 45, "paperless 2.x")
    builder.snapshot(guests[105], "fresh", 95, "after activation")


def _add_backups(builder: Builder) -> None:
    storage_content.add_isos(builder, "local", NODE, step=2)
    storage_content.add_templates(builder, "local", NODE)
    hours_ago = builder.hours_since(2)
    for position, guest in enumerate(builder.state.guests.values()):
        newest = hours_ago - position / 40
        nights = [newest + night * 24 for night in range(4)]
        storage_content.add_backups(builder, "nas-backup", guest, nights)
    storage_content.fill_storage(builder, "local", NODE, 0.83)
    storage_content.fill_storage(builder, "local-lvm", NODE, 0.64)
    storage_content.fill_storage(builder, "nas-backup", NODE, 0.58)
    options = {
        "all": 1,
        "storage": "nas-backup",
        "mode": "snapshot",
        "compress": "zstd",
        "prune-backups": {"keep-last": "4"},
        "notes-template": "{{guestname}}",
    }
    job = builder.state.backup_jobs["backup-home"] = BackupJob("backup-home", "02:00", options)
    history.add_backup_runs(
        builder,
        scheduled_arguments(job),
        hours_ago=hours_ago,
        every_hours=24,
        runs=7,
        vmids=tuple(builder.state.guests),
    )
    history.add_failed_tasks(builder, ("root@pam", "sam@pve"), 5)
    history.add_routine_tasks(builder, ("root@pam", "sam@pve"), 6)


def _add_users(builder: Builder) -> None:
    state = builder.state
    people.add_realm(builder, people.DIRECTORY)
    people.add_person(builder, "sam@pve")
    people.add_person(builder, "dana@corp")
    state.user_config.acl += [
        AclEntry("/", "user", "sam@pve", "PVEAdmin"),
        AclEntry("/pool/family", "user", "dana@corp", "PVEAuditor"),
    ]
    state.pools["family"] = Pool("family", "What everyone depends on", {101, 102, 103, 200, 202})
