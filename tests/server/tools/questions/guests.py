"""Questions on the state and the configuration of guests."""

from collections import Counter

from proxmox_client.emulator.state.guest import Kind
from proxmox_client.emulator.state.sizes import GIB

from .model import OtherField, call, query, question

OFFLINE = "pve05"


@question("B5", "Is pve04 safe to reboot tonight?", call("CheckMaintenance", node="pve04"), calls=1)
def whether_a_node_may_reboot(demo, answer):
    found = answer.data
    named = {int(text.split()[0]) for text in (*found["ha"], *found["stuck"])}
    running = {guest.vmid for guest in demo.prod.guests_on("pve04") if guest.running}
    yield named | set(found["movable"]), running
    yield found["verdict"], "unsafe"
    yield any(OFFLINE in text for text in found["findings"]), True


@question(
    "B10",
    "Which VMs have no guest agent?",
    query("qemu_configs", "cluster", "vmid", "name", where=[("agent_enabled", "=", "false")]),
)
def without_agent(demo, answer):
    expected = demo.vmids(lambda guest: guest.kind is Kind.QEMU and not guest.agent_enabled)
    yield answer.set("cluster", "vmid"), expected
    yield OFFLINE in answer.notes, True


@question(
    "B22",
    "Which HA guests cannot start elsewhere because their disks are local?",
    query("ha_resources"),
    lambda resources: query(
        "disks",
        "vmid",
        "vm_name",
        "id",
        "storage",
        where=[
            ("vmid", "IN", resources.column("vmid")),
            ("storage.shared", "=", "false"),
            ("cluster", "=", "prod"),
        ],
    ),
)
def managed_with_local_disks(demo, _resources, answer):
    managed = [demo.prod.guests[each.vmid] for each in demo.prod.ha_resources.values()]
    local = {(g.vmid, d.slot) for g in managed for d in g.disks() if d.storage == "local-zfs"}
    yield answer.set("vmid", "id"), local
    yield bool(local), True


@question(
    "B24",
    "In which drives is an ISO mounted?",
    query("disks", "vmid", "vm_name", "volume", where=[("media", "=", "cdrom")]),
)
def mounted_images(demo, answer):
    mounted = {
        (guest.vmid, str(value).partition(",")[0])
        for _, guest in demo.guests()
        for value in guest.config.values()
        if "media=cdrom" in str(value)
    }
    yield answer.set("vmid", "volume"), mounted
    yield bool(mounted), True


@question(
    "B25",
    "In which order do guests start, and which ones do not start at boot?",
    query(
        "guests",
        "vmid",
        "name",
        "qemu_config.on_boot",
        "qemu_config.startup",
        "lxc_config.on_boot",
        any_of=[
            ("qemu_config.startup", "IS NOT NULL"),
            ("lxc_config.startup", "IS NOT NULL"),
            ("qemu_config.on_boot", "=", "false"),
            ("lxc_config.on_boot", "=", "false"),
        ],
    ),
)
def start_order(demo, answer):
    expected = {
        (g.vmid, g.config.get("startup"))
        for _, g in demo.guests(lambda g: "startup" in g.config or not g.config.get("onboot"))
    }
    yield answer.set("vmid", "qemu_config.startup"), expected


@question(
    "B28",
    "How much memory does each pool use, for billing?",
    query("guests", "pool", "SUM(memory_max) as memory", group=["pool"], cluster_name="prod"),
)
def memory_by_pool(demo, answer):
    sums = Counter()
    for state, guest in demo.guests():
        if state is demo.prod:
            sums[state.pool_of(guest.vmid) or None] += guest.memory
    yield dict(answer.column("pool", "memory")), dict(sums)
    yield "memory_max is unknown in 21 rows" in answer.notes, True


@question(
    "B36",
    "¿Qué contenedores son privilegiados?",
    query("lxc_configs", "vmid", "name", where=[("unprivileged", "=", "false")]),
)
def privileged_containers(demo, answer):
    privileged = {
        (g.vmid, g.name)
        for _, g in demo.guests(lambda g: g.kind is Kind.LXC and not g.config["unprivileged"])
    }
    yield answer.set("vmid", "name"), privileged
    yield bool(privileged), True


