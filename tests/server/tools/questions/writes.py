"""Questions that ask for a change, run as real writes, and what no tool does yet."""

import json

from pvemcp_server.access.model import Caller, Grant, Role
from pvemcp_server.mcp.instructions import instructions
from pvemcp_server.toolkit.registry import tools

from .model import call, query, question


def instructed():
    """Return the instructions of a key that may use every tool."""
    every = Role(1, "test", "", (Grant(frozenset(tools())),))
    return instructions(tools(), Caller("k", "test", every))


def no_tool(id_, words, name, phrase):
    """Declare a question that no tool answers, and what the instructions say of it instead."""

    @question(id_, words, no_tool=(name,))
    def says_so(_demo):
        yield phrase in instructed(), True

    return says_so


no_tool("B58", "Open a console on web-03", "OpenConsole", "open consoles")


@question(
    "B18",
    "Evacuate pve02",
    call("EvacuateNode", cluster_name="prod", node="pve02"),
    lambda done: call(done.data["undo"].partition(" ")[0], **back(done), wait=True),
    tokens=2_500,  # a row for each of 24 guests, there and back
    toolsets=frozenset({"maintenance"}),
    writes=True,
)
def evacuate_a_node(demo, done, returned):
    moved = [row["vmid"] for row in done.data["results"]]
    yield (done.data["success"], returned.data["success"]), (True, True)
    yield back(done)["vmids"], moved
    yield {demo.prod.guests[vmid].node for vmid in moved}, {"pve02"}


def back(done):
    return json.loads(done.data["undo"].partition(" ")[2])


@question(
    "B16",
    "Shut down everything in staging except pool infra",
    query(
        "guests",
        "vmid",
        "name",
        "pool",
        where=[
            ("tags", "CONTAINS", "staging"),
            ("status", "=", "running"),
            ("pool", "!=", "infra"),
        ],
        cluster_name="prod",
    ),
    lambda found: call(
        "ChangeVmState",
        cluster_name="prod",
        vmids=found.column("vmid"),
        action="Shutdown",
        wait=True,
    ),
    writes=True,
)
def shut_down_a_pool(demo, found, done):
    staging = [
        g for s, g in demo.guests() if s is demo.prod and demo.prod.pool_of(g.vmid) == "staging"
    ]
    yield {guest.vmid for guest in staging if guest.status == "running"}, set()
    yield [row["vmid"] for row in done.data["results"]], sorted(found.column("vmid"))
    yield done.data["success"], True


@question(
    "B17",
    "Snapshot everything in pool office before patching",
    query("guests", "vmid", "status", where=[("pool", "=", "office")]),
    lambda found: call(
        "CreateVmSnapshot",
        cluster_name="prod",
        vmids=[v for v, status in found.column("vmid", "status") if status != "unknown"],
        snapshot_name="patching",
        wait=True,
    ),
    writes=True,
)
def snapshots_of_a_pool(demo, found, done):
    office = [
        g for s, g in demo.guests() if s is demo.prod and demo.prod.pool_of(g.vmid) == "office"
    ]
    yield {guest.vmid for guest in office if "patching" not in guest.snapshots}, set()
    yield done.data["success"], True


@question(
    "B20",
    "Clone a VM from tpl-debian-13 into production with 4 GB, start it, what is its address?",
    call(
        "CloneVm",
        source="tpl-debian-13",
        name="web-21",
        pool="production",
        memory=4096,
        start=True,
        wait=True,
    ),
    calls=1,
    writes=True,
)
def clone_a_template(demo, done):
    guest = demo.guest("web-21")
    yield (done.data["vmid"], done.data["ip_addresses"]), (guest.vmid, list(guest.addresses))
    yield (guest.running, str(guest.config["memory"])), (True, "4096")
    yield demo.prod.pool_of(guest.vmid), "production"


@question(
    "B37",
    "restrt the nginx websrver on homelab",
    query("guests", where=[("name", "CONTAINS", "nginx")]),
    lambda found: call(
        "ChangeVmState",
        cluster_name="home-lab",
        vmids=found.column("vmid"),
        action="Reboot",
        wait=True,
    ),
    writes=True,
)
def reboot_a_container(demo, found, done):
    guest = demo.guest("nginx-proxy")
    yield found.column("cluster", "vmid"), [("home-lab", guest.vmid)]
    yield done.failed, False
    yield guest.running and guest.uptime(demo.now) < 3600, True


@question(
    "B38",
    "Move the disk of db-primary to local-zfs",
    query(
        "disks",
        "vmid",
        "id",
        "storage",
        where=[("guest.name", "=", "db-primary"), ("media", "=", "disk")],
        cluster_name="prod",
    ),
    lambda found: [
        call(
            "MoveVmDisk",
            cluster_name="prod",
            vmid=vmid,
            disk=disk,
            target_storage="local-zfs",
            wait=True,
        )
        for vmid, disk in found.column("vmid", "id")[:1]
    ],
    toolsets=frozenset({"maintenance"}),
    writes=True,
)
def move_a_disk(demo, found, done):
    guest = demo.guest("db-primary")
    vmid, disk = found.column("vmid", "id")[0]
    yield (done.failed, vmid), (False, guest.vmid)
    yield guest.config[disk].partition(":")[0], "local-zfs"


