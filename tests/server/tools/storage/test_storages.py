"""Lists of storages, of their content, of pools and of backup jobs."""

from datetime import UTC, datetime

import pytest

from proxmox_client.emulator import ManualClock, demo
from proxmox_client.emulator.scenario.prod_records import EXCLUDED
from proxmox_client.emulator.state.jobs import BackupJob, Pool
from pvemcp_server.access.model import Resources
from pvemcp_server.tables import backup_runs

pytestmark = pytest.mark.anyio

CLUSTERS = ("home-lab", "prod")


def iso(epoch):
    return datetime.fromtimestamp(int(epoch), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize("name", CLUSTERS)
async def test_list_storage_has_a_row_for_each_node_and_storage(tool_client, name):
    state = tool_client[name].emulated.state
    answer = await tool_client("ListStorage", cluster_name=name, detail_level="Full")
    expected = {(storage.name, node) for node in state.nodes for storage in state.storages_on(node)}
    assert {(row["storage"], row["node"]) for row in answer.data} == expected
    for row in answer.data:
        storage = state.storages[row["storage"]]
        assert (row["type"], row["shared"]) == (storage.type, storage.shared)
        assert row["is_available"] is (row["status"] == "available")
        if row["disk_usage"]:
            share = row["disk_usage"] / row["disk_total"] * 100
            assert row["disk_usage_percentage"] == pytest.approx(share, abs=0.06)


async def test_list_storage_filters_by_type(tool_client):
    answer = await tool_client("ListStorage", cluster_name="prod", type="PBS")
    assert set(answer.column("storage")) == {"pbs-main"}


async def test_list_pools_names_members(tool_client):
    state = tool_client["home-lab"].emulated.state
    answer = await tool_client("ListPools", cluster_name="home-lab")
    (row,) = answer.data
    assert (row["poolid"], row["description"]) == ("family", "What everyone depends on")
    members = {f"{state.guests[vmid].kind}/{vmid}" for vmid in state.pools["family"].vmids}
    assert set(row["members"]) == members


async def test_list_pools_names_members_of_a_pool_inside_another(demo_client):
    demo_client["home-lab"].emulated.state.pools["family/web"] = Pool("family/web", vmids={201})
    answer = await demo_client("ListPools", cluster_name="home-lab")
    assert {row["poolid"]: row["members"] for row in answer.data}["family/web"] == ["lxc/201"]
    assert answer.notes == ""


async def test_list_backups_shows_the_newest_first(tool_client):
    state = tool_client["prod"].emulated.state
    answer = await tool_client(
        "ListBackups", cluster_name="prod", node="pve01", storage="pbs-main", vmid=101
    )
    held = [volume for volume in state.storages["pbs-main"].everything() if volume.vmid == 101]
    expected = sorted(held, key=lambda volume: volume.ctime, reverse=True)
    assert answer.column("volid") == [volume.volid for volume in expected]
    assert answer.column("creation") == [iso(volume.ctime) for volume in expected]
    assert answer.column("size") == [volume.size for volume in expected]


async def test_list_backups_reads_all_storages_by_default(tool_client):
    state = tool_client["prod"].emulated.state
    answer = await tool_client("ListBackups", cluster_name="prod", vmid=101)
    expected = {
        volume.volid
        for storage in state.storages.values()
        for volume in storage.everything()
        if volume.content == "backup" and volume.vmid == 101
    }
    assert set(answer.column("volid")) == expected
    assert set(answer.column("storage")) == {"pbs-main", "nfs-archive"}


@pytest.mark.parametrize(("tool", "kind"), [("ListIsos", "iso"), ("ListTemplates", "vztmpl")])
async def test_images_and_templates_are_listed_newest_first(tool_client, tool, kind):
    tool_client.requests("prod")
    answer = await tool_client(tool, cluster_name="prod", node="pve01", storage="local")
    volumes = tool_client["prod"].emulated.state.storages["local"].volumes("pve01").values()
    expected = sorted((v for v in volumes if v.content == kind), key=lambda v: -v.ctime)
    assert answer.column("volid") == [volume.volid for volume in expected]
    assert answer.column("size") == [volume.size for volume in expected]
    assert list(answer.data[0]) == ["volid", "name", "size", "format", "creation"]
    assert len(tool_client.requests("prod")) <= 2


async def test_list_storage_content_shows_every_kind_or_one(tool_client):
    place = {"cluster_name": "prod", "node": "pve01", "storage": "local"}
    everything = await tool_client("ListStorageContent", **place)
    assert set(everything.column("content")) == {"iso", "vztmpl", "snippets"}
    snippets = await tool_client("ListStorageContent", **place, content_type="snippets")
    assert snippets.column("name") == ["cloud-init.yaml"]


async def test_storage_content_is_found_without_the_cluster_name(tool_client):
    answer = await tool_client("ListIsos", node="pve", storage="local")
    assert set(answer.column("cluster")) == {"home-lab"}


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ({"node": "pve1", "storage": "local"}, "No node 'pve1' on prod. Did you mean pve01"),
        (
            {"node": "pve01", "storage": "locl"},
            "No storage 'locl' on pve01 of prod. Did you mean local",
        ),
        ({"node": "pve05", "storage": "local"}, "Node pve05 on prod is offline."),
    ],
)
async def test_an_unknown_place_is_answered_with_the_nearest(tool_client, place, says):
    assert says in await tool_client.refused("ListIsos", cluster_name="prod", **place)


