"""Clusters: their list, their health, their options."""

from collections import Counter
from datetime import UTC, datetime

import msgspec
import pytest

from proxmox_client.api.cluster import ClusterApi
from proxmox_client.emulator import FaultKind
from pvemcp_server.access.freezes import Freeze
from pvemcp_server.access.model import EVERYTHING, Resources
from pvemcp_server.clusters.acl import question

pytestmark = pytest.mark.anyio

CLUSTERS = ("home-lab", "prod")


async def test_list_clusters_has_version_nodes_and_tls(tool_client):
    answer = await tool_client("ListClusters")
    rows = {row["name"]: row for row in answer.data}
    assert list(rows) == ["home-lab", "prod"]
    assert rows["home-lab"]["version"] == "8.4.14"
    assert rows["prod"]["version"] == "9.2.11"
    assert [row["nodes"] for row in rows.values()] == [1, 5]
    assert all(row["reachable"] and row["tls"] == "verified" for row in rows.values())


async def test_list_clusters_has_a_column_more_only_when_frozen(tool_client, monkeypatch):
    assert "frozen" not in (await tool_client("ListClusters")).text
    freeze = Freeze(None, datetime(2027, 1, 31, tzinfo=UTC), "ada", "restore")
    monkeypatch.setattr(tool_client.clusters.freezes, "freeze", freeze)
    assert (await tool_client("ListClusters")).column("frozen") == [
        "since 2027-01-31T00:00:00Z by ada: restore"
    ] * 2


async def test_list_clusters_shows_a_dead_cluster_as_not_reachable(demo_client):
    emulated = demo_client["home-lab"].emulated
    await emulated.node_down("pve")
    answer = await demo_client("ListClusters")
    assert [row["reachable"] for row in answer.data] == [False, True]
    assert "home-lab" in answer.notes


@pytest.mark.parametrize(
    ("scope", "named"),
    [(EVERYTHING, "pve01, pve02"), (Resources(nodes=frozenset({"pve02"})), "pve02"),
     (Resources(nodes=frozenset({"pve03"})), "some nodes")],
)  # fmt: skip
async def test_nodes_that_are_cut_off_are_named(tool_client, monkeypatch, scope, named):
    read = ClusterApi.status

    async def split(api):
        return msgspec.structs.replace(await read(api), cut_off=("pve01", "pve02"))

    monkeypatch.setattr(ClusterApi, "status", split)
    query = {"from": "clusters", "select": ["quorate"]}
    client = tool_client.scoped(scope)
    for answer in (
        await client("GetClusterStatus", cluster_name="prod"),
        await client("ExecuteQuery", cluster_name="prod", query=query),
        *([await client("GetAttention", cluster_name="prod")] if scope is EVERYTHING else []),
    ):
        assert f"prod is split: {named} without quorum" in answer.notes + answer.text


@pytest.mark.parametrize("name", CLUSTERS)
async def test_cluster_status_counts_what_the_cluster_holds(tool_client, name):
    state = tool_client[name].emulated.state
    counts = (await tool_client("GetClusterStatus", cluster_name=name)).data
    guests = list(state.guests.values())
    for kind, field in (("qemu", "vms"), ("lxc", "containers")):
        mine = [guest for guest in guests if guest.kind == kind]
        templates = [guest for guest in mine if guest.template]
        assert counts[field]["total"] == len(mine)
        assert counts[field]["templates"] == len(templates)
        seen = [guest for guest in mine if state.nodes[guest.node].online]
        states = Counter("paused" if guest.paused else guest.status for guest in seen)
        for status in ("running", "stopped", "paused"):
            assert counts[field][status] == states[status]
    online = [node for node in state.nodes.values() if node.online]
    assert counts["nodes_total"] == len(state.nodes)
    assert counts["nodes_online"] == len(online)
    assert counts["nodes_offline"] == len(state.nodes) - len(online)
    assert counts["quorate"] is True
    assert counts["cluster"] == name


