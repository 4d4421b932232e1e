"""Tasks: lists, filters, logs, outcomes."""

import pytest

pytestmark = pytest.mark.anyio
TASKS = "/nodes/pve1/tasks"


@pytest.fixture
async def tasks(admin):
    """Run one task that succeeds and two that fail, of different guests; return the client."""
    await admin.task("POST", "/nodes/pve1/qemu/100/status/stop")
    await admin.task("POST", "/nodes/pve1/qemu/106/status/start")
    await admin.task("POST", "/nodes/pve1/qemu/999/status/start")
    return admin


async def ids(admin, **params):
    return [row["id"] for row in await admin.get(TASKS, **params)]


async def test_the_newest_task_is_first(tasks):
    assert await ids(tasks) == ["999", "106", "100"]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"vmid": 100}, ["100"]),
        ({"errors": 1}, ["999", "106"]),
        ({"statusfilter": "ok"}, ["100"]),
        ({"statusfilter": "error"}, ["999", "106"]),
        ({"typefilter": "qmstop"}, ["100"]),
        ({"userfilter": "mcp"}, ["999", "106", "100"]),
        ({"userfilter": "alice"}, []),
        ({"since": 9_999_999_999}, []),
        ({"until": 1}, []),
        ({"source": "active"}, []),
        ({"limit": 1}, ["999"]),
        ({"limit": 1, "start": 1}, ["106"]),
    ],
    ids=str,
)
async def test_tasks_are_filtered(tasks, params, expected):
    assert await ids(tasks, **params) == expected


async def test_the_total_counts_all_matching_tasks(tasks):
    body = (await tasks.request("GET", TASKS, limit=0)).json()
    assert body == {"data": [], "total": 3}


async def test_a_running_task_is_active(admin, lab):
    upid = await admin.data("POST", "/nodes/pve1/qemu/100/status/shutdown")
    (row,) = await admin.get(TASKS, source="active")
    assert (row["upid"], row["status"]) == (upid, "RUNNING")
    assert (await admin.get(f"{TASKS}/{upid}/status"))["status"] == "running"
    await lab.tasks.settle()


async def test_user_and_token_of_a_task_are_separate(tasks):
    row = (await tasks.get(TASKS))[0]
    assert (row["user"], row["tokenid"]) == ("mcp@pve", "emulator")
    assert ":mcp@pve!emulator:" in row["upid"]


async def test_the_log_is_read_in_pages(admin, lab):
    status = await admin.task("POST", "/nodes/pve1/vzdump", vmid=100, storage="shared")
    path = f"{TASKS}/{status['upid']}/log"
    whole = (await admin.request("GET", path, limit=0)).json()
    page = (await admin.request("GET", path, start=2, limit=3)).json()
    assert page["data"] == whole["data"][2:5]
    assert page["total"] == whole["total"] == len(whole["data"])
    assert whole["data"][-1]["t"] == "TASK OK"


@pytest.mark.parametrize(
    ("upid", "message"),
    [
        ("UPID:bad", "unable to parse worker upid"),
        ("UPID:pve1:00000001:00000001:00000001:qmstart:1:root@pam:", "no such task"),
    ],
)
async def test_an_unknown_upid_is_a_bad_parameter(admin, upid, message):
    response = await admin.request("GET", f"{TASKS}/{upid}/status")
    assert (response.status_code, response.json()["errors"]) == (400, {"upid": message})


async def test_a_task_exists_on_its_own_node_only(tasks):
    upid = (await tasks.get(TASKS))[0]["upid"]
    response = await tasks.request("GET", f"/nodes/pve2/tasks/{upid}/status")
    assert response.json()["errors"] == {"upid": "no such task"}


async def test_tasks_are_in_the_cluster_list_and_log(tasks):
    rows = await tasks.get("/cluster/tasks")
    assert {row["id"] for row in rows} == {"100", "106", "999"}
    log = [row["msg"] for row in await tasks.get("/cluster/log")]
    assert any(line.startswith("end task UPID:pve1:") for line in log)


async def test_a_task_with_warnings_succeeds(admin, lab):
    async def work(context):
        context.warn("disk is old")

    upid = lab.tasks.start("pve1", "qmstart", "1", "root@pam", work)
    await lab.tasks.settle()
    status = await admin.get(f"{TASKS}/{upid}/status")
    assert status["exitstatus"] == "WARNINGS: 1"
    assert await admin.log(upid) == ["WARN: disk is old", "TASK WARNINGS: 1"]
    assert await ids(admin, statusfilter="warning") == ["1"]