async def test_list_backup_jobs_has_guests_and_the_last_outcome(tool_client):
    answer = await tool_client("ListBackupJobs", cluster_name="prod")
    jobs = {row["id"]: row for row in answer.data}
    state = tool_client["prod"].emulated.state
    nightly = set(state.guests) - set(EXCLUDED)
    assert set(jobs["backup-nightly"]["vmids"]) == nightly
    assert jobs["backup-nightly"]["last_run_ok"] is True
    assert jobs["backup-archive"]["last_run_ok"] is False
    nightly_tasks = [t for t in state.tasks.values() if t.type == "vzdump" and not t.id]
    newest = max(task.started for task in nightly_tasks)
    ends = [task.ended - newest for task in nightly_tasks if task.started == newest]
    assert jobs["backup-nightly"]["last_run_duration"] == int(max(ends))
    assert jobs["backup-archive"]["vmids"] == [101, 102, 103, 105, 150, 200]
    for name, row in jobs.items():
        assert row["enabled"] is state.backup_jobs[name].enabled


async def test_a_run_that_failed_early_counts_as_the_last_run(demo_client):
    state = demo_client["home-lab"].emulated.state
    error = "could not activate storage 'nas-backup': storage 'nas-backup' is not online"
    lost = state.add_task("pve", "vzdump", "", "root@pam", int(state.now))
    lost.log.clear()
    lost.finish(error, state.now)
    (job,) = (await demo_client("ListBackupJobs", cluster_name="home-lab")).data
    assert (job["last_run_ok"], job["last_run_status"]) == (False, error)


async def test_ambiguous_backup_runs_are_noted(demo_client):
    state = demo_client["home-lab"].emulated.state
    state.backup_jobs["more"] = BackupJob("more", "03:00", {"vmid": "100", "storage": "nas-backup"})
    lost = state.add_task("pve", "vzdump", "", "root@pam", int(state.now))
    lost.log.clear()
    lost.finish("could not activate storage 'nas-backup': no route to host", state.now)
    answer = await demo_client("ListBackupJobs", cluster_name="home-lab")
    assert {row["id"]: row["last_run_ok"] for row in answer.data} == {
        "backup-home": True, "more": None
    }  # fmt: skip
    assert "failed before they said for which job" in answer.notes


async def test_only_scheduled_tasks_are_read_for_last_runs(tool_client):
    tool_client.requests("prod")
    await tool_client("ListBackupJobs", cluster_name="prod")
    logs = [request for request in tool_client.requests("prod") if request.endswith("/log")]
    assert logs
    assert all("root%40pam" in request for request in logs)


