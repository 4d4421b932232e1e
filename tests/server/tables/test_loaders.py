"""Each table's rows, compared with the state of the emulated clusters."""

from dataclasses import replace
from time import monotonic

import anyio
import msgspec
import pytest

from proxmox_client import ApiToken, Client, Tls
from proxmox_client.api.ha import HaResource, HaStatus
from proxmox_client.emulator import Clock, Emulator, Scenario
from proxmox_client.emulator.state.storage import Volume
from pvemcp_server.access.model import EVERYTHING, Resources
from pvemcp_server.clusters import Cluster, Inventory, Notes
from pvemcp_server.tables import ha, load, tables
from pvemcp_server.tables.registry import Budget, LoadRequest

pytestmark = pytest.mark.anyio


def rows(name, cluster, request=None):
    return load(tables()[name], cluster, request or LoadRequest())


async def test_guests_have_their_share_of_the_node(open_cluster, pve):
    guests = {row.vmid: row for row in await rows("guests", open_cluster())}
    assert set(guests) == set(pve["prod"].state.guests)
    nodes = {row.node: row for row in await rows("nodes", open_cluster())}
    busy = max(guests.values(), key=lambda row: row.memory_usage or 0)
    share = busy.memory_usage / nodes[busy.node].memory_total * 100
    assert busy.host_memory_usage == pytest.approx(share, rel=0.1)  # the host's view has overhead
    assert busy.memory_usage_percentage == pytest.approx(
        busy.memory_usage / busy.memory_max * 100, abs=0.06
    )
    assert all(row.is_locked == (row.lock is not None) for row in guests.values())


async def test_offline_nodes_have_no_usage(open_cluster):
    nodes = {row.node: row for row in await rows("nodes", open_cluster())}
    assert nodes["pve05"].status == "offline"
    assert nodes["pve05"].cpu_usage is None
    assert nodes["pve01"].network_in_rate > 0


async def test_each_storage_has_one_primary_row(open_cluster):
    storages = await rows("storages", open_cluster())
    names = {(row.storage, "" if row.shared else row.node) for row in storages}
    primary = [(row.storage, "" if row.shared else row.node) for row in storages if row.is_primary]
    assert sorted(primary) == sorted(names)
    assert all(
        row.disk_free == row.disk_total - row.disk_usage for row in storages if row.disk_total
    )


async def test_the_current_state_is_no_snapshot(open_cluster, pve):
    snapshots = await rows("snapshots", open_cluster())
    assert snapshots
    assert "current" not in {row.name for row in snapshots}
    online = {n.name for n in pve["prod"].state.nodes.values() if n.online}
    truth = sum(
        len(guest.snapshots) for guest in pve["prod"].state.guests.values() if guest.node in online
    )
    assert len(snapshots) == truth


async def test_the_size_of_a_snapshot_is_its_saved_memory():
    async with Emulator(Scenario.cluster("lab", nodes=1), clock=Clock(500.0)) as emulator:
        lab = emulator["lab"]
        auth, tls = ApiToken(*lab.token), Tls(ca_pem=lab.ca_pem)
        async with Client(lab.hosts, auth, tls=tls) as pve:
            cluster = Cluster(
                "lab", "", pve, lab.token[0], Inventory(pve, lambda: 60.0), EVERYTHING, Notes()
            )
            running = (row for row in await rows("guests", cluster) if row.status == "running")
            vm = next(row for row in running if row.type == "qemu")
            qemu = pve.qemu(vm.node, vm.vmid)
            with anyio.fail_after(20):
                await (await qemu.create_snapshot("with-ram", include_memory=True)).wait()
                await (await qemu.create_snapshot("without")).wait()
            volid = (await qemu.config(snapshot="with-ram")).vmstate
            memory = Volume(volid, "images", "raw", 3 * 2**30, 0, vm.vmid)
            lab.state.storages[volid.partition(":")[0]].put(vm.node, memory)
            snapshots = await rows("snapshots", cluster, LoadRequest(vmids=frozenset({vm.vmid})))
    sizes = {row.name: row.size for row in snapshots}
    assert sizes == {"with-ram": 3 * 2**30, "without": None}


async def test_a_backup_on_a_shared_storage_is_there_once(open_cluster):
    backups = await rows("backups", open_cluster())
    volids = [row.volid for row in backups]
    assert len(volids) == len(set(volids))
    at = await rows("backups", open_cluster(), LoadRequest(nodes=frozenset({"pve02"})))
    assert {row.node for row in at} == {"pve02"}
    assert {row.volid for row in at if row.storage == "pbs-main"} == {
        row.volid for row in backups if row.storage == "pbs-main"
    }