@question(
    "B40",
    "Would a VM with 64 GB fit, and where?",
    call("ListNodes", detail_level="Full"),
)
def room_for_a_guest(demo, answer):
    totals = {
        (n.name, n.memory) for s in demo.states.values() for n in s.nodes.values() if n.online
    }
    yield {row for row in answer.set("node", "memory_total") if row[1]}, totals
    free = {
        row["node"]
        for row in answer.data
        if (row["memory_total"] or 0) > 64 * GIB
        and row["memory_total"] - row["memory_usage"] > 64 * GIB
    }
    yield free, {"pve01", "pve02", "pve03", "pve04"}


@question("B49", "List the VM templates", query("guests", where=[("is_template", "=", "true")]))
def templates(demo, answer):
    yield answer.set("cluster", "vmid"), demo.vmids(lambda guest: guest.template)


@question(
    "B54",
    "Which guests are protected against deletion?",
    query(
        "guests",
        "vmid",
        "name",
        any_of=[("qemu_config.protection", "=", "true"), ("lxc_config.protection", "=", "true")],
    ),
)
def protected_guests(demo, answer):
    yield answer.set("vmid"), {g.vmid for _, g in demo.guests(lambda g: g.config.get("protection"))}


@question(
    "B59",
    "Which guests have 'owner' in their notes?",
    query("guests", "vmid", "name", "description", where=[("description", "CONTAINS", "owner")]),
)
def notes_with_a_word(demo, answer):
    noted = {
        (g.vmid, g.config["description"])
        for _, g in demo.guests(lambda g: "owner" in g.config.get("description", "").lower())
    }
    yield answer.set("vmid", "description"), noted
    yield bool(noted), True
    yield "Descriptions of guests on pve05 of prod are missing" in answer.notes, True


@question(
    "B62",
    "Which VMs have been up for more than 90 days?",
    query(
        "guests",
        "cluster",
        "vmid",
        "name",
        "uptime",
        where=[("type", "=", "qemu"), ("uptime", ">", "90d")],
    ),
)
def long_uptimes(demo, answer):
    days = 90 * 86_400
    expected = demo.vmids(lambda g: g.kind is Kind.QEMU and g.uptime(demo.now) > days)
    yield answer.set("cluster", "vmid"), expected


@question("B63", "Which guests have no tags?", query("guests", where=[("tags", "IS NULL")]))
def without_tags(demo, answer):
    yield answer.set("cluster", "vmid"), demo.vmids(lambda guest: not guest.config.get("tags"))
    yield "pve05" in answer.notes and "unknown" in answer.notes, True


@question(
    "B64",
    "Which VMs and containers on prod are stopped?",
    call("ListVms", cluster_name="prod", status="stopped"),
)
def stopped_guests(demo, answer):
    stopped = demo.vmids(lambda guest: guest.status == "stopped")
    yield answer.set("vmid"), {vmid for name, vmid in stopped if name == "prod"}
    yield "and 11 more on prod is unknown" in answer.notes, True


@question(
    "B65",
    "How many VMs are paused, running and stopped on prod?",
    call("GetClusterStatus", cluster_name="prod"),
)
def guests_by_state(demo, answer):
    vms = [g for s, g in demo.guests(lambda g: g.kind is Kind.QEMU) if s is demo.prod]
    found = answer.data["vms"]
    yield found["running"], sum(g.running and not g.paused for g in vms)
    yield found["paused"], sum(g.paused for g in vms)
    yield found["stopped"], sum(not g.running for g in vms)
    yield found["templates"], sum(g.template for g in vms)
    yield found["unknown"], len([g for g in demo.prod.guests_on(OFFLINE) if g.kind is Kind.QEMU])


@question(
    "B66",
    "Which operating systems do the VMs run?",
    query("qemu_configs", "os_type", "COUNT(*) as vms", group=["os_type"]),
)
def operating_systems(demo, answer):
    kinds = Counter(g.config["ostype"] for _, g in demo.guests(lambda g: g.kind is Kind.QEMU))
    yield dict(answer.column("os_type", "vms")), dict(kinds)


@question("B69", "Which guests are locked?", query("guests", where=[("is_locked", "=", "true")]))
def locked_guests(demo, answer):
    yield answer.set("cluster", "vmid"), demo.vmids(lambda guest: guest.lock)