async def test_a_limited_search_for_last_runs_is_noted(open_client, monkeypatch):
    for name in ("_AT_ONCE", "_MOST_READ"):
        monkeypatch.setattr(backup_runs, name, 4)  # one for each node that is online
    wednesday = datetime(2026, 11, 25, 12, tzinfo=UTC).timestamp()  # days after the weekly job
    async with open_client(demo(), ManualClock(wednesday)) as demo_client:
        answer = await demo_client("ListBackupJobs", cluster_name="prod")
    last_run_ok = {row["id"]: row["last_run_ok"] for row in answer.data}
    assert (last_run_ok["backup-nightly"], last_run_ok["backup-archive"]) == (True, None)
    assert "were looked for among its newest 4 backup tasks only." in answer.notes


async def test_the_last_run_of_a_job_changes_at_night(open_client):
    clock = ManualClock(datetime(2026, 11, 25, 0, 30, tzinfo=UTC).timestamp())
    async with open_client(demo(), clock) as demo_client:
        before = (await demo_client("ListBackupJobs", cluster_name="prod")).data
        await clock.advance(3600)
        after = (await demo_client("ListBackupJobs", cluster_name="prod")).data
    nights = [
        {row["id"]: row["last_run"] for row in rows}["backup-nightly"] for rows in (before, after)
    ]
    assert nights == ["2026-11-24T01:00:00Z", "2026-11-25T01:00:00Z"]


async def test_list_backup_jobs_of_a_guest(tool_client):
    answer = await tool_client("ListBackupJobs", cluster_name="prod", vmid=110)
    assert "backup-archive" not in answer.column("id")
    assert "backup-nightly" in answer.column("id")


async def test_a_role_for_one_storage_sees_only_that_one(tool_client):
    scoped = tool_client.scoped(Resources(storages=frozenset({"local"})))
    assert set((await scoped("ListStorage")).column("storage")) == {"local"}
    error = await scoped.refused("ListIsos", cluster_name="prod", node="pve01", storage="nfs-iso")
    assert error == "No storage 'nfs-iso' on pve01 of prod. There is local."


@pytest.mark.parametrize(
    ("tool", "content"),
    [("ListIsos", "iso"), ("ListTemplates", "vztmpl"), ("ListBackups", "backup")],
)
async def test_an_unsupported_storage_is_noted_with_alternatives(tool_client, tool, content):
    place = {"cluster_name": "prod", "node": "pve01"}
    answer = await tool_client(tool, **place, storage="ceph-vm")
    assert answer.data == []
    assert f"Storage ceph-vm does not take {content} (it takes images, rootdir)." in answer.notes
    assert "These do: local" in answer.notes
    assert "does not take" not in (await tool_client(tool, **place, storage="local")).notes


@pytest.mark.parametrize("place", [{"node": "pve01"}, {}, None])
async def test_a_storage_for_other_content_is_noted_without_its_node_too(tool_client, place):
    if place is None:
        where = {"field": "storage", "operator": "=", "value": "ceph-vm"}
        query = {"from": "backups", "select": ["COUNT(*) as n"], "where": where}
        answer = await tool_client("ExecuteQuery", cluster_name="prod", query=query)
    else:
        answer = await tool_client("ListBackups", cluster_name="prod", storage="ceph-vm", **place)
    assert "Storage ceph-vm does not take backup (it takes images, rootdir)." in answer.notes


async def test_an_enabled_job_without_a_run_that_fits_is_noted(demo_client):
    jobs = demo_client["prod"].emulated.state.backup_jobs
    answer = await demo_client("ListBackupJobs", cluster_name="prod")
    assert "No run on record" not in answer.notes  # the job without a run is disabled
    jobs["backup-archive"].options["compress"] = "lzo"
    answer = await demo_client("ListBackupJobs", cluster_name="prod")
    note = "No run on record on prod fits backup-archive as configured now."
    assert note in answer.notes
    assert answer.data[0]["last_run"] is None


