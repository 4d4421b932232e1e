"""Questions on networks, addresses and the firewall."""

from proxmox_client.emulator.state.guest import Kind

from .model import query, question


def networks(demo):
    """List VMID, device and configuration of the network devices."""
    for state, guest in demo.guests():
        for key, value in guest.config.items():
            if key.rstrip("0123456789") == "net":
                yield state, guest, key, str(value)


@question(
    "B13",
    "Give me the IPs of all running containers",
    query("addresses", "cluster", "vmid", "address", where=[("type", "=", "lxc")]),
)
def addresses_of_containers(demo, answer):
    running = {
        (state.name, guest.vmid, guest.addresses[0])
        for state, guest in demo.guests(lambda g: g.kind is Kind.LXC and g.running)
    }
    yield answer.set("cluster", "vmid", "address"), running


@question(
    "B26",
    "Which VLANs are there, and who is in them?",
    query("networks", "vlan", "vmid", "vm_name", where=[("vlan", "IS NOT NULL")], order="vlan"),
)
def vlans(demo, answer):
    tagged = {
        (int(value.partition("tag=")[2].partition(",")[0]), guest.vmid)
        for _, guest, _, value in networks(demo)
        if "tag=" in value
    }
    yield answer.set("vlan", "vmid"), tagged
    yield bool(tagged), True


@question(
    "B27",
    "What is 10.20.50.120?",
    query("networks", "vmid", "ip", where=[("ip", "CONTAINS", "10.20.50.120")]),
    query("addresses", "vmid", "vm_name", "address", where=[("address", "=", "10.20.50.120")]),
)
def owner_of_an_address(demo, configured, answer):
    yield configured.data, []
    yield "ip is unknown in" in configured.notes, True
    fits = demo.guests(lambda g: g.agent and "10.20.50.120" in g.agent.addresses)
    yield answer.column("vmid", "vm_name"), [(g.vmid, g.name) for _, g in fits]


@question(
    "B41",
    "Which NICs still are e1000 or rtl8139?",
    query("networks", "vmid", "id", where=[("model", "IN", ["e1000", "rtl8139"])]),
)
def old_models(demo, answer):
    old = {
        (guest.vmid, key)
        for _, guest, key, value in networks(demo)
        if value.startswith(("e1000", "rtl8139"))
    }
    yield answer.set("vmid", "id"), old


@question(
    "B42",
    "Which NICs have the firewall off?",
    query("networks", "vmid", "id", where=[("firewall", "=", "false")]),
)
def without_firewall(demo, answer):
    off = {(g.vmid, key) for _, g, key, value in networks(demo) if "firewall=1" not in value}
    yield answer.set("vmid", "id"), off
    yield bool(off), True


@question(
    "B75",
    "Who owns the MAC address BC:24:11:0A:B4:00?",
    query("networks", "vmid", "vm_name", where=[("mac", "=", "bc:24:11:0a:b4:00")]),
)
def owner_of_a_mac_address(demo, answer):
    owners = {g.vmid for _, g, _, value in networks(demo) if "BC:24:11:0A:B4:00" in value}
    yield answer.set("vmid"), owners


@question(
    "N21",
    "Any duplicate MAC addresses on prod?",
    query(
        "networks",
        "mac",
        "COUNT(*) as devices",
        group=["mac"],
        having=[("devices", ">", 1)],
        cluster_name="prod",
    ),
)
def duplicate_mac_addresses(demo, answer):
    yield answer.data, []
    yield "pve05" in answer.notes, True


@question(
    "N22",
    "Which guests have a static address in their config?",
    query("networks", "vmid", "vm_name", "ip", where=[("ip", "CONTAINS", "/")]),
)
def static_addresses(demo, answer):
    fixed = {
        (guest.vmid, value.partition("ip=")[2].partition(",")[0])
        for _, guest, _, value in networks(demo)
        if "/" in value.partition("ip=")[2].partition(",")[0]
    }
    yield answer.set("vmid", "ip"), fixed
    yield bool(fixed), True


@question(
    "N23",
    "Where is SSH open, and for whom?",
    query(
        "firewall_rules",
        "cluster",
        "level",
        "node",
        "vmid",
        "source",
        "enabled",
        where=[("macro", "=", "SSH")],
    ),
)
def rules_for_ssh(demo, answer):
    rules = [
        (rule.get("source"), bool(rule["enable"]))
        for rules in demo.prod.firewalls.values()
        for rule in rules.rules
        if rule.get("macro") == "SSH"
    ]
    found = [(row["source"], row["enabled"]) for row in answer.data if row["cluster"] == "prod"]
    yield sorted(found, key=str), sorted(rules, key=str)