async def test_storage_content_of_one_kind(open_cluster):
    volumes = await rows("storage_content", open_cluster(), LoadRequest(types=frozenset({"iso"})))
    assert volumes
    assert {row.content for row in volumes} == {"iso"}


async def test_backup_jobs_have_their_guests_and_last_run(open_cluster, pve):
    jobs = {row.id: row for row in await rows("backup_jobs", open_cluster())}
    state = pve["prod"].state
    assert jobs["backup-nightly"].all_guests
    assert set(jobs["backup-nightly"].vmids) <= set(state.guests)
    assert len(jobs["backup-nightly"].vmids) > 50
    assert jobs["backup-archive"].last_run is not None
    assert jobs["backup-archive"].last_run_upid.startswith("UPID:")
    staging = {vmid for vmid in state.guests if state.pool_of(vmid) == "staging"}
    assert set(jobs["backup-staging"].vmids) == staging
    assert jobs["backup-staging"].last_run is None


async def test_backup_jobs_have_visible_guests_only(open_cluster):
    scope = Resources(vmids=frozenset({101, 162}))
    jobs = {row.id: row for row in await rows("backup_jobs", open_cluster("prod", scope))}
    assert jobs["backup-archive"].vmids == [101]
    assert jobs["backup-staging"].vmids == [162]
    none = Resources(vmids=frozenset({9001}))
    covered = [row.vmids for row in await rows("backup_jobs", open_cluster("prod", none))]
    assert all(vmids == [9001] for vmids in covered)


@pytest.mark.parametrize("path", ["/nodes/[^/]*/tasks", "/cluster/backup/"])
async def test_failures_of_hidden_nodes_and_jobs_are_noted_unnamed(open_cluster, pve, path):
    cluster = open_cluster("prod", Resources(vmids=frozenset({162})))
    fault = pve["prod"].fault("error", path=path)
    try:
        await rows("backup_jobs", cluster)
    finally:
        pve["prod"].faults.remove(fault)
    assert list(cluster.notes) == ["A part of prod did not answer; rows may be missing."]


async def test_pools_have_visible_members_only(open_cluster):
    scope = Resources(pools=frozenset({"staging"}))
    pools = await rows("pools", open_cluster("prod", scope))
    assert [row.poolid for row in pools] == ["staging"]
    assert pools[0].guest_count == len(pools[0].members) == 12


async def test_a_storage_is_in_its_pool_on_every_node(open_cluster, pve):
    storages = [
        row for row in await rows("storages", open_cluster()) if row.storage == "nfs-archive"
    ]
    assert {row.node for row in storages} == set(pve["prod"].state.nodes)
    assert {row.pool for row in storages} == {"production"}


async def test_tasks_come_newest_first_and_by_outcome(open_cluster):
    tasks = await rows("tasks", open_cluster())
    started = [row.start_time for row in tasks]
    assert started == sorted(started, reverse=True)
    failed = await rows("tasks", open_cluster(), LoadRequest(status=frozenset({"error"})))
    assert {row.upid for row in failed} == {row.upid for row in tasks if row.outcome == "error"}
    assert {row.outcome for row in tasks} >= {"ok", "error"}


async def test_a_key_for_a_guest_sees_its_tasks_on_hidden_nodes(open_cluster):
    every_task = await rows("tasks", open_cluster())
    vmid = next(row.vmid for row in every_task if row.vmid)
    cluster = open_cluster("prod", Resources(vmids=frozenset({vmid})))
    tasks = await rows("tasks", cluster)
    assert {row.upid for row in tasks} == {row.upid for row in every_task if row.vmid == vmid}
    unnamed, latest = cluster.notes
    assert unnamed == "A part of prod did not answer; rows may be missing."
    assert latest.startswith("Only the latest")  # whether or not there are more


async def test_a_limit_counts_visible_tasks_only(open_cluster):
    every_task = await rows("tasks", open_cluster())
    oldest = next(row.vmid for row in reversed(every_task) if row.vmid)
    cluster = open_cluster("prod", Resources(vmids=frozenset({oldest})))
    tasks = await rows("tasks", cluster, LoadRequest(limit=1))
    assert {row.upid for row in tasks} == {row.upid for row in every_task if row.vmid == oldest}


async def test_replications_have_their_state(open_cluster, pve):
    replications = {row.id: row for row in await rows("replications", open_cluster())}
    assert set(replications) == set(pve["prod"].state.replications)
    failing = [row for row in replications.values() if row.fail_count]
    assert failing
    assert all(row.error and row.ok is False for row in failing)


