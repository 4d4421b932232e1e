"""Rules and options of the firewall, compared with the emulator's state and with recordings."""

import json
import re

import msgspec
import pytest

from proxmox_client.api import firewall as answers
from pvemcp_server.tables import load, tables
from pvemcp_server.tables.firewall import _options, _Place, _rule
from pvemcp_server.tables.registry import LoadRequest

pytestmark = pytest.mark.anyio


def rows(name, cluster, **narrowed):
    request = LoadRequest(**{key: frozenset(values) for key, values in narrowed.items()})
    return load(tables()[name], cluster, request)


async def test_every_level_has_its_rules_in_order(open_cluster):
    rules = await rows("firewall_rules", open_cluster())
    found = [
        (row.level, row.group or row.vmid or row.node, row.position, row.enabled, row.direction)
        for row in rules
    ]
    assert found == [
        ("cluster", None, 0, True, "in"),
        ("cluster", None, 1, True, "in"),
        ("node", "pve01", 0, True, "in"),
        ("guest", 105, 0, True, "group"),
        ("guest", 105, 1, False, "in"),
        ("guest", 200, 0, True, "in"),
        ("group", "webserver", 0, True, "in"),
        ("group", "webserver", 1, False, "in"),
    ]
    ssh, ban, *_, web, _ = rules
    assert (ssh.action, ssh.macro, ssh.source, ssh.comment) == (
        "ACCEPT", "SSH", "+admins", "administrators",
    )  # fmt: skip
    assert (ban.action, ban.source, ban.log) == ("DROP", "192.0.2.0/24", "info")
    assert (web.protocol, web.destination_port) == ("tcp", "80,443")
    assert rules[3].action == "webserver"


async def test_rules_say_that_they_are_in_force_only_where_the_firewall_is_on(open_cluster):
    cluster = open_cluster()
    await rows("firewall_rules", cluster, types={"guest"})
    [note] = [text for text in cluster.notes if "a firewall that is off applies none" in text]
    assert cluster.notes[note].fact
    unfiltered = open_cluster()
    assert not await rows("firewall_rules", unfiltered, types={"node"}, nodes={"pve02"})
    assert note not in unfiltered.notes


async def test_options_have_the_defaults_of_their_level(open_cluster):
    options = await rows("firewall_options", open_cluster())
    by_place = {(row.level, row.vmid or row.node): row for row in options}
    cluster, node = by_place["cluster", None], by_place["node", "pve02"]
    assert (cluster.enabled, cluster.policy_in, cluster.policy_out) == (True, "DROP", "ACCEPT")
    assert (node.enabled, node.policy_in, node.mac_filter) == (True, None, None)
    on = [row.vmid for row in options if row.level == "guest" and row.enabled]
    assert on == [105]
    guest, mail = by_place["guest", 105], by_place["guest", 200]
    assert (guest.policy_in, guest.policy_out, guest.mac_filter) == ("DROP", "ACCEPT", True)
    assert (mail.enabled, mail.policy_in) == (False, "ACCEPT")


@pytest.mark.parametrize("name", ["firewall_rules", "firewall_options"])
@pytest.mark.parametrize(
    ("narrowed", "refused"),
    [
        ({"types": {"cluster"}}, "/nodes/"),
        ({"types": {"node"}}, "/nodes/[^/]*/(qemu|lxc)|/cluster/firewall"),
        (
            {"vmids": {105}},
            "/nodes/[^/]*/(qemu|lxc)/(?!105)|/cluster/firewall|/nodes/[^/]*/firewall",
        ),
        ({"types": {"guest"}, "nodes": {"pve02"}}, "/nodes/(?!pve02)|/cluster/firewall"),
    ],
)
async def test_conditions_save_calls(open_cluster, pve, name, narrowed, refused):
    fault = pve["prod"].fault("error", path=refused, message="asked")
    cluster = open_cluster()
    try:
        answered = await rows(name, cluster, **narrowed)
    finally:
        pve["prod"].faults.remove(fault)
    assert answered
    assert not any("asked" in note for note in cluster.notes)


async def test_a_missing_privilege_is_a_note_with_its_name(open_cluster, pve):
    cluster = open_cluster()
    fault = pve["prod"].fault("forbidden", path="/cluster/firewall/rules", message="/, Sys.Audit")
    try:
        rules = await rows("firewall_rules", cluster, types={"cluster"})
    finally:
        pve["prod"].faults.remove(fault)
    [note] = cluster.notes
    assert rules == []
    assert note.startswith("Missing from prod: firewall rules of the cluster. ")
    assert "lacks Sys.Audit on /" in note


@pytest.mark.parametrize("version", ["8.4", "9.1", "9.2", "9.2-more"])
def test_recorded_answers_are_rows(pve_recordings, version):
    rules, options = [], []
    for line in (pve_recordings / f"exchanges-{version}.jsonl").read_text().splitlines():
        exchange = json.loads(line)
        if exchange["method"] != "GET" or exchange["status"] != 200:
            continue
        if re.search(r"/firewall/(rules|groups/\w+)$", exchange["path"]):
            listed = msgspec.convert(
                exchange["body"]["data"], list[answers.FirewallRule], strict=False
            )
            rules += [_rule(_Place("cluster"), rule) for rule in listed]
        if exchange["path"].endswith("/firewall/options"):
            answer = exchange["body"]["data"]
            converted = msgspec.convert(answer, answers.FirewallOptions, strict=False)
            options.append(_options(_Place("guest", vmid=100), converted))
    if version == "9.2-more":
        assert {(row.action, row.enabled) for row in rules} == {("ACCEPT", True), ("DROP", False)}
        assert {row.policy_in for row in options} == {"ACCEPT", "DROP"}
    else:
        assert {(row.action, row.destination_port) for row in rules} == {
            ("ACCEPT", "443"), ("DROP", None),
        }  # fmt: skip
        assert not any(row.enabled for row in options)
