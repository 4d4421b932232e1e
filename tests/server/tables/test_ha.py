"""Rules and groups of high availability, each in the versions that have them."""

import json

import msgspec
import pytest

from proxmox_client.api import ha as answers
from proxmox_client.emulator.state.jobs import HaResource
from pvemcp_server.access.model import Resources
from pvemcp_server.tables import load, tables
from pvemcp_server.tables.ha import _rule

pytestmark = pytest.mark.anyio


def rows(name, cluster):
    return load(tables()[name], cluster)


@pytest.fixture
def grouped(pve):
    """Give home-lab, of 8.4, a group with two guests."""
    state = pve["home-lab"].state
    state.ha_groups["fast"] = {
        "group": "fast", "nodes": "pve:2,pve2", "restricted": 1, "type": "group", "comment": "x",
    }  # fmt: skip
    for sid in ("vm:101", "ct:200"):
        state.ha_resources[sid] = HaResource(sid, group="fast")
    yield
    state.ha_groups.clear()
    state.ha_resources.clear()


async def test_rules_have_their_guests_and_nodes(open_cluster):
    rules = {row.rule: row for row in await rows("ha_rules", open_cluster())}
    prefer, apart = rules["prefer-new-nodes"], rules["api-apart"]
    assert (prefer.type, prefer.vmids, prefer.nodes) == (
        "node-affinity", [103, 110], ["pve03", "pve04"],
    )  # fmt: skip
    assert (prefer.strict, prefer.affinity, prefer.enabled) == (False, None, True)
    assert (apart.vmids, apart.nodes, apart.strict, apart.affinity) == (
        [110, 111], [], None, "negative",
    )  # fmt: skip


async def test_a_rule_shows_visible_guests_only(open_cluster):
    cluster = open_cluster("prod", Resources(vmids=frozenset({103})))
    [rule] = await rows("ha_rules", cluster)
    assert (rule.rule, rule.vmids, rule.resources) == ("prefer-new-nodes", [103], ["vm:103"])
    assert await rows("ha_rules", open_cluster("prod", Resources(vmids=frozenset({101})))) == []


async def test_a_version_without_rules_says_where_its_groups_are(open_cluster):
    cluster = open_cluster("home-lab")
    assert await rows("ha_rules", cluster) == []
    note = "home-lab has no HA rules before Proxmox VE 9: see ha_groups."
    assert list(cluster.notes) == [note]


async def test_groups_have_their_guests(open_cluster, grouped):
    cluster = open_cluster("home-lab")
    [group] = await rows("ha_groups", cluster)
    assert (group.group, group.nodes, group.vmids) == ("fast", ["pve:2", "pve2"], [101, 200])
    assert (group.restricted, group.no_failback, group.comment) == (True, False, "x")
    narrow = open_cluster("home-lab", Resources(vmids=frozenset({200})))
    assert [row.vmids for row in await rows("ha_groups", narrow)] == [[200]]
    assert await rows("ha_groups", open_cluster("home-lab", Resources(vmids=frozenset({1})))) == []


async def test_a_version_without_groups_says_where_its_rules_are(open_cluster):
    cluster = open_cluster()
    assert await rows("ha_groups", cluster) == []
    assert list(cluster.notes) == ["prod has HA rules in place of groups: see ha_rules."]


def test_recorded_rules_are_rows(pve_recordings):
    made = []
    for line in (pve_recordings / "exchanges-9.2-more.jsonl").read_text().splitlines():
        exchange = json.loads(line)
        if (exchange["method"], exchange["path"]) == ("GET", "/cluster/ha/rules"):
            listed = exchange["body"]["data"]
            made += map(_rule, msgspec.convert(listed, list[answers.HaRule], strict=False))
    assert {(row.enabled, row.strict) for row in made} == {(True, False), (False, False)}
    assert {tuple(row.resources) for row in made} == {("vm:109", "ct:400")}
    assert made[0].nodes == ["pve1:2", "pve2"]


async def test_guests_are_looked_at_once_however_many_groups_there_are(open_cluster, monkeypatch):
    class Counted:
        looks = 0

        @property
        def group(self):
            Counted.looks += 1
            return "g1"

        sid = "vm:101"

    async def groups():
        return [answers.HaGroup(group=f"g{number}", nodes="pve") for number in range(20)]

    async def resources():
        return [Counted() for _ in range(30)]

    cluster = open_cluster("home-lab")
    monkeypatch.setattr(cluster.pve.cluster, "ha_groups", groups)
    monkeypatch.setattr(cluster.pve.cluster, "ha_resources", resources)
    assert [len(row.vmids) for row in await rows("ha_groups", cluster)] == [0, 30, *[0] * 18]
    assert Counted.looks == 30
