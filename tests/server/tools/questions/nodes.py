"""Questions on nodes, clusters, HA, replication and Ceph."""

import time

from .model import call, query, question

OFFLINE = "pve05"


def online(demo):
    """List the online nodes with their clusters."""
    for state in demo.states.values():
        for node in state.nodes.values():
            if node.online:
                yield state, node


@question(
    "B12",
    "What happens if pve03 fails?",
    query(
        "guests",
        "vmid",
        "name",
        "memory_max",
        "ha_state",
        where=[("node", "=", "pve03"), ("status", "=", "running")],
    ),
    query("ha_rules", cluster_name="prod"),
)
def failure_of_a_node(demo, guests, rules):
    running = [guest for guest in demo.prod.guests_on("pve03") if guest.running]
    yield guests.set("vmid", "memory_max"), {(guest.vmid, guest.memory) for guest in running}
    managed = {guest.vmid for guest in running if demo.prod.ha_of(guest)}
    yield {row["vmid"] for row in guests.data if row.get("ha_state")}, managed
    yield rules.set("rule"), set(demo.prod.ha_rules)


@question("B14", "Is a disk about to fail?", call("ListNodeDisks"))
def failing_disks(demo, answer):
    found = {(row["node"], row["device"]) for row in answer.data if row["health"] != "PASSED"}
    failed = {(n.name, d.device) for _, n in online(demo) for d in n.disks if d.health != "PASSED"}
    yield found, failed
    yield len(answer.data), sum(len(node.disks) for _, node in online(demo))
    yield "wearout is the remaining life" in answer.notes, True


@question(
    "B29",
    "Is the same version and kernel running everywhere?",
    query("node_versions", "node", "pve_version", "kernel"),
)
def versions(demo, answer):
    yield answer.set("node", "kernel"), {(node.name, node.kernel) for _, node in online(demo)}
    yield OFFLINE in answer.notes, True


@question(
    "B30",
    "Which certificates and subscriptions expire within 60 days?",
    query("certificates", "node", "filename", "days_left", where=[("days_left", "<", "60")]),
    query("subscriptions", "node", "status", "next_due"),
)
def what_expires(demo, certificates, subscriptions):
    yield certificates.data, []
    yield OFFLINE in certificates.notes, True
    states = {(node.name, node.subscription.get("status", "notfound")) for _, node in online(demo)}
    yield {(name, status) for name, status in subscriptions.set("node", "status")}, states


@question("B31", "Is Ceph healthy?", call("GetClusterStatus", cluster_name="prod"))
def health_of_ceph(demo, answer):
    yield answer.data["ceph"]["status"], "HEALTH_WARN"
    yield (
        "osds down on pve05" in str(answer.data["ceph"]["checks"]),
        not demo.prod.nodes[OFFLINE].online,
    )


@question("B43", "Are there problems with replication?", call("ListReplications"))
def replication_problems(demo, answer):
    jobs = demo.prod.replications.values()
    yield answer.set("id", "fail_count"), {(job.id, job.fail_count) for job in jobs}
    broken = {(job.id, job.error) for job in jobs if job.error}
    yield {(row["id"], row["error"]) for row in answer.data if row["error"]}, broken


@question(
    "B45",
    "Why and since when is pve05 down?",
    call("GetNodeStatus", node=OFFLINE),
    call("ListNodeRrdData", nodes=[OFFLINE]),
    lacks="the reason, which no other node knows",
)
def since_when_a_node_is_down(demo, refusal, answer):
    yield refusal.failed, True
    yield "ListNodeRrdData" in refusal.text, True
    since = time.strftime("%Y-%m-%dT%H:", time.gmtime(demo.prod.nodes[OFFLINE].lost))
    yield f"Recorded until then only: pve05 {since}" in answer.notes, True


@question("B56", "Geht die Uhr auf allen Nodes gleich?", query("clocks"))
def clocks(demo, answer):
    ahead = demo.now - time.time()
    expected = {node.name: ahead + node.skew for _, node in online(demo)}
    for name, offset in answer.column("node", "offset"):
        yield abs(offset - expected[name]) < 3, True
    yield answer.set("node"), set(expected)


@question("B57", "Which updates are pending?", query("updates", "node", "package", "version"))
def updates(demo, answer):
    pending = {(node.name, each.package) for _, node in online(demo) for each in node.updates}
    yield answer.set("node", "package"), pending
    yield OFFLINE in answer.notes, True


@question(
    "B73",
    "¿Cuánta RAM libre tiene cada nodo?",
    query("nodes", "node", "memory_total", "memory_usage"),
)
def free_memory(demo, answer):
    totals = {(node.name, node.memory) for _, node in online(demo)}
    yield {pair for pair in answer.set("node", "memory_total") if pair[1]}, totals
    yield {row["node"] for row in answer.data if row["memory_usage"] is None}, {OFFLINE}


@question("N36", "Is anything wrong? Anything I should look at first?", call("GetAttention"))
def what_needs_attention(demo, answer):
    findings = " ".join(answer.column("finding"))
    for name in ("pve05", "nfs-archive", "OSD_DOWN"):
        yield name in findings, True
    yield answer.data[0]["severity"], "critical"


@question(
    "N37",
    "¿Qué nodos están caídos?",
    query("nodes", "cluster", "node", "status", where=[("status", "!=", "online")]),
)
def nodes_that_are_down(demo, answer):
    down = {
        (s.name, n.name) for s in demo.states.values() for n in s.nodes.values() if not n.online
    }
    yield answer.set("cluster", "node"), down


@question(
    "N38",
    "health of the production cluster",
    call("GetClusterStatus", cluster_name="production"),
    call("GetClusterStatus", cluster_name="prod"),
)
def misspelled_cluster(demo, refusal, answer):
    yield refusal.failed and "prod" in refusal.text, True
    yield answer.data["offline_nodes"], [n.name for n in demo.prod.nodes.values() if not n.online]
    yield answer.data["quorate"], demo.prod.quorate


@question(
    "N39",
    "Where may HA put vm 103?",
    query("ha_resources", where=[("vmid", "=", 103)], cluster_name="prod"),
    query("ha_rules", where=[("vmids", "CONTAINS", "103")], cluster_name="prod"),
)
def where_ha_may_run_a_guest(demo, resources, rules):
    yield resources.column("state"), [demo.prod.ha_resources["vm:103"].state]
    expected = {
        (rule["rule"], rule["nodes"].replace(",", ";"))
        for rule in demo.prod.ha_rules.values()
        if "vm:103" in rule["resources"].split(",")
    }
    yield rules.set("rule", "nodes"), expected


@question(
    "N40",
    "Which nodes run an old kernel and wait for a reboot?",
    query(
        "node_versions", "node", "kernel", "newest_kernel", where=[("reboot_needed", "=", "yes")]
    ),
)
def nodes_that_wait_for_a_reboot(demo, answer):
    waiting = {(node.name, node.newest_kernel) for _, node in online(demo) if node.newest_kernel}
    yield answer.set("node", "newest_kernel"), waiting


@question(
    "N41",
    "Which replication job is furthest behind?",
    query("replications", "id", "last_sync", "error", order="last_sync", limit=1),
)
def oldest_replication(demo, answer):
    oldest = min(demo.prod.replications.values(), key=lambda job: job.last_sync)
    yield answer.column("id"), [oldest.id]
