"""Tasks: identifiers, outcome, log and progress."""

import httpx2 as httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxmox_client import (
    BadParameters,
    Client,
    DeadlineExceeded,
    NodeUnreachable,
    NotFound,
    TaskFailed,
    Upid,
    circuit_breaker,
    deadline,
)
from proxmox_client.api import tasks
from proxmox_client.api.tasks import TaskRow, percent_of

from .conftest import TOKEN

pytestmark = pytest.mark.anyio

UPID = "UPID:pve1:000002CD:000E132A:6B02ABF1:vzdump:100:mcp@pve!full:"
POLL_STEPS = tasks.poll_steps
PATH = "/nodes/pve1/tasks/" + UPID.replace(":", "%3A").replace("@", "%40").replace("!", "%21")


@pytest.fixture(autouse=True)
def no_poll_steps(monkeypatch):
    """Poll without waiting."""
    monkeypatch.setattr(tasks, "poll_steps", lambda: iter(lambda: 0.0, None))


@pytest.fixture
def task(pve, client):
    """Create a task that logs one line per poll and ends with the last line."""

    def make(exit_status: str, *lines: str, followed: bool = False):
        running = {"upid": UPID, "status": "running"}
        stopped = {"upid": UPID, "status": "stopped", "exitstatus": exit_status}
        for number, line in enumerate(lines, 1):
            pve.answer(f"GET {PATH}/status", running if number < len(lines) else stopped)
            if followed:
                pve.answer(f"GET {PATH}/log", [{"n": number, "t": line}], total=number)
        if not followed:
            log = [{"n": number, "t": line} for number, line in enumerate(lines, 1)]
            pve.answer(f"GET {PATH}/log", log, total=len(lines))
        return client.task(UPID)

    return make


async def test_wait_returns_the_outcome(task):
    # Quirk 38: a UPID means that the task has started, not that it succeeds.
    outcome = await task("OK", "INFO: starting", "INFO: 50%", "TASK OK").wait()
    assert (outcome.ok, outcome.warnings, outcome.exit_status) == (True, 0, "OK")
    assert outcome.log_tail == ["INFO: starting", "INFO: 50%", "TASK OK"]


async def test_a_failed_task_raises_with_the_tail_of_its_log(task):
    # Quirks 38 and 42: a shutdown that times out is reported by the task only.
    text = "VM quit/powerdown failed - got timeout"
    with pytest.raises(TaskFailed, match="got timeout") as caught:
        await task(text, "waiting", f"TASK ERROR: {text}").wait()
    assert (caught.value.upid, caught.value.exit_status) == (UPID, text)
    assert caught.value.log_tail == ("waiting", f"TASK ERROR: {text}")


async def test_a_task_with_warnings_succeeds(task):
    # Quirk 39.
    outcome = await task("WARNINGS: 2", "WARN: x", "TASK WARNINGS: 2").wait()
    assert (outcome.ok, outcome.warnings) == (True, 2)


async def test_an_unknown_exit_status_is_not_a_success(task):
    # Quirk 39.
    assert not (await task("unexpected status", "x").outcome()).ok


async def test_progress_has_new_lines_and_the_last_percentage(task):
    reports = []
    lines = ("INFO: starting", "INFO:  37% (1.2 GiB of 3.2 GiB)", "TASK OK")
    await task("OK", *lines, followed=True).wait(
        lambda now: reports.append((now.lines, now.percent, now.succeeded))
    )
    assert reports == [
        (["INFO: starting"], None, False),
        (["INFO:  37% (1.2 GiB of 3.2 GiB)"], 37.0, False),
        (["TASK OK"], 37.0, True),
    ]


async def test_a_failed_task_has_not_succeeded_at_any_percentage(task):
    reports = []
    lines = ("100%", "TASK ERROR: checksum mismatch")
    failing = task("download failed", *lines, followed=True)
    await failing.outcome(lambda now: reports.append((now.percent, now.succeeded)))
    assert reports[-1] == (100.0, False)


RESTARTING = [(595, "Connection refused"), (596, "Broken pipe"), (599, "Too many redirections")]


@pytest.mark.parametrize(("status", "reason"), RESTARTING)
@pytest.mark.parametrize("request_line", ["status", "log"])
async def test_a_poll_without_an_answer_does_not_end_the_wait(
    client, pve, monkeypatch, status, reason, request_line
):
    monkeypatch.setattr(circuit_breaker, "COOLDOWN", 0.0)
    pve.answer(f"GET {PATH}/status", {"upid": UPID, "status": "running"})
    pve.answer(f"GET {PATH}/log", [{"n": 1, "t": "begun"}], total=1)
    for _ in range(8):
        pve.respond(f"GET {PATH}/{request_line}", status, reason)
    pve.answer(f"GET {PATH}/status", {"upid": UPID, "status": "stopped", "exitstatus": "OK"})
    pve.answer(f"GET {PATH}/log", [{"n": 2, "t": "TASK OK"}], total=2)
    outcome = await client.task(UPID).wait(lambda _: None)
    assert (outcome.ok, outcome.log_tail[-1]) == (True, "TASK OK")


