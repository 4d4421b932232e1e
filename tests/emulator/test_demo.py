"""The demo clusters contain the data that examples and demonstrations need."""

import re
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from proxmox_client.emulator import Emulator, ManualClock, demo
from proxmox_client.emulator.scenario.home_lab import home_lab
from proxmox_client.emulator.scenario.people import PASSWORD
from proxmox_client.emulator.scenario.prod import prod as prod_cluster

pytestmark = pytest.mark.anyio
MONTH = 30 * 86400


@pytest.fixture(scope="module")
async def demo_clusters(anyio_backend):
    async with Emulator(demo()) as pve:
        yield pve


@pytest.fixture
async def prod(demo_clusters, open_client):
    async with open_client(demo_clusters["prod"], demo_clusters["prod"].token) as client:
        yield client


@pytest.fixture
async def home(demo_clusters, open_client):
    async with open_client(demo_clusters["home-lab"], demo_clusters["home-lab"].token) as client:
        yield client


async def test_the_clusters_have_the_documented_size(home, prod):
    for client, nodes, online, guests in ((home, 1, 1, 14), (prod, 5, 4, 120)):
        rows = await client.get("/cluster/resources")
        members = [row for row in rows if row["type"] == "node"]
        assert len(members) == nodes
        assert sum(row["status"] == "online" for row in members) == online
        assert sum("vmid" in row for row in rows) == guests


async def test_a_standalone_node_has_no_cluster_row(home, prod):
    assert [row["type"] for row in await home.get("/cluster/status")] == ["node"]
    assert (await prod.get("/cluster/status"))[0]["name"] == "prod"


async def test_some_guests_have_a_high_cpu_load(home, prod):
    for client in (home, prod):
        rows = await client.get("/cluster/resources", type="vm")
        assert any(row.get("cpu", 0) > 0.7 for row in rows)


async def test_snapshots_have_all_ages(prod):
    ages = [
        (time.time() - snapshot.time) / 86400
        for guest in prod.cluster.state.guests.values()
        for snapshot in guest.snapshots.values()
    ]
    assert min(ages) < 1
    assert max(ages) > 365
    assert sum(age > 30 for age in ages) >= 5


async def test_prod_has_twenty_failed_tasks_of_several_users(prod):
    failed = []
    for node in ("pve01", "pve02", "pve03", "pve04"):
        failed += await prod.get(f"/nodes/{node}/tasks", errors=1, limit=20)
    assert len(failed) >= 20
    assert len({row["user"] for row in failed}) >= 4


async def test_the_cluster_task_list_has_twenty_failures(prod):
    rows = await prod.get("/cluster/tasks")
    assert sum(row.get("status", "OK") != "OK" for row in rows) >= 20


async def test_pressure_metrics_cover_a_day(prod):
    rows = await prod.get("/nodes/pve01/rrddata", timeframe="day")
    assert max(row["pressurecpusome"] for row in rows) > 1
    assert max(row["pressurememorysome"] for row in rows) > 0


async def test_vm_101_has_several_backups(prod):
    rows = await prod.get("/nodes/pve01/storage/pbs-main/content", vmid=101, content="backup")
    assert len(rows) >= 3
    assert {row["format"] for row in rows} == {"pbs-vm"}
    assert all(row["verification"]["state"] in ("ok", "failed") for row in rows)


async def test_pve01_has_old_iso_images(prod):
    rows = await prod.get("/nodes/pve01/storage/local/content", content="iso")
    ages = [time.time() - row["ctime"] for row in rows]
    assert sum(age > 6 * MONTH for age in ages) >= 3
    assert any(age < 6 * MONTH for age in ages)


async def test_some_storages_are_above_eighty_percent(prod):
    rows = await prod.get("/nodes/pve01/storage")
    full = {row["storage"] for row in rows if row["used_fraction"] > 0.8}
    assert {"nfs-iso", "nfs-archive"} <= full
    assert "pbs-main" not in full


async def test_the_last_run_of_a_backup_job_failed(prod):
    jobs = {job["id"]: job for job in await prod.get("/cluster/backup")}
    assert len(jobs) == 3
    tasks = await prod.get("/nodes/pve01/tasks", typefilter="vzdump", errors=1)
    assert any(task["status"] == "job errors" for task in tasks)


@pytest.mark.parametrize("vmid", [101, 105, 150, 200])
async def test_the_guests_of_the_examples_are_running(prod, vmid):
    guest = prod.cluster.state.guests[vmid]
    current = await prod.get(f"/nodes/{guest.node}/qemu/{vmid}/status/current")
    assert current["status"] == "running"


async def test_vm_105_can_migrate_to_pve02(prod):
    check = await prod.get("/nodes/pve01/qemu/105/migrate", target="pve02")
    assert (check["running"], check["local_disks"], check["local_resources"]) == (1, [], [])
    assert "pve02" in check["allowed_nodes"]
    assert "pve05" not in check["allowed_nodes"]


async def test_the_agent_of_vm_150_does_not_respond(prod, reason_of):
    response = await prod.request("GET", "/nodes/pve03/qemu/150/agent/get-osinfo")
    assert reason_of(response) == "QEMU guest agent is not running"