@question(
    "B83",
    "Add a 20 GB disk to db-primary on ceph-vm",
    query("guests", "vmid", where=[("name", "=", "db-primary")], cluster_name="prod"),
    lambda found: call(
        "AttachDisk",
        cluster_name="prod",
        vmid=found.column("vmid")[0],
        volume="ceph-vm:20",
        wait=True,
    ),
    toolsets=frozenset({"lifecycle"}),
    writes=True,
)
def add_a_disk(demo, found, done):
    guest = demo.guest("db-primary")
    yield (done.failed, found.column("vmid")), (False, [guest.vmid])
    [disk] = [each for each in guest.disks() if each.slot == done.data["disk"]]
    yield (disk.storage, disk.size), ("ceph-vm", 20 << 30)


@question(
    "B39",
    "Give 106 4 GB more memory",
    query("guests", "vmid", "memory_max", where=[("vmid", "=", 106)], cluster_name="prod"),
    lambda found: call(
        "UpdateVmConfig",
        cluster_name="prod",
        vmids=[106],
        memory=found.column("memory_max")[0] // 2**20 + 4096,
    ),
    writes=True,
)
def more_memory(demo, found, done):
    guest = demo.prod.guests[106]
    yield done.failed, False
    yield int(guest.pending["memory"]), int(guest.config["memory"]) + 4096


@question(
    "B50",
    "Stop the running task",
    query("tasks", "upid", "type", "id", where=[("outcome", "=", "running")], cluster_name="prod"),
    lambda found: [
        call("StopTask", cluster_name="prod", upid=upid) for upid in found.column("upid")
    ],
    toolsets=frozenset({"maintenance"}),
    writes=True,
)
def stop_what_runs(demo, found, *done):
    yield len(done), len(found.data)
    yield {u for u in found.column("upid") if demo.prod.tasks[u].running}, set()


@question(
    "B51",
    "Unlock VM 118",
    call("UnlockVm", cluster_name="prod", vmid=118),
    toolsets=frozenset({"maintenance"}),
    calls=1,
    writes=True,
)
def unlock_a_guest(demo, done):
    yield (done.failed, done.text.endswith("on prod is not locked.")), (True, True)
    yield demo.prod.guests[118].lock, ""


@question(
    "B80",
    "Delete the snapshots that are older than a year",
    query("snapshots", "cluster", "vmid", "name", "date", where=[("date", "<", "-1y")]),
    lambda found: [
        call(
            "DeleteVmSnapshot",
            cluster_name=row["cluster"],
            vmids=[row["vmid"]],
            snapshot_name=row["name"],
            wait=True,
        )
        for row in found.data  # their names differ
    ],
    calls=6,
    writes=True,
)
def delete_old_snapshots(demo, found, *done):
    year = 365 * 86_400
    left = [s for _, g in demo.guests() for s in g.snapshots.values() if s.time < demo.now - year]
    yield left, []
    yield len(done) == len(found.data) > 1, True


@question(
    "B82",
    "Bring web-08 back up",
    query("guests", where=[("name", "=", "web-08")]),
    lambda found: call(
        "ChangeVmState", vmids=found.column("vmid"), cluster_name="prod", action="Start", wait=True
    ),
    writes=True,
)
def start_a_guest(demo, found, done):
    yield done.failed, False
    yield demo.guest("web-08").status, "running"


@question(
    "N44",
    "stop vm 104 in prod now",
    call("ChangeVmState", vmids=[104], cluster_name="prod", action="Stop"),
    writes=True,
)
def guest_of_an_offline_node(demo, refusal):
    yield refusal.failed and "pve05" in refusal.text and "offline" in refusal.text, True
    yield demo.prod.guests[104].node, "pve05"


@question(
    "N45", "start tpl-debian-13", call("ChangeVmState", vmids=[9000], action="Start"), writes=True
)
def start_a_template(demo, refusal):
    yield refusal.failed and "template" in refusal.text, True
    yield demo.prod.guests[9000].status, "stopped"


@question(
    "N46",
    "Lösche die älteste ungeschützte Archivsicherung von 105",
    query(
        "backups",
        "cluster",
        "node",
        "storage",
        "volid",
        "creation",
        where=[("vmid", "=", 105), ("storage", "=", "nfs-archive"), ("protected", "=", "no")],
        order="creation",
        limit=1,
    ),
    lambda found: call(
        "DeleteBackup",
        cluster_name="prod",
        node=found.data[0]["node"],
        storage="nfs-archive",
        volid=found.data[0]["volid"],
        wait=True,
    ),
    writes=True,
)
def delete_the_oldest_backup(demo, found, done):
    yield done.failed, False
    left = [v.volid for v in demo.prod.storages["nfs-archive"].everything() if v.vmid == 105]
    yield found.data[0]["volid"] in left, False
    yield len(left), 3


@question(
    "N47",
    "migrate 105 to pve05",
    call("MigrateVm", cluster_name="prod", vmids=[105], target_node="pve05", online=True),
    writes=True,
)
def migrate_to_an_offline_node(demo, refusal):
    yield refusal.failed and "offline" in refusal.text, True
    yield demo.prod.guests[105].node, "pve01"
