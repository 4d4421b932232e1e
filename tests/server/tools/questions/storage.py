"""Questions on storages, disks and snapshots."""

from collections import Counter
from itertools import groupby

from proxmox_client.emulator.state.guest import Kind

from .model import call, query, question

DAY = 86_400


def snapshots(demo, fits):
    """Return VMID and name of the snapshots that fit, of guests on online nodes."""
    return {
        (guest.vmid, snapshot.name)
        for _, guest in demo.guests()
        for snapshot in guest.snapshots.values()
        if fits(snapshot)
    }


@question(
    "B9",
    "Which snapshots are forgotten, and how much space do they hold?",
    query("snapshots", "vmid", "name", "date", "size", where=[("date", "<", "-90d")]),
    lacks="the space that snapshots hold: Proxmox does not report it",
)
def old_snapshots(demo, answer):
    old = snapshots(demo, lambda snapshot: snapshot.time < demo.now - 90 * DAY)
    yield answer.set("vmid", "name"), old
    yield "Proxmox does not report the space of disks" in answer.notes, True


@question(
    "B23",
    "When is local-lvm full?",
    call("ListStorageRrdData", storage="local-lvm"),
)
def when_a_storage_is_full(demo, answer):
    [row] = answer.data
    storage = demo.home.storages["local-lvm"]
    used = storage.used("pve")
    yield round(row["disk_usage_percentage"]), round(100 * used / storage.total)
    yield round(row["growth_per_day"] / (used * 0.0011), 1), 1.0
    yield row["full_on"][:4], "2028"


@question(
    "B55",
    "Are the thin pools overprovisioned?",
    query(
        "disks",
        "storage",
        "node",
        "SUM(size) as provisioned",
        "storage.disk_total",
        where=[("storage.plugin_type", "IN", ["lvmthin", "zfspool"])],
        group=["storage", "node", "storage.disk_total"],
    ),
)
def provisioned_space(demo, answer):
    sums = Counter()
    for state, guest in demo.guests():
        for disk in guest.disks():
            if state.storages[disk.storage].type in ("lvmthin", "zfspool"):
                sums[disk.storage, guest.node] += disk.size
    found = {(r["storage"], r["node"]): r["provisioned"] for r in answer.data}
    yield found, dict(sums)
    totals = {s.name: s.total for state in demo.states.values() for s in state.storages.values()}
    yield {row["storage.disk_total"] == totals[row["storage"]] for row in answer.data}, {True}


@question(
    "B60",
    "Are there orphaned disks?",
    query("disks", "vmid", "volume", where=[("id", "STARTSWITH", "unused")]),
    query(
        "storage_content",
        "volid",
        "vmid",
        "size",
        where=[("content", "IN", ["images", "rootdir"]), ("guest.vmid", "IS NULL")],
    ),
)
def orphaned_disks(demo, unused, without_guest):
    listed = {
        (g.vmid, value)
        for _, g in demo.guests()
        for key, value in g.config.items()
        if key.startswith("unused")
    }
    yield unused.set("vmid", "volume"), listed
    orphans = {
        volume.volid
        for state in demo.states.values()
        for storage in state.storages.values()
        for volume in storage.everything()
        if volume.content in ("images", "rootdir") and volume.vmid not in state.guests
    }
    yield without_guest.set("volid"), orphans
    yield bool(listed and orphans), True


@question(
    "B68",
    "Which guests have more than one snapshot?",
    query(
        "snapshots",
        "cluster",
        "vmid",
        "COUNT(*) as snapshots",
        group=["cluster", "vmid"],
        having=[("snapshots", ">", 1)],
    ),
)
def snapshot_chains(demo, answer):
    chains = {(s.name, g.vmid, len(g.snapshots)) for s, g in demo.guests() if len(g.snapshots) > 1}
    yield answer.set("cluster", "vmid", "snapshots"), chains


@question(
    "B74",
    "Quali snapshot contengono la RAM?",
    query("snapshots", "vmid", "name", where=[("include_ram", "=", "true")]),
)
def snapshots_with_memory(demo, answer):
    with_ram = {
        (guest.vmid, snapshot.name)
        for _, guest in demo.guests(lambda guest: guest.kind is Kind.QEMU)
        for snapshot in guest.snapshots.values()
        if snapshot.with_ram
    }
    yield answer.set("vmid", "name"), with_ram


