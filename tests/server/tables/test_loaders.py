"""Each table against the truth of the emulated clusters."""

from time import monotonic

import anyio
import pytest

from proxmox_client import ApiToken, Client, Tls
from proxmox_client.emulator import Clock, Emulator, Scenario
from proxmox_client.emulator.state.storage import Volume
from pvemcp_server.access.model import EVERYTHING, Resources
from pvemcp_server.clusters import Cluster, Inventory, Notes
from pvemcp_server.tables import load, rows_of, tables
from pvemcp_server.tables.registry import Budget, LoadRequest

pytestmark = pytest.mark.anyio


def rows(name, cluster, want=None):
    return load(tables()[name], cluster, want or LoadRequest())


async def test_guests_have_their_share_of_the_node(reach, pve):
    found = {row.vmid: row for row in await rows("guests", reach())}
    assert set(found) == set(pve["prod"].state.guests)
    nodes = {row.node: row for row in await rows("nodes", reach())}
    busy = max(found.values(), key=lambda row: row.memory_usage or 0)
    share = busy.memory_usage / nodes[busy.node].memory_total * 100
    assert busy.host_memory_usage == pytest.approx(share, rel=0.1)  # the host's view has overhead
    assert busy.memory_usage_percentage == pytest.approx(
        busy.memory_usage / busy.memory_max * 100, abs=0.06
    )
    assert all(row.is_locked == (row.lock is not None) for row in found.values())


async def test_nodes_that_are_offline_have_no_figures(reach):
    found = {row.node: row for row in await rows("nodes", reach())}
    assert found["pve05"].status == "offline"
    assert found["pve05"].cpu_usage is None
    assert found["pve01"].network_in > 0


async def test_each_storage_has_one_primary_row(reach):
    found = await rows("storages", reach())
    names = {(row.storage, "" if row.shared else row.node) for row in found}
    primary = [(row.storage, "" if row.shared else row.node) for row in found if row.is_primary]
    assert sorted(primary) == sorted(names)
    assert all(row.disk_free == row.disk_total - row.disk_usage for row in found if row.disk_total)


async def test_snapshots_have_no_current_among_them(reach, pve):
    found = await rows("snapshots", reach())
    assert found
    assert "current" not in {row.name for row in found}
    online = {n.name for n in pve["prod"].state.nodes.values() if n.online}
    truth = sum(
        len(guest.snapshots) for guest in pve["prod"].state.guests.values() if guest.node in online
    )
    assert len(found) == truth


async def test_the_size_of_a_snapshot_is_that_of_its_saved_memory():
    async with Emulator(Scenario.cluster("lab", nodes=1), clock=Clock(500.0)) as emulator:
        one = emulator["lab"]
        auth, tls = ApiToken(*one.token), Tls(ca_pem=one.ca_pem)
        async with Client(one.hosts, auth, tls=tls) as pve:
            cluster = Cluster(
                "lab", "", pve, one.token[0], Inventory(pve, lambda: 60.0), EVERYTHING, Notes()
            )
            running = (row for row in await rows("guests", cluster) if row.status == "running")
            vm = next(row for row in running if row.type == "qemu")
            qemu = pve.qemu(vm.node, vm.vmid)
            with anyio.fail_after(20):
                await (await qemu.create_snapshot("with-ram", include_memory=True)).wait()
                await (await qemu.create_snapshot("without")).wait()
            volid = (await qemu.config(snapshot="with-ram")).vmstate
            memory = Volume(volid, "images", "raw", 3 * 2**30, 0, vm.vmid)
            one.state.storages[volid.partition(":")[0]].put(vm.node, memory)
            found = await rows("snapshots", cluster, LoadRequest(vmids=frozenset({vm.vmid})))
    sizes = {row.name: row.size for row in found}
    assert sizes == {"with-ram": 3 * 2**30, "without": None}


async def test_a_backup_on_a_shared_storage_is_there_once(reach):
    found = await rows("backups", reach())
    volids = [row.volid for row in found]
    assert len(volids) == len(set(volids))
    at = await rows("backups", reach(), LoadRequest(nodes=frozenset({"pve02"})))
    assert {row.node for row in at} == {"pve02"}
    assert {row.volid for row in at if row.storage == "pbs-main"} == {
        row.volid for row in found if row.storage == "pbs-main"
    }


