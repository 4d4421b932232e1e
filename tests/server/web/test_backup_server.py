"""A Proxmox Backup Server is added, tried and examined like a cluster, with its own words."""

from datetime import UTC, datetime

import pytest

from pvemcp_server.settings import Values
from pvemcp_server.store.records import ClusterKind
from pvemcp_server.tables.history import HistoryRecorder

pytestmark = pytest.mark.anyio


@pytest.fixture
def server(emulator):
    return emulator.backup_servers["backup"]


@pytest.fixture
def fields(server):
    token_id, secret = server.token
    return {
        "name": "backup",
        "kind": "pbs",
        "hosts": server.hosts,
        "tls_mode": "pinned",
        "fingerprints": [server.fingerprint],
        "token_id": token_id,
        "token_secret": secret,
    }


async def test_it_is_tried_added_and_tested_over_the_api(front, fields):
    tried = (await front.api("POST", "/clusters/try", json=fields)).json()
    assert tried == {
        "kind": "pbs",
        "version": "4.1.2",
        "nodes": [],
        "datastores": ["main", "offsite"],
        "missing": [],
        "advice": [],
        "question": "",
        "silent": [],
    }
    assert (await front.api("GET", "/clusters")).json() == []
    added = await front.api("POST", "/clusters", json=fields)
    assert (added.status_code, added.json()["kind"]) == (201, "pbs")
    assert (await front.api("POST", "/clusters/backup/test")).json() == tried
    health = (await front.api("GET", "/overview/clusters")).json()[0]
    assert (health["kind"], health["reachable"]) == ("pbs", True)
    assert health["datastores"] == ["main 74%", "offsite 93%"]
    refused = await front.api("PATCH", "/clusters/backup", json={"kind": "pve"})
    assert refused.status_code == 422


async def test_a_host_without_a_port_gets_that_of_backup_servers(front):
    configs = front.services.access.clusters
    token = {"token_id": "mcp@pbs!token", "secret": "s"}
    hosts = ["pbs.example", "[fd00::1]", "pbs2.example:443"]
    added = await configs.create("vault", hosts, kind=ClusterKind.PBS, **token)
    assert added.hosts == ["pbs.example:8007", "[fd00::1]:8007", "pbs2.example:443"]
    new = {"hosts": ["pbs3.example"], "secrets": {"default": "s"}}
    assert (await configs.change("vault", **new)).hosts == ["pbs3.example:8007"]
    assert (await configs.create("lab", ["pve.example"], **token)).hosts == ["pve.example"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"kind": "pve"},
            [
                "token is wrong",
                "pveum user token list",
                "If the host is no Proxmox VE, choose another kind.",
            ],
        ),
        ({"token_secret": "wrong"}, ["token is wrong", "proxmox-backup-manager user list-tokens"]),
        ({"fingerprints": [":".join(["AB"] * 32)]}, ["proxmox-backup-manager cert info"]),
        ({"hosts": ["127.0.0.1:1"]}, ["8007 by default"]),
        ({"kind": "tape"}, ["kind"]),
    ],
)
async def test_what_is_wrong_is_said_in_the_words_of_its_product(front, fields, change, words):
    refused = await front.api("POST", "/clusters/try", json={**fields, **change})
    assert refused.status_code in (400, 409, 422)
    assert all(word in refused.text for word in words), refused.text


async def test_a_token_with_few_privileges_gets_the_commands(front, fields, server):
    privileges = {"/datastore": frozenset({"Datastore.Audit"})}
    token_id, secret = server.add_account("few@pbs!few", privileges)
    new = {**fields, "token_id": token_id, "token_secret": secret}
    tried = (await front.api("POST", "/clusters/try", json=new)).json()
    assert tried["missing"] == ["Remote.Audit"]
    command = "proxmox-backup-manager acl update / RemoteAudit --auth-id"
    assert tried["advice"] == [f"{command} few@pbs", f"{command} 'few@pbs!few'"]
    await front.api("POST", "/clusters", json=new)
    (report,) = (await front.api("POST", "/doctor?cluster=backup")).json()
    levels = {finding["topic"]: finding["level"] for finding in report["findings"]}
    assert levels == {"tls": "ok", "version": "ok", "datastores": "ok", "rights": "warn"}


async def test_pages_show_what_it_is(front, fields, server):
    new = await front.get("/admin/clusters/new")
    assert "Proxmox Backup Server (read only)" in new.text
    host = {"hosts": server.hosts[0], "kind": "pbs"}
    shown = await front.post("/admin/clusters/fingerprints", **host)
    assert server.fingerprint in shown.text
    assert "proxmox-backup-manager cert info" in shown.text
    form = {**fields, "hosts": server.hosts[0], "fingerprint": server.fingerprint}
    del form["fingerprints"]
    assert "Proxmox Backup Server 4.1.2" in (await front.post("/admin/clusters/try", **form)).text
    assert (await front.post("/admin/clusters", **form)).headers["hx-redirect"]
    assert "Proxmox Backup Server" in (await front.get("/admin/clusters")).text
    assert "main 74%, offsite 93%" in (await front.get("/admin/overview/clusters")).text
    edited = {name: form[name] for name in ("name", "hosts", "tls_mode", "fingerprint")}
    edit = (await front.get("/admin/clusters/backup/edit")).text
    assert '<input type="hidden" name="kind" value="pbs">' in edit
    assert (await front.post("/admin/clusters/backup/change", **edited)).headers["hx-redirect"]
    assert (await front.services.access.clusters.get("backup")).kind is ClusterKind.PBS


async def test_the_history_of_clusters_leaves_it_out(front, server):
    await front.add_cluster(server)
    store, clusters = front.services.store, front.services.clusters
    recorder = HistoryRecorder(store, clusters, lambda: Values(history_minutes=5))
    await recorder.record(datetime.now(UTC))
    assert list(clusters._open.values()) == []