async def test_only_nodes_of_visible_guests_are_asked_for_replications(open_cluster, pve):
    cluster = open_cluster("prod", Resources(vmids=frozenset({100})))
    fault = pve["prod"].fault("error", path="/nodes/[^/]*/replication", message="on fire")
    try:
        replications = await rows("replications", cluster)
    finally:
        pve["prod"].faults.remove(fault)
    assert [row.vmid for row in replications] == [100]
    node = pve["prod"].state.guests[100].node
    assert list(cluster.notes) == [
        f"Missing from prod: state of replications of node {node}. Proxmox: 'on fire'."
    ]


async def test_ha_resources_have_requested_and_current_state(open_cluster):
    resources = await rows("ha_resources", open_cluster())
    assert {row.sid for row in resources} == {f"vm:{row.vmid}" for row in resources}
    assert all(row.requested_state == "started" and row.node for row in resources)


def test_options_of_ha_without_a_value_have_the_default_that_the_manager_reports():
    status = HaStatus(id="x", max_restart=1, max_relocate=1, failback=True)
    row = ha._row(HaResource(sid="vm:101", max_restart=0), status)
    assert (row.max_restart, row.max_relocate, row.failback) == (0, 1, True)


@pytest.mark.parametrize(("lock", "shown"), [("", None), (None, None), ("backup", "backup")])
async def test_an_empty_lock_is_none(open_cluster, pve, lock, shown):
    cluster = open_cluster()
    view = await cluster.inventory_view()
    guest = msgspec.structs.replace(view.by_vmid[101], lock=lock)
    cluster._view = replace(view, guests=(guest,), derived={})
    [row] = await rows("guests", cluster)
    assert (row.lock, row.is_locked) == (shown, shown is not None)


async def test_configurations_disks_and_networks_of_a_guest(open_cluster, pve):
    guest = pve["prod"].state.guests[101]
    request = LoadRequest(vmids=frozenset({101}))
    config = (await rows("qemu_configs", open_cluster(), request))[0]
    assert (config.vmid, config.name, config.node) == (101, guest.name, guest.node)
    assert config.memory_mb * 2**20 == (await rows("guests", open_cluster(), request))[0].memory_max
    disks = await rows("disks", open_cluster(), request)
    assert any(row.bus == "scsi" and row.size for row in disks)
    networks = await rows("networks", open_cluster(), request)
    assert networks[0].mac.count(":") == 5
    assert await rows("lxc_configs", open_cluster(), request) == []


async def test_a_guest_on_an_offline_node_costs_no_call(open_cluster, pve):
    down = {v for v, guest in pve["prod"].state.guests.items() if guest.node == "pve05"}
    cluster = open_cluster()
    networks = await rows("networks", cluster, LoadRequest(vmids=frozenset(down)))
    assert networks == []
    assert list(cluster.notes) == ["Offline on prod, so missing here: pve05."]


async def test_node_disks_have_size_and_health(open_cluster):
    disks = await rows("node_disks", open_cluster(), LoadRequest(nodes=frozenset({"pve01"})))
    assert {row.node for row in disks} == {"pve01"}
    assert all(row.size and row.health for row in disks)


async def test_permissions_of_visible_paths_only(open_cluster):
    every_permission = await rows("permissions", open_cluster())
    assert "/" in {row.path for row in every_permission}
    scope = Resources(vmids=frozenset({101}), storages=frozenset({"pbs-main"}))
    permissions = await rows("permissions", open_cluster("prod", scope))
    assert {row.path for row in permissions} <= {"/vms/101", "/storage/pbs-main"}


async def test_clusters_report_whether_they_answer(open_cluster, pve):
    cluster = (await rows("clusters", open_cluster("home-lab")))[0]
    assert (cluster.name, cluster.reachable, cluster.nodes) == ("home-lab", True, 1)
    assert cluster.version.startswith("8.4")


async def test_rows_beyond_the_budget_are_noted(open_cluster):
    cluster = open_cluster()
    configs = await rows("qemu_configs", cluster, LoadRequest(budget=Budget(calls=3)))
    assert len(configs) == 3
    assert any("not read: the call's budget was used up" in note for note in cluster.notes)
    late = open_cluster()
    assert await rows("qemu_configs", late, LoadRequest(budget=Budget(until=monotonic() - 1))) == []
    assert any("Incomplete" in note for note in late.notes)