async def test_storage_content_of_one_kind(reach):
    found = await rows("storage_content", reach(), LoadRequest(types=frozenset({"iso"})))
    assert found
    assert {row.content for row in found} == {"iso"}


async def test_backup_jobs_tell_whom_they_cover_and_how_they_last_ran(reach, pve):
    found = {row.id: row for row in await rows("backup_jobs", reach())}
    state = pve["prod"].state
    assert found["backup-nightly"].all_guests
    assert set(found["backup-nightly"].vmids) <= set(state.guests)
    assert len(found["backup-nightly"].vmids) > 50
    assert found["backup-archive"].last_run is not None
    assert found["backup-archive"].last_run_upid.startswith("UPID:")
    staging = {vmid for vmid in state.guests if state.pool_of(vmid) == "staging"}
    assert set(found["backup-staging"].vmids) == staging
    assert found["backup-staging"].last_run is None


async def test_backup_jobs_are_shown_with_guests_of_the_caller_only(reach):
    scope = Resources(vmids=frozenset({101, 162}))
    found = {row.id: row for row in await rows("backup_jobs", reach("prod", scope))}
    assert found["backup-archive"].vmids == [101]
    assert found["backup-staging"].vmids == [162]
    none = Resources(vmids=frozenset({9001}))
    covered = [row.vmids for row in await rows("backup_jobs", reach("prod", none))]
    assert all(vmids == [9001] for vmids in covered)


@pytest.mark.parametrize("path", ["/nodes/[^/]*/tasks", "/cluster/backup/"])
async def test_nodes_and_jobs_of_others_are_not_named_when_backup_jobs_fail(reach, pve, path):
    cluster = reach("prod", Resources(vmids=frozenset({162})))
    fault = pve["prod"].fault("error", path=path)
    try:
        await rows("backup_jobs", cluster)
    finally:
        pve["prod"].faults.remove(fault)
    assert list(cluster.notes) == ["A part of prod did not answer; rows may be missing."]


async def test_pools_are_shown_with_members_of_the_caller_only(reach):
    scope = Resources(pools=frozenset({"staging"}))
    found = await rows("pools", reach("prod", scope))
    assert [row.poolid for row in found] == ["staging"]
    assert found[0].guest_count == len(found[0].members) == 12


async def test_a_storage_is_in_its_pool_on_every_node(reach, pve):
    found = [row for row in await rows("storages", reach()) if row.storage == "nfs-archive"]
    assert {row.node for row in found} == set(pve["prod"].state.nodes)
    assert {row.pool for row in found} == {"production"}


async def test_tasks_come_newest_first_and_by_outcome(reach):
    found = await rows("tasks", reach())
    started = [row.start_time for row in found]
    assert started == sorted(started, reverse=True)
    failed = await rows("tasks", reach(), LoadRequest(status=frozenset({"error"})))
    assert {row.upid for row in failed} == {row.upid for row in found if row.outcome == "error"}
    assert {row.outcome for row in found} >= {"ok", "error"}


async def test_a_key_for_a_guest_sees_its_tasks_on_any_node(reach):
    whole = await rows("tasks", reach())
    vmid = next(row.vmid for row in whole if row.vmid)
    cluster = reach("prod", Resources(vmids=frozenset({vmid})))
    found = await rows("tasks", cluster)
    assert {row.upid for row in found} == {row.upid for row in whole if row.vmid == vmid}
    assert list(cluster.notes) == ["A part of prod did not answer; rows may be missing."]


async def test_a_limit_counts_the_tasks_that_the_caller_sees(reach):
    whole = await rows("tasks", reach())
    oldest = next(row.vmid for row in reversed(whole) if row.vmid)
    cluster = reach("prod", Resources(vmids=frozenset({oldest})))
    found = await rows("tasks", cluster, LoadRequest(limit=1))
    assert {row.upid for row in found} == {row.upid for row in whole if row.vmid == oldest}