@question(
    "B76",
    "How many guests has each tag on prod?",
    query(
        "guests",
        "tags",
        "COUNT(*) as guests",
        group=["tags"],
        order="-guests",
        cluster_name="prod",
    ),
)
def guests_by_tag(demo, answer):
    counts = Counter()
    for guest in demo.prod.guests.values():
        counts.update(str(guest.config.get("tags", "")).split(";"))
    del counts[""]
    yield {tag: n for tag, n in answer.column("tags", "guests") if tag}, dict(counts)


@question(
    "B77",
    "Which guests have more vCPUs than their host has cores?",
    query(
        "guests",
        "cluster",
        "vmid",
        "cpu_count",
        "node.cpu_total",
        where=[("cpu_count", ">", OtherField("node.cpu_total"))],
    ),
)
def more_processors_than_the_host(demo, answer):
    too_many = {
        (state.name, guest.vmid)
        for state, guest in demo.guests()
        if state.cpus_of(guest) > state.nodes[guest.node].cpus
    }
    yield answer.set("cluster", "vmid"), too_many


@question(
    "N1",
    "Wie viele VMs, Kerne und wie viel RAM hat jeder Kunde (Cluster) gebucht?",
    query(
        "guests",
        "cluster",
        "COUNT(*) as guests",
        "SUM(cpu_count) as cores",
        "SUM(memory_max) as memory",
        group=["cluster"],
    ),
)
def booked_by_cluster(demo, answer):
    for state in demo.states.values():
        [row] = [row for row in answer.data if row["cluster"] == state.name]
        known = [g for s, g in demo.guests() if s is state]
        yield row["guests"], len(state.guests)
        yield row["cores"], sum(map(state.cpus_of, known))
        yield row["memory"], sum(guest.memory for guest in known)
    yield "memory_max is unknown in 21 rows" in answer.notes, True


@question("N2", "which one is grafana?", query("guests", where=[("name", "=", "grafana")]))
def same_name_on_two_clusters(demo, answer):
    yield answer.set("cluster", "vmid"), demo.vmids(lambda guest: guest.name == "grafana")
    yield len(answer.data), 2


@question(
    "N3",
    "whats the config of db-primry",
    query("guests", where=[("name", "=", "db-primry")]),
    call("GetVmConfig", cluster_name="prod", vmid=101),
    tokens=1_000,
)
def misspelled_name(demo, answer, config):
    yield answer.data, []
    yield "db-primary" in answer.notes, True
    guest = demo.guest("db-primary")
    yield config.data["memory_mb"] * 2**20, guest.memory


@question(
    "N4",
    "status of 105",
    call("GetVmStatus", vmid=105),
    call("GetVmStatus", vmid=105, cluster_name="prod"),
)
def number_on_two_clusters(demo, refusal, answer):
    yield refusal.failed, True
    for state in demo.states.values():
        yield f"{state.name} has 105 (qemu {state.guests[105].name}" in refusal.text, True
    yield answer.data["status"], demo.prod.guests[105].status
    yield answer.data["memory_max"], demo.prod.guests[105].memory


@question(
    "N5",
    "Welche Gäste sind pausiert?",
    call("ListVms", status="paused"),
)
def paused_guests(demo, answer):
    yield answer.set("cluster", "vmid"), demo.vmids(lambda guest: guest.paused)
    yield bool(answer.data), True


@question(
    "N6",
    "Alles auf pve05: wer ist von dem Ausfall betroffen?",
    query("guests", "vmid", "name", "type", "status", where=[("node", "=", "pve05")]),
)
def guests_of_an_offline_node(demo, answer):
    yield answer.set("vmid"), {guest.vmid for guest in demo.prod.guests_on(OFFLINE)}
    yield answer.set("status"), {"unknown"}
    yield "Offline on prod: pve05" in answer.notes, True


@question(
    "N7",
    "Which pools have no running guest?",
    query(
        "pools", "cluster", "poolid", where=[("guests", "NOT EXISTS", [("status", "=", "running")])]
    ),
)
def pools_without_running_guests(demo, answer):
    empty = {
        (state.name, pool.poolid)
        for state in demo.states.values()
        for pool in state.pools.values()
        if not any(
            g.running and state.nodes[g.node].online
            for g in map(state.guests.__getitem__, pool.vmids)
        )
    }
    yield answer.set("cluster", "poolid"), empty


