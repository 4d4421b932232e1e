"""Questions on what happened: tasks, changes, sign-ins and failures."""

from collections import Counter
from datetime import UTC, datetime, timedelta

from .model import anything, call, query, question

HOUR = 3600


def tasks(demo, fits=anything):
    """List the tasks on online nodes, newest first, with their clusters."""
    found = [
        (state, task)
        for state in demo.states.values()
        for task in state.tasks.values()
        if state.nodes[task.node].online and fits(task)
    ]
    return sorted(found, key=lambda pair: -pair[1].started)


def midnight(demo, days=0):
    """Return the start of a day in UTC."""
    today = datetime.fromtimestamp(demo.now, UTC).replace(hour=0, minute=0, second=0)
    return (today + timedelta(days=days)).timestamp()


@question(
    "B1",
    "What changed on prod since yesterday?",
    call("ListChanges", cluster_name="prod", since="yesterday"),
    tokens=200,
    tokens_per_row=34,  # 32 rows on a Monday at midnight, 61 on a Sunday evening
)
def changes_since_yesterday(demo, answer):
    since = midnight(demo, -1)
    started = [t for s, t in tasks(demo, lambda t: t.started >= since) if s is demo.prod]
    kinds = Counter(answer.column("kind"))
    yield kinds["task"], len(started)
    updates = [e for e in demo.prod.log if e.time >= since and e.text.startswith("update VM")]
    yield kinds["config"], len(updates)


@question(
    "B11",
    "Who deleted VM 190 last month?",
    call("ListTasks", cluster_name="prod", type="qmdestroy", vmid=190, since="-30d"),
)
def who_deleted_a_guest(demo, answer):
    deleted = tasks(demo, lambda task: (task.type, task.id) == ("qmdestroy", "190"))
    yield answer.column("user"), [task.user for _, task in deleted]
    yield answer.column("status"), ["OK"]
    yield "has no older tasks on record than these dates" in answer.notes, True


@question(
    "B21",
    "How long do the nightly backups take, and is it growing?",
    query(
        "tasks",
        "DAY(start_time) as day",
        "AVG(duration) as average",
        "COUNT(*) as runs",
        where=[("type", "=", "vzdump"), ("start_time", ">", "-14d")],
        group=["DAY(start_time)"],
        order="day",
        cluster_name="prod",
    ),
)
def backups_by_day(demo, answer):
    runs = [
        task
        for state, task in tasks(demo, lambda task: task.type == "vzdump")
        if state is demo.prod and task.started > demo.now - 14 * 24 * HOUR
    ]
    days = Counter(f"{datetime.fromtimestamp(task.started, UTC):%Y-%m-%d}" for task in runs)
    yield {row["day"][:10]: row["runs"] for row in answer.data}, dict(days)


@question(
    "B32",
    "What failed last night, and why?",
    call("ListTasks", status="error", since="-16h"),
)
def failures_of_the_night(demo, answer):
    failed = tasks(
        demo, lambda task: not task.ok and task.ended and task.started > demo.now - 16 * HOUR
    )
    yield answer.set("upid", "status"), {(task.upid, task.outcome) for _, task in failed}


@question(
    "B33",
    "Why did the backup of 105 on prod fail?",
    call("GetLog", cluster_name="prod", vmid=105, contains="backup"),
)
def why_a_backup_failed(demo, answer):
    reasons = {
        line
        for task in demo.prod.tasks.values()
        for line in task.log
        if line.startswith("ERROR: Backup of VM 105 ")
    }
    yield {text for text in answer.column("text") if text.startswith("ERROR")} >= reasons, True
    yield bool(reasons), True


@question(
    "B35",
    "Quali macchine sono spente da più di una settimana?",
    call("ListVms", status="stopped"),
    lambda stopped: query(
        "guest_metrics",
        "cluster",
        "vmid",
        "latest_time",
        where=[
            ("vmid", "IN", stopped.column("vmid")),
            ("time_frame", "=", "month"),
            ("latest_time", "<", "-7d"),
        ],
    ),
)
def long_stopped(demo, stopped, answer):
    yield stopped.set("cluster", "vmid"), demo.vmids(lambda guest: not guest.running)
    days = {
        (state.name, guest.vmid): (demo.now - guest.stopped) / 86_400
        for state, guest in demo.guests(lambda guest: not guest.running and not guest.template)
    }
    found = answer.set("cluster", "vmid") & days.keys()
    yield {key for key, length in days.items() if length > 7.6} - found, set()
    yield {key for key in found if days[key] < 6.9}, set()