async def test_the_offline_node_answers_595(prod):
    response = await prod.request("GET", "/nodes/pve05/status")
    assert (response.status_code, response.reason_phrase) == (595, "No route to host")


async def test_the_same_seed_builds_the_same_demo(prod):
    async with Emulator(demo()) as second:
        guests, other_guests = prod.cluster.state.guests, second["prod"].state.guests
        assert guests.keys() == other_guests.keys()
        for vmid, guest in guests.items():
            other = dict(other_guests[vmid].config)
            assert {**guest.config, "meta": ""} == {**other, "meta": ""}


@pytest.mark.parametrize("hour", [0, 1, 2, 9, 22, 23])
@pytest.mark.parametrize("build", [home_lab, prod_cluster], ids=["home-lab", "prod"])
def test_all_times_are_in_the_past_at_any_start_time(build, hour):
    saturday = datetime(2026, 11, 28, hour, 30, tzinfo=UTC).timestamp()
    state = build(ManualClock(saturday))
    times = [task.ended for task in state.tasks.values()]
    times += [
        volume.ctime for storage in state.storages.values() for volume in storage.everything()
    ]
    times += [
        snapshot.time for guest in state.guests.values() for snapshot in guest.snapshots.values()
    ]
    times += [guest.started for guest in state.guests.values()]
    times += [node.booted for node in state.nodes.values()]
    assert max(times) <= saturday


def test_past_backups_match_the_schedules():
    clock = ManualClock(datetime(2026, 11, 25, 10, 30, tzinfo=UTC).timestamp())
    tasks = [task for task in prod_cluster(clock).tasks.values() if task.type == "vzdump"]
    runs = [task for task in tasks if not task.id]
    failed = {task.started for task in runs if task.outcome == "job errors"}
    assert {f"{datetime.fromtimestamp(when, UTC):%a %H:%M}" for when in failed} == {"Sat 22:00"}
    nightly = [task for task in runs if "--all 1" in task.log[0]]
    hours = {f"{datetime.fromtimestamp(task.started, UTC):%H:%M}" for task in nightly}
    assert hours == {"01:00"}


async def test_prod_has_the_cases_that_questions_need(prod):
    async def config(vmid, **params):
        guest = prod.cluster.state.guests[vmid]
        return await prod.get(f"/nodes/{guest.node}/{guest.kind}/{vmid}/config", **params)

    assert "virtio-win" in (await config(175))["ide2"]
    assert "tag=30" in (await config(400))["net1"]
    assert (await config(400))["startup"].startswith("order=1")
    assert (await config(401))["protection"] == 1
    assert "Owner: data team" in (await config(122))["description"]
    assert "backup=0" in (await config(122))["scsi1"]
    assert (await config(177))["hostpci0"].startswith("0000:65:00.0")
    assert (await config(302))["unprivileged"] == 0
    assert "ip=10.20.9.31/24" in (await config(331))["net0"]
    assert (await config(333))["env"].count("\0") == 2
    assert (await config(168))["unused0"] == "ceph-vm:vm-168-disk-7"
    assert ("net1" in await config(171), "net1" in await config(171, current=1)) == (False, True)
    refused = await prod.get("/nodes/pve02/qemu/161/agent/get-osinfo")
    assert "error" in refused["result"]
    snapshots = await prod.get("/nodes/pve02/qemu/176/snapshot")
    assert {row.get("snapstate") for row in snapshots} == {"prepare", None}


async def test_the_documented_people_can_sign_in(demo_clusters, open_client):
    page = Path(__file__).parents[2] / "docs" / "contributors" / "emulator.md"
    rows = re.findall(r"^\| `(\S+@\S+)` \| ([^|]+) \|", page.read_text(), re.MULTILINE)
    people = {userid for userid, _ in rows}
    assert people == {"alice@pve", "bob@pve", "carol@pve", "dana@corp", "erin@sso", "sam@pve"}
    for userid, clusters in rows:
        for name in clusters.split(", "):
            user = demo_clusters[name].state.user_config.users[userid]
            async with open_client(demo_clusters[name], None) as anonymous:
                form = {"username": userid, "password": PASSWORD}
                response = await anonymous.request("POST", "/access/ticket", **form)
            assert response.status_code == (200 if user.password else 401)
            assert ("NeedTFA" in response.text) == bool(user.factors)


async def test_guest_addresses_are_private(prod):
    for guest in prod.cluster.state.guests.values():
        addresses = guest.agent.addresses if guest.agent else ()
        assert all(address.startswith("10.") for address in addresses)


def test_tasks_of_guests_fit_what_the_guests_do_now():
    for build in demo().clusters.values():
        state = build(ManualClock())
        for task in state.tasks.values():
            guest = state.guests.get(int(task.id)) if task.id.isdecimal() else None
            if guest:
                assert task.node == guest.node
                assert state.nodes[task.node].online
            if guest and task.outcome == "OK" and task.type[2:] in ("start", "shutdown"):
                assert guest.running == task.type.endswith("start")
                assert task.ended == pytest.approx(
                    guest.started if guest.running else guest.stopped, abs=1
                )
