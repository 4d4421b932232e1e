"""First calls that cannot answer what they are meant for: the notes of the answer say so."""

from proxmox_client.emulator.state.guest import Kind

from .model import call, query, question


def trap(id_, words, asked, *warnings, **options):
    """Declare a call that misleads, with parts of the notes that warn of it."""

    @question(id_, words, asked, **options)
    def warns(_demo, answer):
        for warning in warnings:
            yield warning in (answer.text if answer.failed else answer.notes), True

    return warns


@question(
    "T1",
    "Which guests have no backup from the last 7 days? (by groups of backups)",
    query(
        "backups",
        "vmid",
        "MAX(creation) as newest",
        group=["vmid"],
        having=[("newest", "<", "-7d")],
    ),
)
def groups_without_rows(_demo, answer):
    yield answer.data, []
    yield "guests without backups are in no group" in answer.notes, True


trap(
    "T2",
    "Which VM had the most network traffic last week? (by counters)",
    query("guests", "vmid", "name", "network_out", order="-network_out", limit=3),
    "Counters of guests run since their start; guest_metrics has rates",
)
trap(
    "T3",
    "Who is an administrator? (by the table permissions)",
    query("permissions", where=[("path", "=", "/"), ("privilege", "=", "Permissions.Modify")]),
    "the table acl has those of users",
)
trap(
    "T4",
    "How much space do snapshots hold?",
    query("snapshots", "SUM(size) as size"),
    "Proxmox does not report the space of disks",
)
trap(
    "T5",
    "Which HA groups are there on prod?",
    query("ha_groups", cluster_name="prod"),
    "prod has HA rules in place of groups: see ha_rules",
)
trap(
    "T6",
    "Why did the backup of 105 on prod fail? (by its tasks)",
    call("ListTasks", cluster_name="prod", vmid=105, type="vzdump"),
    "GetLog with vmid has what they logged about the guest",
)
trap(
    "T7",
    "Are the thin pools overprovisioned? (by storage alone)",
    query("disks", "storage", "SUM(size) as provisioned", group=["storage"]),
    "local-zfs: each node has its own, and they were merged here",
)
trap(
    "T8",
    "Which VMs have the fullest disks? (by the inventory)",
    query(
        "guests",
        "vmid",
        "disk_usage_percentage",
        where=[("type", "=", "qemu")],
        order="-disk_usage_percentage",
        limit=3,
    ),
    "Proxmox reports it for running containers only, not for VMs",
)
trap(
    "T9",
    "How many guests are running?",
    query("guests", "COUNT(*) as guests", where=[("status", "=", "running")]),
    "Paused VMs count as running here",
    "status is unknown in 21 rows",
)
trap(
    "T10",
    "Who deleted VM 130 last spring?",
    call("ListTasks", vmid=130, type="qmdestroy"),
    "prod has no older tasks on record than these dates",
    "home-lab has no older tasks on record than these dates",
)
trap(
    "T11",
    "How much storage do we have?",
    query("storages", "SUM(disk_total) as size"),
    "Shared storages are counted for each node",
)
trap(
    "T12",
    "Which disks are worn out most?",
    query("node_disks", "node", "device", "wearout", order="-wearout", limit=3),
    "wearout is the remaining life: 100 is new",
)
trap(
    "T13",
    "How much memory has 171? (another value waits for its restart)",
    query("qemu_configs", "name", "memory_mb", where=[("vmid", "=", 171)]),
    "Configuration changes wait for a restart on prod: guests 171",
)
trap(
    "T14",
    "Who waits for disks on home-lab, which is older than PSI?",
    query("node_metrics", "node", "pressure_io", cluster_name="home-lab"),
    "Proxmox VE records it from 9.0 on",
)
trap(
    "T15",
    "Which backups on home-lab failed their verification?",
    query("backups", "volid", where=[("verified", "=", "no")], cluster_name="home-lab"),
    "only Proxmox Backup Server does that",
)
trap(
    "T16",
    "Top guests by memory",
    query("guests", "name", "memory", order="-memory", limit=3),
    "Did you mean memory_usage or memory_max",
)
trap(
    "T17",
    "All backups",
    call("ListBackups"),
    "for the next page repeat the call with cursor",
    tokens=4_500,
)


@question(
    "T18",
    "Which containers are off? (those on pve05 are unknown)",
    call("ListVms", status="stopped", type="lxc"),
)
def unknown_states(demo, answer):
    stopped = demo.vmids(lambda guest: guest.kind is Kind.LXC and not guest.running)
    yield answer.set("cluster", "vmid"), stopped
    yield "is unknown, so this filter by state leaves them out" in answer.notes, True