@question(
    "N15", "when does pbs-main run out of space?", call("ListStorageRrdData", storage="pbs-main")
)
def shared_storage_once(demo, answer):
    yield len(answer.data), 1
    storage = demo.prod.storages["pbs-main"]
    free = storage.total - storage.used("pve01")
    yield abs(answer.data[0]["disk_free"] - free) < 0.001 * free, True


@question(
    "N16",
    "how much do VMs claim on ceph-vm, and how much does it have",
    query("disks", "SUM(size) as provisioned", where=[("storage", "=", "ceph-vm")]),
    query(
        "storages",
        "storage",
        "disk_total",
        "disk_free",
        where=[("storage", "=", "ceph-vm"), ("is_primary", "=", "yes")],
    ),
)
def provisioned_on_a_shared_storage(demo, disks, storages):
    sizes = [d.size for _, g in demo.guests() for d in g.disks() if d.storage == "ceph-vm"]
    yield disks.column("provisioned"), [sum(sizes)]
    yield storages.column("disk_total"), [demo.prod.storages["ceph-vm"].total]
    yield "pve05" in disks.notes, True


@question(
    "N17",
    "ISOs older than two years, what can go?",
    query(
        "storage_content",
        "storage",
        "volid",
        "size",
        where=[("content", "=", "iso"), ("creation", "<", "-700d")],
    ),
)
def old_images(demo, answer):
    old = {
        volume.volid
        for state in demo.states.values()
        for storage in state.storages.values()
        for volume in storage.everything()
        if volume.content == "iso" and volume.ctime < demo.now - 700 * DAY
    }
    yield answer.set("volid"), old


@question(
    "N18",
    "pre-patch snapshots per node on prod",
    query(
        "snapshots",
        "node",
        "COUNT(*) as snapshots",
        where=[("name", "STARTSWITH", "pre-patch")],
        group=["node"],
        cluster_name="prod",
    ),
)
def snapshots_by_node(demo, answer):
    nodes = sorted(
        g.node
        for s, g in demo.guests()
        for name in g.snapshots
        if s is demo.prod and name.startswith("pre-patch")
    )
    counts = {node: len(list(group)) for node, group in groupby(nodes)}
    yield dict(answer.column("node", "snapshots")), counts
    yield "pve05" in answer.notes, True


@question(
    "N19",
    "storages over 80% full",
    query(
        "storages",
        "cluster",
        "storage",
        "node",
        "disk_usage_percentage",
        where=[("disk_usage_percentage", ">", "80")],
    ),
)
def full_storages(demo, answer):
    full = {
        (state.name, storage.name)
        for state in demo.states.values()
        for storage in state.storages.values()
        for node in state.nodes.values()
        if node.online and storage.used(node.name) > 0.8 * storage.total
    }
    yield answer.set("cluster", "storage"), full
    yield bool(full), True


@question(
    "N20",
    "Which disk of which guest is the biggest? Top 3",
    query("disks", "vmid", "vm_name", "id", "size", order="-size", limit=3),
)
def largest_disks(demo, answer):
    sizes = sorted((d.size for _, g in demo.guests() for d in g.disks()), reverse=True)
    yield answer.column("size"), sizes[:3]


@question(
    "B34",
    "VMs mit weniger als 10 % freiem Platz?",
    query(
        "filesystems",
        "vmid",
        "vm_name",
        "mount_point",
        "usage_percentage",
        where=[("type", "=", "qemu"), ("usage_percentage", ">", "90")],
    ),
)
def full_file_systems(demo, answer):
    full = {
        guest.vmid
        for _, guest in demo.guests(lambda g: g.running and g.kind is Kind.QEMU)
        if guest.agent and guest.agent.answers and guest.agent.disk_used > 0.9
    }
    yield answer.set("vmid"), full
    yield bool(full), True
    yield "No QEMU guest agent configured" in answer.notes, True