async def test_replications_tell_their_state(reach, pve):
    found = {row.id: row for row in await rows("replications", reach())}
    assert set(found) == set(pve["prod"].state.replications)
    failing = [row for row in found.values() if row.fail_count]
    assert failing
    assert all(row.error and row.ok is False for row in failing)


async def test_only_nodes_of_visible_guests_are_asked_for_their_replications(reach, pve):
    cluster = reach("prod", Resources(vmids=frozenset({100})))
    fault = pve["prod"].fault("error", path="/nodes/[^/]*/replication", message="on fire")
    try:
        found = await rows("replications", cluster)
    finally:
        pve["prod"].faults.remove(fault)
    assert [row.vmid for row in found] == [100]
    node = pve["prod"].state.guests[100].node
    assert list(cluster.notes) == [
        f"Missing from prod: state of replications of node {node}. on fire"
    ]


async def test_ha_resources_tell_the_state_wanted_and_the_state_reached(reach):
    found = await rows("ha_resources", reach())
    assert {row.sid for row in found} == {f"vm:{row.vmid}" for row in found}
    assert all(row.requested_state == "started" and row.node for row in found)


async def test_configurations_disks_and_networks_of_guests(reach, pve):
    one = pve["prod"].state.guests[101]
    want = LoadRequest(vmids=frozenset({101}))
    config = (await rows("qemu_configs", reach(), want))[0]
    assert (config.vmid, config.name, config.node) == (101, one.name, one.node)
    assert config.memory_mb * 2**20 == (await rows("guests", reach(), want))[0].memory_max
    disks = await rows("disks", reach(), want)
    assert any(row.bus == "scsi" and row.size for row in disks)
    networks = await rows("networks", reach(), want)
    assert networks[0].mac.count(":") == 5
    assert await rows("lxc_configs", reach(), want) == []


async def test_a_guest_on_a_node_that_is_offline_costs_no_call(reach, pve):
    down = {v for v, guest in pve["prod"].state.guests.items() if guest.node == "pve05"}
    cluster = reach()
    found = await rows("networks", cluster, LoadRequest(vmids=frozenset(down)))
    assert found == []
    assert list(cluster.notes) == ["Offline on prod, so missing here: pve05."]


async def test_node_disks_tell_their_health(reach):
    found = await rows("node_disks", reach(), LoadRequest(nodes=frozenset({"pve01"})))
    assert {row.node for row in found} == {"pve01"}
    assert all(row.size and row.health for row in found)


async def test_permissions_are_shown_of_paths_that_the_caller_reaches(reach):
    whole = await rows("permissions", reach())
    assert "/" in {row.path for row in whole}
    scope = Resources(vmids=frozenset({101}), storages=frozenset({"pbs-main"}))
    found = await rows("permissions", reach("prod", scope))
    assert {row.path for row in found} <= {"/vms/101", "/storage/pbs-main"}


async def test_clusters_tell_whether_they_answer(reach, pve):
    found = (await rows("clusters", reach("home-lab")))[0]
    assert (found.name, found.reachable, found.nodes) == ("home-lab", True, 1)
    assert found.pve_version.startswith("8.4")


async def test_what_the_budget_cuts_is_noted(reach):
    cluster = reach()
    found = await rows("qemu_configs", cluster, LoadRequest(budget=Budget(calls=3)))
    assert len(found) == 3
    assert any("were not asked, the budget of one call was used up" in one for one in cluster.notes)
    late = reach()
    assert await rows("qemu_configs", late, LoadRequest(budget=Budget(until=monotonic() - 1))) == []
    assert any("Incomplete" in one for one in late.notes)


async def test_rows_of_several_clusters_name_theirs_first(reach):
    some = [(reach(name), await rows("nodes", reach(name))) for name in ("home-lab", "prod")]
    named = rows_of(some)
    assert len(named) == 6
    assert next(iter(named[0].items())) == ("cluster", "home-lab")
    assert [row["cluster"] for row in named[1:]] == ["prod"] * 5
    assert [row["node"] for row in named] == [named[n]["node"] for n in range(6)]