@question(
    "N8",
    "VMs with more than 32 GB RAM, largest first",
    query(
        "guests",
        "cluster",
        "vmid",
        "name",
        "memory_max",
        where=[("memory_max", ">", "32 GiB"), ("type", "=", "VM")],
        order="-memory_max",
    ),
)
def large_guests(demo, answer):
    large = demo.vmids(lambda guest: guest.kind is Kind.QEMU and guest.memory > 32 * GIB)
    yield answer.set("cluster", "vmid"), large
    sizes = answer.column("memory_max")
    yield sizes, sorted(sizes, reverse=True)


@question(
    "N9",
    "web tagged guests that are not in the production pool",
    query(
        "guests",
        "vmid",
        "name",
        "pool",
        where=[("tags", "CONTAINS", "web"), ("pool", "!=", "production")],
        cluster_name="prod",
    ),
)
def tag_without_pool(demo, answer):
    tagged = {
        guest.vmid
        for guest in demo.prod.guests.values()
        if "web" in str(guest.config.get("tags", "")).split(";")
        and demo.prod.pool_of(guest.vmid) != "production"
    }
    yield answer.set("vmid"), tagged


@question(
    "N10",
    "Which VMs have config changes that wait for a reboot?",
    query("qemu_configs", "vmid", "name", "pending", where=[("pending", "IS NOT NULL")]),
)
def pending_changes(demo, answer):
    waiting = {g.vmid for _, g in demo.guests(lambda g: g.pending or g.removals)}
    yield answer.set("vmid"), waiting
    yield bool(waiting), True


@question(
    "N11",
    "running guests that would not come back after a power cut (onboot off)",
    query(
        "guests",
        "vmid",
        "name",
        where=[("status", "=", "running"), ("qemu_config.on_boot", "=", "false")],
    ),
)
def running_without_onboot(demo, answer):
    fits = {
        g.vmid
        for _, g in demo.guests(
            lambda g: g.running and g.kind is Kind.QEMU and not g.config.get("onboot")
        )
    }
    yield answer.set("vmid"), fits


@question(
    "N12",
    "How many containers have nesting turned on?",
    query("lxc_configs", "COUNT(*) as containers", where=[("features", "CONTAINS", "nesting")]),
)
def containers_with_nesting(demo, answer):
    nested = [
        g
        for _, g in demo.guests(
            lambda g: g.kind is Kind.LXC and "nesting=1" in g.config["features"]
        )
    ]
    yield answer.column("containers"), [len(nested)]


@question(
    "N13",
    "Which environment does the uptime container have? Any secrets in it?",
    query("guests", where=[("name", "=", "uptime")]),
    lambda found: call("GetVmConfig", vmid=found.data[0]["vmid"], cluster_name="prod"),
)
def environment_of_a_container(demo, found, config):
    guest = demo.guest("uptime")
    yield found.column("vmid"), [guest.vmid]
    secret = str(guest.config["env"]).partition("POSTGRES_PASSWORD=")[2].partition("\0")[0]
    yield secret in config.text + config.notes, False
    yield "POSTGRES_PASSWORD" in config.text, True


@question(
    "N14",
    "GPU passthrough: which host has the A40, and which VM uses it?",
    query("pci_devices", "node", "id", "device", where=[("device", "CONTAINS", "A40")]),
    lambda devices: query(
        "qemu_configs",
        "vmid",
        "name",
        "devices",
        where=[("devices", "CONTAINS", devices.data[0]["id"])],
    ),
)
def passed_through_device(demo, devices, answer):
    expected = {
        (node.name, device["id"])
        for node in demo.prod.nodes.values()
        for device in node.pci_devices
        if "A40" in device.get("device_name", "")
    }
    yield devices.set("node", "id"), expected
    address = devices.data[0]["id"]
    users = {g.vmid for _, g in demo.guests(lambda g: address in str(g.config.get("hostpci0")))}
    yield answer.set("vmid"), users
    yield bool(users), True


@question(
    "N48",
    "The two largest guests of each node on prod by memory",
    query(
        "guests",
        "node",
        "vmid",
        "memory_max",
        where=[("memory_max", "IS NOT NULL")],
        order="-memory_max",
        per=("node", 2),
        cluster_name="prod",
    ),
)
def largest_guests_of_each_node(demo, answer):
    for node in (node for node in demo.prod.nodes.values() if node.online):
        sizes = sorted((guest.memory for guest in demo.prod.guests_on(node.name)), reverse=True)
        found = [row["memory_max"] for row in answer.data if row["node"] == node.name]
        yield found, sizes[:2]
    yield len(answer.data), 8