async def test_a_node_that_stays_away_ends_the_wait(client, pve, monkeypatch, fast_clock):
    monkeypatch.setattr(circuit_breaker, "COOLDOWN", 0.0)
    monkeypatch.setattr(tasks, "poll_steps", POLL_STEPS)
    pve.respond(f"GET {PATH}/status", 595, "No route to host")
    began = fast_clock()
    with pytest.raises(NodeUnreachable):
        await client.task(UPID).wait()
    assert tasks._LONGEST_OUTAGE <= fast_clock() - began < tasks._LONGEST_OUTAGE + 10


async def test_lost_quorum_is_known_from_the_log_of_a_failed_task(task):
    line = "unable to open file '/etc/pve/nodes/pve1/lxc/100.conf.tmp.9' - Permission denied"
    for exit_status, log in [(line, "x"), ("job errors", f"ERROR: Backup of VM 100: {line}")]:
        with pytest.raises(TaskFailed) as caught:
            await task(exit_status, log).wait()
        assert caught.value.lacks_quorum
    assert not TaskFailed(UPID, "job errors", ["no space left"]).lacks_quorum


async def test_follow_reads_each_log_line_once(task, pve):
    # Quirk 40: limit=0 means all lines; the default is 50.
    lines = [line async for line in task("OK", "a", "b", "TASK OK", followed=True).follow()]
    assert lines == ["a", "b", "TASK OK"]
    requests = [line.partition("/log ")[2] for line in pve.lines if "/log" in line]
    assert requests == ["start=0&limit=0", "start=1&limit=0", "start=2&limit=0"]


async def test_an_empty_log_has_no_lines(client, pve):
    # Quirk 40: Proxmox sends the line "no content".
    pve.answer(f"GET {PATH}/log", [{"n": 1, "t": "no content"}], total=1)
    log = await client.task(UPID).log()
    assert log.lines == []
    assert await client.task(UPID).tail() == []


async def test_tail_returns_the_last_lines(client, pve):
    pve.answer(f"GET {PATH}/log", [{"n": 1, "t": "first"}], total=90)
    pve.answer(f"GET {PATH}/log", [{"n": 90, "t": "TASK OK"}], total=90)
    assert await client.task(UPID).tail(5) == ["TASK OK"]
    assert pve.lines[1].endswith("start=85&limit=5")


async def test_a_deadline_ends_the_wait_but_not_the_task(client, pve):
    pve.answer(f"GET {PATH}/status", {"upid": UPID, "status": "running"})
    pve.answer(f"GET {PATH}/log", [], total=0)
    with deadline(0.05), pytest.raises(DeadlineExceeded, match="UPID"):
        await client.task(UPID).wait()
    with pytest.raises(DeadlineExceeded, match="UPID"):
        await client.task(UPID).wait(timeout=0.05)
    assert not any(line.startswith("DELETE") for line in pve.lines)


async def test_stop_deletes_the_task(client, pve):
    pve.answer(f"DELETE {PATH}")
    await client.task(UPID).stop()
    assert pve.lines == [f"DELETE {PATH}"]


async def test_an_unknown_task_is_not_found(client, pve):
    # Quirk 37: Proxmox answers 400.
    errors = {"upid": "no such task"}
    pve.answer_error(f"GET {PATH}/status", 400, "Parameter verification failed.", errors=errors)
    with pytest.raises(NotFound, match="no such task"):
        await client.task(UPID).status()


async def test_the_node_is_taken_from_the_upid(client, pve):
    # Quirk 37: an upload to pve2 through pve1 runs on pve1.
    assert client.task(UPID.replace("pve1", "pve3")).upid.node == "pve3"


def test_a_upid_is_parsed():
    # Quirk 37.
    upid = Upid.parse(UPID)
    assert (upid.node, upid.pid, upid.type, upid.id) == ("pve1", 0x2CD, "vzdump", "100")
    assert (upid.user, upid.token, upid.start_time) == ("mcp@pve", "full", 0x6B02ABF1)


