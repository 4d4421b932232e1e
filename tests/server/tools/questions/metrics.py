"""Questions on load over time."""

from collections import Counter

from proxmox_client.emulator.state import metrics

from .model import call, query, question

WEEK = ("time_frame", "=", "week")


@question(
    "B2",
    "Why is web-03 slow?",
    query("guests", where=[("name", "=", "web-03")]),
    lambda found: call(
        "ExplainGuest", vmid=found.data[0]["vmid"], cluster_name=found.data[0]["cluster"]
    ),
)
def slow_guest(demo, found, answer):
    guest = demo.guest("web-03")
    yield found.column("cluster", "vmid", "node"), [("prod", guest.vmid, guest.node)]
    yield answer.failed, False
    yield f'"{guest.node}"' in answer.text or guest.node in answer.text, True


@question(
    "B7",
    "Which VM had the most network traffic last week?",
    query(
        "guest_metrics",
        "vmid",
        "name",
        "network_rate",
        where=[WEEK],
        order="-network_rate",
        limit=3,
    ),
)
def most_traffic(demo, answer):
    def rate(guest):
        return guest.load.net_in + guest.load.net_out

    running = [g for _, g in demo.guests(lambda g: g.running and g.created < demo.now - 8 * 86_400)]
    first = max(running, key=rate)
    yield first.vmid in answer.column("vmid")[:2], True
    yield 0.8 < answer.column("network_rate")[0] / rate(first) < 1.25, True


@question(
    "B8",
    "Is anything overcommitted?",
    query(
        "guests",
        "node",
        "SUM(cpu_count) as vcpus",
        "node.cpu_total",
        "SUM(memory_max) as memory",
        "node.memory_total",
        where=[("status", "=", "running")],
        group=["node", "node.cpu_total", "node.memory_total"],
    ),
)
def overcommitment(demo, answer):
    memory, cpus = Counter(), Counter()
    for state, guest in demo.guests(lambda guest: guest.running):
        memory[guest.node] += guest.memory
        cpus[guest.node] += state.cpus_of(guest)
    yield dict(answer.column("node", "memory")), dict(memory)
    yield dict(answer.column("node", "vcpus")), dict(cpus)
    totals = {
        (n.name, n.memory) for s in demo.states.values() for n in s.nodes.values() if n.online
    }
    yield answer.set("node", "node.memory_total"), totals


@question(
    "B15",
    "CPU of the nodes over a month: which one to upgrade first?",
    call("ListNodeRrdData", cluster_name="prod", time_frame="Month", metrics=["Cpu"]),
)
def load_of_nodes(demo, answer):
    rows = [row for row in answer.data if row["metric"] == "cpu_usage"]
    yield {row["node"] for row in rows}, set(demo.prod.nodes)
    loads = {n.name: metrics.node_load(n, demo.prod).cpu for n in demo.prod.nodes.values()}
    yield max(rows, key=lambda row: row["average"])["node"], max(loads, key=loads.__getitem__)
    yield "Recorded until then only: pve05" in answer.notes, True


@question(
    "B48",
    "Which VMs are oversized by the last week?",
    query(
        "guest_metrics",
        "vmid",
        "name",
        "cpu_p95",
        "memory_p95",
        "guest.memory_max",
        where=[WEEK, ("cpu_p95", "<", "10"), ("memory_p95", "<", "40")],
        order="-guest.memory_max",
        limit=10,
    ),
)
def oversized_guests(demo, answer):
    for vmid, share, size in answer.column("vmid", "memory_p95", "guest.memory_max"):
        fits = [s.guests[vmid] for s in demo.states.values() if vmid in s.guests]
        yield (
            any(
                guest.memory == size and abs(100 * guest.load.memory - share) < 6 for guest in fits
            ),
            True,
        )


