"""Tasks: lists, filters, logs, ends."""

import pytest

pytestmark = pytest.mark.anyio
TASKS = "/nodes/pve1/tasks"


@pytest.fixture
async def some(admin):
    """One task that ended well, two that failed, of different guests."""
    await admin.task("POST", "/nodes/pve1/qemu/100/status/stop")
    await admin.task("POST", "/nodes/pve1/qemu/106/status/start")
    await admin.task("POST", "/nodes/pve1/qemu/999/status/start")
    return admin


async def ids(admin, **params):
    return [row["id"] for row in await admin.get(TASKS, **params)]


async def test_the_newest_comes_first(some):
    assert await ids(some) == ["999", "106", "100"]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"vmid": 100}, ["100"]),
        ({"errors": 1}, ["999", "106"]),
        ({"statusfilter": "ok"}, ["100"]),
        ({"statusfilter": "error"}, ["999", "106"]),
        ({"typefilter": "qmstop"}, ["100"]),
        ({"userfilter": "mcp"}, ["999", "106", "100"]),
        ({"userfilter": "nobody"}, []),
        ({"since": 9_999_999_999}, []),
        ({"until": 1}, []),
        ({"source": "active"}, []),
        ({"limit": 1}, ["999"]),
        ({"limit": 1, "start": 1}, ["106"]),
    ],
    ids=str,
)
async def test_tasks_are_filtered(some, params, expected):
    assert await ids(some, **params) == expected


async def test_the_total_counts_what_the_page_leaves_out(some):
    body = (await some.ask("GET", TASKS, limit=0)).json()
    assert body == {"data": [], "total": 3}


async def test_a_running_task_is_listed_among_the_active(admin, lab):
    upid = await admin.data("POST", "/nodes/pve1/qemu/100/status/shutdown")
    (row,) = await admin.get(TASKS, source="active")
    assert (row["upid"], row["status"]) == (upid, "RUNNING")
    assert (await admin.get(f"{TASKS}/{upid}/status"))["status"] == "running"
    await lab.tasks.settle()


async def test_who_did_it_by_which_token_is_told_apart(some):
    row = (await some.get(TASKS))[0]
    assert (row["user"], row["tokenid"]) == ("mcp@pve", "emulator")
    assert ":mcp@pve!emulator:" in row["upid"]


async def test_the_log_is_read_in_pages(admin, lab):
    ended = await admin.task("POST", "/nodes/pve1/vzdump", vmid=100, storage="shared")
    path = f"{TASKS}/{ended['upid']}/log"
    whole = (await admin.ask("GET", path, limit=0)).json()
    page = (await admin.ask("GET", path, start=2, limit=3)).json()
    assert page["data"] == whole["data"][2:5]
    assert page["total"] == whole["total"] == len(whole["data"])
    assert whole["data"][-1]["t"] == "TASK OK"


@pytest.mark.parametrize(
    ("upid", "complaint"),
    [
        ("UPID:bad", "unable to parse worker upid"),
        ("UPID:pve1:00000001:00000001:00000001:qmstart:1:root@pam:", "no such task"),
    ],
)
async def test_a_upid_that_names_nothing_is_a_bad_parameter(admin, upid, complaint):
    response = await admin.ask("GET", f"{TASKS}/{upid}/status")
    assert (response.status_code, response.json()["errors"]) == (400, {"upid": complaint})


async def test_a_task_is_asked_for_on_its_own_node(some):
    upid = (await some.get(TASKS))[0]["upid"]
    response = await some.ask("GET", f"/nodes/pve2/tasks/{upid}/status")
    assert response.json()["errors"] == {"upid": "no such task"}


async def test_the_cluster_lists_and_logs_them_too(some):
    rows = await some.get("/cluster/tasks")
    assert {row["id"] for row in rows} == {"100", "106", "999"}
    log = [row["msg"] for row in await some.get("/cluster/log")]
    assert any(line.startswith("end task UPID:pve1:") for line in log)


async def test_warnings_are_a_way_to_succeed(admin, lab):
    async def work(job):
        job.warn("disk is old")

    upid = lab.tasks.start("pve1", "qmstart", "1", "root@pam", work)
    await lab.tasks.settle()
    status = await admin.get(f"{TASKS}/{upid}/status")
    assert status["exitstatus"] == "WARNINGS: 1"
    assert await admin.log(upid) == ["WARN: disk is old", "TASK WARNINGS: 1"]
    assert await ids(admin, statusfilter="warning") == ["1"]