async def test_jobs_with_the_same_options_have_no_known_last_run(demo_client):
    state = demo_client["home-lab"].emulated.state
    home = state.backup_jobs["backup-home"]
    state.backup_jobs["twin"] = BackupJob("twin", "23:00", dict(home.options))
    fields = ["id", "last_run_ok"]
    answer = await demo_client("ListBackupJobs", cluster_name="home-lab", fields=fields)
    assert set(answer.column("last_run_ok")) == {None}
    assert "Not known on home-lab: last runs of the jobs backup-home, twin." in answer.notes
    state.backup_jobs["twin"].options["compress"] = "gzip"
    answer = await demo_client("ListBackupJobs", cluster_name="home-lab")
    assert dict(zip(answer.column("id"), answer.column("last_run_ok"), strict=True)) == {
        "backup-home": True, "twin": None,
    }  # fmt: skip
    assert "Not known" not in answer.notes


async def test_a_backup_by_a_user_is_no_run_of_the_job(demo_client):
    state = demo_client["home-lab"].emulated.state
    [before] = (await demo_client("ListBackupJobs", cluster_name="home-lab")).data
    log = "INFO: starting new backup job: vzdump --all 1 --storage nas-backup --mode snapshot "
    log += "--compress zstd --prune-backups keep-last=4 --notes-template '{{guestname}}'"
    task = state.add_task("pve", "vzdump", "", "root@pam", int(state.now))
    task.log[:] = [log]
    task.finish("job errors", state.now)
    assert (await demo_client("ListBackupJobs", cluster_name="home-lab")).data == [before]
    task.log[:] = [f"{log} --quiet 1"]
    [after] = (await demo_client("ListBackupJobs", cluster_name="home-lab")).data
    assert (after["last_run_ok"], after["last_run_status"]) == (False, "job errors")


@pytest.mark.parametrize("query", [False, True])
async def test_volumes_that_an_account_does_not_see_are_noted(
    demo_client, new_token, with_token, query
):
    token = new_token(demo_client["prod"].emulated, ("/", "PVEAuditor"))
    local = demo_client["prod"].emulated.state.storages["local"]
    local.content = (*local.content, "images")
    narrow = await with_token(demo_client, "prod", token)
    place = {"node": "pve01", "storage": "local"}
    where = [{"field": name, "operator": "=", "value": value} for name, value in place.items()]
    asked = {"from": "storage_content", "where": {"logic": "and", "conditions": where}}
    if query:
        answer = await narrow("ExecuteQuery", cluster_name="prod", query=asked)
    else:
        answer = await narrow("ListStorageContent", cluster_name="prod", **place)
    assert {"iso", "vztmpl"} >= set(answer.column("content"))
    assert f"{token[0]} lacks VM.Config.Disk on /vms of prod, so Proxmox lists no" in answer.notes
    assert "Datastore.AllocateSpace on /storage" in answer.notes
    isos = await narrow("ListIsos", cluster_name="prod", **place)
    assert "lacks" not in isos.notes


@pytest.mark.parametrize(
    ("grants", "missing"),
    [
        ([("/", "PVEAuditor"), ("/storage/local", "PVEDatastoreAdmin")], "VM.Backup on /vms"),
        ([("/", "PVEAuditor"), ("/vms", "PVEAdmin")], "Datastore.AllocateSpace on /storage"),
        ([("/", "PVEAuditor"), ("/storage", "PVEDatastoreUser")], "VM.Backup on /vms"),
        ([("/", "Administrator")], ""),
        ([("/", "PVEAuditor"), ("/", "PVEDatastoreAdmin")], ""),
    ],
)
async def test_a_privilege_on_another_path_does_not_end_the_note_on_hidden_volumes(
    demo_client, new_token, with_token, grants, missing
):
    token = new_token(demo_client["prod"].emulated, *grants)
    narrow = await with_token(demo_client, "prod", token)
    query = {"from": "storage_content", "select": ["content"]}
    answer = await narrow("ExecuteQuery", cluster_name="prod", query=query)
    assert ("so Proxmox lists no backups on " in answer.notes) is bool(missing)
    assert missing in answer.notes