@question(
    "B52",
    "Which VM eats the IO right now?",
    query(
        "guest_metrics",
        "vmid",
        "name",
        "disk_rate",
        where=[("time_frame", "=", "now")],
        order="-disk_rate",
        limit=3,
    ),
)
def most_io_now(demo, answer):
    def rate(load):
        return sum(
            load.rate_at(each, demo.now // 10 * 10) for each in (load.disk_read, load.disk_write)
        )

    highest = sorted((rate(g.load) for _, g in demo.guests(lambda g: g.running)), reverse=True)
    yield bool(highest[0]), True
    yield answer.data[0]["disk_rate"] > 0, True


@question(
    "B79",
    "CPU of db-primary yesterday against last week?",
    query("guests", where=[("name", "=", "db-primary")]),
    call(
        "ListVmRrdData",
        cluster_name="prod",
        vmids=[101],
        time_frame="Week",
        metrics=["Cpu"],
        step="1d",
    ),
)
def cpu_by_day(demo, found, answer):
    guest = demo.guest("db-primary")
    yield found.column("vmid"), [guest.vmid]
    yield len(answer.data) >= 7, True
    for share in answer.column("cpu_usage"):
        yield abs(share - 100 * guest.load.cpu) < 5, True


@question(
    "B78",
    "What were the longest tasks of this week?",
    query(
        "tasks",
        "cluster",
        "node",
        "type",
        "duration",
        where=[("start_time", ">", "-7d")],
        order="-duration",
        limit=10,
    ),
)
def longest_tasks(demo, answer):
    lengths = [
        task.ended - task.started
        for state in demo.states.values()
        for task in state.tasks.values()
        if task.ended and task.started > demo.now - 7 * 86_400
    ]
    yield answer.column("duration"), sorted(lengths, reverse=True)[:10]


@question(
    "B70",
    "How long does a migration take on average?",
    query(
        "tasks",
        "AVG(duration) as seconds",
        "COUNT(*) as migrations",
        where=[("type", "IN", ["qmigrate", "vzmigrate"]), ("outcome", "=", "ok")],
    ),
)
def length_of_migrations(demo, answer):
    lengths = [
        task.ended - task.started
        for state in demo.states.values()
        for task in state.tasks.values()
        if task.type in ("qmigrate", "vzmigrate") and task.ok
    ]
    yield answer.column("migrations"), [len(lengths)]
    yield round(answer.data[0]["seconds"], 1), round(sum(lengths) / len(lengths), 1)


@question(
    "N27",
    "p95 of memory on pve02 over the last week",
    call("ListNodeRrdData", nodes=["pve02"], time_frame="Week", metrics=["Memory"]),
)
def memory_of_a_node(demo, answer):
    load = metrics.node_load(demo.prod.nodes["pve02"], demo.prod)
    [row] = [row for row in answer.data if row["metric"] == "memory_usage_percentage"]
    yield abs(row["p95"] - 100 * load.memory) < 4, True


@question(
    "N28",
    "Which running VMs did nothing for a week? Candidates to switch off",
    query(
        "guest_metrics",
        "vmid",
        "name",
        "cpu_p95",
        where=[
            WEEK,
            ("cpu_p95", "<", "1.5"),
            ("type", "=", "qemu"),
            ("guest.status", "=", "running"),
        ],
        order="cpu_p95",
    ),
)
def idle_guests(demo, answer):
    idle = [g for _, g in demo.guests() if g.running and g.load.cpu < 0.014]
    yield answer.set("vmid") <= {guest.vmid for guest in idle}, True
    yield bool(answer.data), True


@question(
    "N29",
    "CPU Verlauf von 150 heute, stündlich",
    call("ListVmRrdData", vmids=[150], time_frame="Day", metrics=["Cpu"], step="1h"),
)
def cpu_by_hour(demo, answer):
    yield len(answer.data) >= 24, True
    yield min(answer.column("cpu_usage")) > 80, demo.prod.guests[150].load.cpu > 0.9