async def test_cluster_status_counts_a_shared_storage_once(tool_client):
    state = tool_client["prod"].emulated.state
    counts = (await tool_client("GetClusterStatus", cluster_name="prod")).data
    local = [storage for storage in state.storages.values() if not storage.shared]
    shared = [storage for storage in state.storages.values() if storage.shared]
    assert counts["storages"]["total"] == len(shared) + len(local) * len(state.nodes)


async def test_cluster_status_works_without_access_to_quorum(demo_client, new_token, with_token):
    token = new_token(demo_client["prod"].emulated, ("/vms", "PVEAuditor"))
    narrow = await with_token(demo_client, "prod", token)
    answer = await narrow("GetClusterStatus", cluster_name="prod")
    assert answer.data["quorate"] is None
    assert answer.data["vms"]["total"] > 0
    assert f"{token[0]} lacks Sys.Audit on /" in answer.notes
    assert question(token[0], "/", ["Sys.Audit"]) in answer.notes


async def test_cluster_options_come_with_their_parts_taken_apart(demo_client):
    demo_client["prod"].emulated.state.options |= {
        "migration": "secure,network=10.30.0.0/24",
        "bwlimit": "migration=102400,restore=51200",
        "ha": "shutdown_policy=migrate",
        "keyboard": "de",
        "http_proxy": "http://user:secret@proxy.example.test:3128",
    }
    answer = await demo_client("GetClusterOptions", cluster_name="prod")
    assert answer.data["migration_type"] == "secure"
    assert answer.data["migration_network"] == "10.30.0.0/24"
    assert answer.data["bandwidth_limits"] == {"migration": 102400, "restore": 51200}
    assert answer.data["ha"] == {"shutdown_policy": "migrate"}
    assert answer.data["keyboard"] == "de"
    assert answer.data["http_proxy"] == "http://proxy.example.test:3128"
    assert "secret" not in answer.text


@pytest.mark.parametrize("path", ["/vms", "/nodes", "/pool/web"])
async def test_options_that_an_account_may_not_read_are_noted(
    demo_client, new_token, with_token, path
):
    token = new_token(demo_client["prod"].emulated, (path, "PVEAuditor"))
    narrow = await with_token(demo_client, "prod", token)
    answer = await narrow("GetClusterOptions", cluster_name="prod")
    assert answer.data["mac_prefix"] is None
    assert f"{token[0]} lacks Sys.Audit on / of prod, so Proxmox shows only" in answer.notes
    everything = await demo_client("GetClusterOptions", cluster_name="prod")
    assert "lacks" not in everything.notes


async def test_the_status_has_the_summaries_of_ceph(tool_client):
    answer = await tool_client("GetClusterStatus", cluster_name="prod")
    assert answer.data["ceph"] == {
        "status": "HEALTH_WARN",
        "checks": ["OSD_DOWN: 4 osds down on pve05"],
    }


async def test_a_read_of_one_of_several_clusters_needs_its_name(tool_client):
    error = await tool_client.refused("GetClusterStatus")
    assert error == "cluster_name: say which cluster; you reach home-lab, prod."


async def test_an_unknown_cluster_is_answered_with_the_nearest(tool_client):
    error = await tool_client.refused("GetClusterStatus", cluster_name="homelab")
    assert error == "No cluster 'homelab'. Did you mean home-lab?"


async def test_ceph_is_asked_only_where_a_storage_is_on_ceph(tool_client):
    tool_client.refresh()
    tool_client.requests("home-lab")
    await tool_client("GetClusterStatus", cluster_name="home-lab")
    assert not any("ceph" in request for request in tool_client.requests("home-lab"))


async def test_ceph_that_cannot_be_asked_is_a_note(demo_client):
    demo_client["prod"].emulated.fault(
        FaultKind.ERROR, path="/cluster/ceph", message="rados timeout"
    )
    answer = await demo_client("GetClusterStatus", cluster_name="prod")
    assert answer.data["ceph"] is None
    assert "Ceph's health is not known: Proxmox: 'rados timeout'." in answer.notes