@question(
    "B44",
    "Who did what in the last 24 hours?",
    query(
        "changes",
        "cluster",
        "user",
        "kind",
        "COUNT(*) as times",
        where=[("time", ">", "-24h")],
        group=["cluster", "user", "kind"],
    ),
)
def changes_by_user(demo, answer):
    since = demo.now - 24 * HOUR
    counts = Counter((s.name, t.user) for s, t in tasks(demo, lambda t: t.started > since))
    found = {
        (row["cluster"], row["user"]): row["times"] for row in answer.data if row["kind"] == "task"
    }
    yield found, dict(counts)
    logins = sum(
        "auth" in entry.text and entry.time > since
        for state in demo.states.values()
        for entry in state.log
    )
    yield sum(row["times"] for row in answer.data if row["kind"] == "login"), logins


@question(
    "B53",
    "When was 105 on prod last restarted, and by whom?",
    call("ListTasks", cluster_name="prod", vmid=105),
)
def tasks_of_a_guest(demo, answer):
    own = [t for s, t in tasks(demo, lambda task: task.id == "105") if s is demo.prod]
    yield answer.column("type", "user"), [(task.type, task.user) for task in own]


@question(
    "B72",
    "Wer hat VM 118 heruntergefahren?",
    call("ListTasks", vmid=118, type="qmshutdown"),
)
def who_shut_a_guest_down(demo, answer):
    own = tasks(demo, lambda task: (task.type, task.id) == ("qmshutdown", "118"))
    yield answer.column("user", "status"), [(task.user, task.outcome) for _, task in own]
    yield bool(own), True


@question(
    "N30",
    "Was hat alice seit gestern gemacht?",
    call("ListChanges", user="alice", since="yesterday"),
)
def changes_of_a_user(demo, answer):
    since = midnight(demo, -1)
    own = tasks(demo, lambda task: task.user == "alice@pve" and task.started >= since)
    yield Counter(answer.column("kind"))["task"], len(own)
    yield answer.set("user"), {"alice@pve"}


@question(
    "N31",
    "Failed logins in the last day?",
    query(
        "changes",
        "cluster",
        "time",
        "user",
        "text",
        where=[("kind", "=", "login"), ("text", "CONTAINS", "failure"), ("time", ">", "-1d")],
    ),
)
def failed_logins(demo, answer):
    failures = {
        (state.name, entry.text)
        for state in demo.states.values()
        for entry in state.log
        if "authentication failure" in entry.text and entry.time > demo.now - 24 * HOUR
    }
    yield answer.set("cluster", "text"), failures
    yield bool(failures), True


@question(
    "N32",
    "Wie oft ist seit dem 28.11. auf prod was fehlgeschlagen?",
    lambda: query(
        "tasks",
        "type",
        "COUNT(*) as failures",
        where=[("outcome", "=", "failed"), ("start_time", ">=", f"{_day(-2):%d.%m.%Y}")],
        group=["type"],
        order="-failures",
        cluster_name="prod",
    ),
)
def failures_since_a_german_date(demo, answer):
    since = midnight(demo, -2)
    failed = tasks(demo, lambda task: not task.ok and task.ended and task.started >= since)
    counts = Counter(task.type for state, task in failed if state is demo.prod)
    yield dict(answer.column("type", "failures")), dict(counts)


@question(
    "N33",
    "what failed on home-lab since 11/29/2026",
    lambda: call(
        "ListTasks", cluster_name="home-lab", status="error", since=f"{_day(-1):%m/%d/%Y}"
    ),
    lambda _refusal: call(
        "ListTasks", cluster_name="home-lab", status="error", since=f"{_day(-1):%Y-%m-%d}"
    ),
)
def failures_since_an_american_date(demo, refusal, answer):
    yield refusal.failed, True
    yield "ISO 8601" in refusal.text, True
    since = midnight(demo, -1)
    failed = tasks(demo, lambda task: not task.ok and task.ended and task.started >= since)
    yield answer.set("upid"), {task.upid for state, task in failed if state is demo.home}


@question(
    "N34",
    "Why does pfsense-a not start?",
    query("guests", where=[("name", "=", "pfsense-a")]),
    call("ListTasks", vmid=400, status="error"),
)
def why_a_guest_does_not_start(demo, found, answer):
    yield found.column("vmid", "status"), [(400, demo.prod.guests[400].status)]
    failed = tasks(demo, lambda task: task.id == "400" and not task.ok)
    yield answer.set("type", "status"), {(task.type, task.outcome) for _, task in failed}
    yield bool(failed), True


@question(
    "N35",
    "Who changed the memory of VM 101 on prod, and to what?",
    call("ListChanges", cluster_name="prod", vmid=101, kinds=["config"], since="-3d"),
)
def changed_memory(demo, answer):
    lines = [entry for entry in demo.prod.log if entry.text.startswith("update VM 101:")]
    yield answer.column("user", "text"), [(entry.user, entry.text) for entry in lines]
    yield bool(lines), True


def _day(days):
    return datetime.now(UTC) + timedelta(days=days)