def test_a_upid_may_have_no_id():
    # Quirk 37.
    assert Upid.parse("UPID:pve1:0000073A:000E6DD1:6B02ACD9:imgcopy::root@pam:").id == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "UPID:pve1",
        UPID + "\n",
        UPID.replace("pve1", "../x"),
        UPID.replace(":100:", ":1/0 0:"),
        "UPID:pve1:0000073A:000E6DD1:6B02ACD9:qmstart:1/../x:root@pam:",
        "UPID:pve1:0000073A:000E6DD1:6B02ACD9:../x:100:root@pam:",
        "UPID:pve1:0000073A:000E6DD1:6B02ACD9:qmstart:100:../x:",
        "UPID:pve1:0000073A:000E6DD1:6B02ACD9:qmstart:100:root@pam!a/x:",
        UPID.removesuffix(":"),
    ],
    ids=[
        "empty",
        "short",
        "newline",
        "path",
        "space",
        "in id",
        "in type",
        "in user",
        "in token",
        "unterminated",
    ],
)
async def test_a_malformed_upid_is_rejected_before_a_request(text, client, pve):
    with pytest.raises(BadParameters) as caught:
        client.task(text)
    assert set(caught.value.errors) == {"upid"}


NAMES = st.from_regex(r"[a-z0-9]{1,12}", fullmatch=True)


@given(
    node=st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True),
    pid=st.integers(0, 2**32 - 1),
    started=st.integers(0, 2**32 - 1),
    kind=NAMES,
    id_=st.just("") | NAMES | st.just("100@shared"),
    token=st.none() | NAMES,
)
def test_parsing_and_formatting_a_upid_round_trips(node, pid, started, kind, id_, token):
    user = f"mcp@pve!{token}" if token else "mcp@pve"
    text = f"UPID:{node}:{pid:08X}:000E132A:{started:08X}:{kind}:{id_}:{user}:"
    upid = Upid.parse(text)
    assert str(upid) == text
    assert (upid.node, upid.pid, upid.start_time) == (node, pid, started)
    assert (upid.type, upid.id, upid.user, upid.token) == (kind, id_, "mcp@pve", token or "")


@pytest.mark.parametrize(
    ("line", "percent"),
    [
        ("INFO:  37% (1.2 GiB of 3.2 GiB) in 3s, read: 412.0 MiB/s", 37.0),
        ("drive-scsi0: transferred 1.0 GiB of 4.0 GiB (25.00%) in 10s", 25.0),
        ("transferred 512.0 MiB of 1.0 GiB (50.12%)", 50.12),
        ("8192K ........ ........ ........ ........ 12%  101M 6s", 12.0),
        ("migration active, transferred 1.0 GiB of 4.0 GiB VM-state, 112.4 MiB/s", 25.0),
        ("migration active, transferred 512.0 B of 1.0 KiB VM-state", 50.0),
        ("migration completed, transferred 2.8 MiB VM-state", None),
        ("INFO: backup is sparse: 0.70 GiB (70%) total zero data", None),
        ("transferred 0.0 B of 0.0 B", 0.0),
        ("fill 250% of it", None),
        ("TASK OK", None),
    ],
    ids=[
        "backup",
        "clone",
        "move",
        "download",
        "migration",
        "bytes",
        "migrated",
        "zeroes",
        "nothing",
        "beyond",
        "end",
    ],
)
def test_percentages_are_extracted_from_logs(line, percent):
    assert percent_of(line) == percent


@pytest.mark.parametrize(("seconds", "most"), [(3, 8), (60, 20), (600, 128)])
@pytest.mark.parametrize("followed", [False, True])
async def test_a_wait_asks_by_growing_steps(monkeypatch, fast_clock, seconds, most, followed):
    began, requests = fast_clock(), []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request.url.path)
        running = fast_clock() - began < seconds
        state = {"upid": UPID, "status": "running" if running else "stopped", "exitstatus": "OK"}
        data = state if request.url.path.endswith("/status") else [{"n": 1, "t": "TASK OK"}]
        return httpx.Response(200, json={"data": data, "total": 1})

    monkeypatch.setattr(tasks, "poll_steps", POLL_STEPS)
    client = Client(["pve1"], TOKEN, http_transport=httpx.MockTransport(answer))
    progress = (lambda _: None) if followed else None
    await client.task(UPID).wait(progress)
    late = fast_clock() - began - seconds
    assert 0 <= late <= min(seconds, tasks._LONGEST_STEP)
    assert len(requests) <= (2 * most if followed else most)

    began = fast_clock()
    with pytest.raises(DeadlineExceeded):
        await client.task(UPID).wait(progress, timeout=seconds / 2)
    assert fast_clock() - began == pytest.approx(seconds / 2)


async def test_str_and_repr_of_a_task_show_its_upid(client):
    task = client.task(UPID)
    assert (str(task), repr(task)) == (UPID, f"Task({UPID!r})")
    assert client.task(task.upid).upid is task.upid


@pytest.mark.parametrize(
    ("status", "running", "ok"),
    [("RUNNING", True, False), (None, True, False), ("OK", False, True), ("boom", False, False)],
)
def test_a_row_shows_whether_its_task_runs_or_succeeded(status, running, ok):
    # Quirk 41: running tasks have status RUNNING.
    row = TaskRow(upid=UPID, status=status, end_time=None if running else 1)
    assert (row.running, row.ok) == (running, ok)
