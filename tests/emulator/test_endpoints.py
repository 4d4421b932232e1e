"""Every emulated endpoint, in every version."""

import re

import pytest

from proxmox_client import schema
from proxmox_client.emulator import Clock, Emulator, Scenario, demo
from proxmox_client.emulator.router import emulated_endpoints

pytestmark = pytest.mark.anyio
VALUES = {
    "node": "pve01",
    "vmid": "101",
    "storage": "local",
    "volume": "local:iso/virtio-win-0.1.240.iso",
    "id": "backup-nightly",
    "userid": "alice@pve",
    "tokenid": "ansible",
    "roleid": "PVEAuditor",
    "realm": "pve",
    "groupid": "admins",
    "poolid": "production",
    "sid": "vm:103",
    "rule": "api-apart",
    "snapname": "before-pg16",
}
PARAMETERS = {
    "/nodes/{node}/query-url-metadata": {"url": "https://x.test/a.iso"},
    "/nodes/{node}/query-oci-repo-tags": {"reference": "nginx"},
    "/nodes/{node}/disks/smart": {"disk": "/dev/sda"},
    "/nodes/{node}/vzdump/extractconfig": None,
    "/nodes/{node}/storage/{storage}/file-restore/list": None,
    "/nodes/{node}/tasks/{upid}/status": None,
    "/nodes/{node}/tasks/{upid}/log": None,
    "/cluster/firewall/groups/{group}": None,
    "/cluster/replication/{id}": None,
    "/nodes/{node}/replication/{id}/status": None,
    "/nodes/{node}/replication/{id}/log": None,
    "/cluster/ha/groups": None,
    "/cluster/ha/groups/{group}": None,
    "/nodes/{node}/qemu/{vmid}/agent/exec-status": None,
    "/nodes/{node}/qemu/{vmid}/agent/file-read": {"file": "/etc/hostname"},
}
"""Required parameters by path; None for endpoints that other tests cover."""


def test_every_emulated_endpoint_is_in_the_schema():
    published = {
        (endpoint.method, endpoint.path)
        for version in schema.VERSIONS
        for endpoint in schema.load(version).endpoints
    }
    assert emulated_endpoints() - published == set()


def readable():
    return sorted(
        path
        for method, path in emulated_endpoints()
        if method == "GET"
        and PARAMETERS.get(path, {}) is not None
        and "{name}" not in path
        and "/lxc/{vmid}" not in path
    )


@pytest.fixture
async def prod(open_client):
    clock = Clock(500)
    async with (
        Emulator(demo(), clock=clock) as pve,
        open_client(pve["prod"], pve["prod"].token) as client,
    ):
        client.cluster.state.user_config.users["alice@pve"].tokens["ansible"] = (
            client.cluster.state.user_config.users["ops@pve"].tokens["ansible"]
        )
        yield client


async def test_every_readable_endpoint_answers(prod):
    failed = {}
    for path in readable():
        params = dict(PARAMETERS.get(path, {}))
        endpoint = schema.load("9.2").find("GET", path)[0]
        if "timeframe" in endpoint.parameters:
            params["timeframe"] = "hour"
        if "prunebackups" in path:
            params["prune-backups"] = "keep-last=1"
        response = await prod.request("GET", path.format(**VALUES), **params)
        if response.status_code != 200:
            failed[path] = response.reason_phrase
    assert failed == {}


ANY_CLUSTER = {"node": "pve1", "vmid": "100", "storage": "shared", "userid": "mcp@pve"}
ANY_CLUSTER |= {"tokenid": "emulator", "roleid": "PVEAuditor"}


@pytest.mark.parametrize("version", schema.VERSIONS)
async def test_every_version_answers_its_endpoints(version, open_client):
    scenario = Scenario.cluster("lab", version=version, nodes=2, guests=4)
    failed = {}
    async with Emulator(scenario) as pve, open_client(pve["lab"], pve["lab"].token) as client:
        pve["lab"].state.oci_images["docker.io/library/nginx"] = ("latest",)
        for path in readable():
            match = schema.load(version).find("GET", path)
            if match is None or set(re.findall(r"{(.*?)}", path)) - ANY_CLUSTER.keys():
                continue
            params = dict(PARAMETERS.get(path, {}))
            if "timeframe" in match[0].parameters:
                params["timeframe"] = "week"
            if "prunebackups" in path:
                params["prune-backups"] = "keep-last=1"
            response = await client.request("GET", path.format(**ANY_CLUSTER), **params)
            if response.status_code != 200 and "ceph" not in path:
                failed[path] = response.reason_phrase
    assert failed == {}


async def test_containers_can_be_read_like_vms(prod):
    for path in ("config", "pending", "status/current", "snapshot", "interfaces", "migrate"):
        response = await prod.request("GET", f"/nodes/pve01/lxc/300/{path}")
        assert response.status_code == 200, path
    rows = await prod.get("/nodes/pve01/lxc/300/rrddata", timeframe="day")
    assert "pressurecpusome" in rows[-1]


async def test_directory_indexes_need_no_handler(prod):
    names = {row["name"] for row in await prod.get("/nodes/pve01")}
    assert {"qemu", "lxc", "storage", "tasks", "status"} <= names
    below = {row["subdir"] for row in await prod.get("/nodes/pve01/qemu/101")}
    assert {"config", "status", "snapshot", "agent"} <= below


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/cluster/nope"), ("DELETE", "/version"), ("POST", "/nodes/pve01/apt/update")],
)
async def test_unknown_endpoints_are_not_implemented(prod, method, path):
    response = await prod.request(method, path)
    assert response.status_code == 501
    assert response.json() == {
        "data": None,
        "message": f"Method '{method} {path}' not implemented",
    }


async def test_an_unknown_node_fails_the_hostname_lookup(prod, reason_of):
    response = await prod.request("GET", "/nodes/nope/status")
    assert response.status_code == 500
    assert reason_of(response).startswith("hostname lookup 'nope' failed")


async def test_ha_groups_are_rules_from_9_on(prod):
    response = await prod.request("GET", "/cluster/ha/groups")
    assert "migrated to rules" in response.reason_phrase
    assert (await prod.get("/cluster/ha/rules"))[0]["rule"] == "prefer-new-nodes"


async def test_replication_runs_and_reports_its_status(prod):
    jobs = await prod.get("/cluster/replication")
    assert len(jobs) == 6
    job = jobs[0]
    broken = await prod.get(f"/nodes/{job['source']}/replication/{job['id']}/status")
    assert (broken["fail_count"], "error" in broken) == (3, True)
    prod.cluster.state.replications[job["id"]].obstacle = ""
    await prod.data("POST", f"/nodes/{job['source']}/replication/{job['id']}/schedule_now")
    await prod.cluster.state.clock.sleep(90)
    repaired = await prod.get(f"/nodes/{job['source']}/replication/{job['id']}/status")
    assert (repaired["fail_count"], "error" in repaired) == (0, False)
    assert repaired["last_sync"] > broken["last_sync"]


async def test_firewall_groups_rules_and_ip_sets_are_stored(prod):
    await prod.data("POST", "/cluster/firewall/groups", group="web")
    rule = {"type": "in", "action": "ACCEPT", "proto": "tcp", "dport": "443", "enable": 1}
    await prod.data("POST", "/cluster/firewall/groups/web", **rule)
    (stored,) = await prod.get("/cluster/firewall/groups/web")
    assert (stored["pos"], stored["dport"]) == (0, "443")
    vm = "/nodes/pve01/qemu/101/firewall"
    await prod.data("POST", f"{vm}/rules", type="in", action="DROP")
    await prod.data("DELETE", f"{vm}/rules/0")
    assert await prod.get(f"{vm}/rules") == []
    await prod.data("POST", "/cluster/firewall/ipset", name="blk")
    await prod.data("POST", "/cluster/firewall/ipset/blk", cidr="10.0.0.0/8")
    assert (await prod.get("/cluster/firewall/ipset/blk"))[0]["cidr"] == "10.0.0.0/8"


async def test_pools_contain_guests_and_storages(prod, reason_of):
    await prod.data("POST", "/pools", poolid="new", comment="New")
    refused = await prod.request("PUT", "/pools", poolid="new", vms="101")
    assert "belongs already to pool 'production' and 'allow-move' is not set" in reason_of(refused)
    await prod.data("PUT", "/pools", poolid="new", vms="101", storage="local", **{"allow-move": 1})
    members = (await prod.get("/pools/new"))["members"]
    assert [member.get("vmid", member.get("storage")) for member in members] == [101, "local"]
    refused = await prod.request("DELETE", "/pools/new")
    assert "is not empty (contains VM 101)" in reason_of(refused)
    await prod.data("PUT", "/pools", poolid="new", vms="101", storage="local", delete=1)
    await prod.data("DELETE", "/pools/new")


async def test_a_token_secret_is_returned_once(prod, open_client):
    created = await prod.data("POST", "/access/users/ops@pve/token/new", privsep=0)
    assert created["full-tokenid"] == "ops@pve!new"
    assert created["value"] not in str(await prod.get("/access/users/ops@pve"))
    async with open_client(prod.cluster, (created["full-tokenid"], created["value"])) as ops:
        assert (await ops.get("/version"))["release"] == "9.2"
        await prod.data("DELETE", "/access/users/ops@pve/token/new")
        assert (await ops.request("GET", "/version")).status_code == 401


async def test_users_groups_roles_and_acl_entries_can_be_changed(prod, reason_of):
    await prod.data("POST", "/access/groups", groupid="night")
    await prod.data("POST", "/access/users", userid="zoe@pve", groups="night", password="12345678")
    await prod.data("POST", "/access/roles", roleid="Look", privs="VM.Audit,Sys.Audit")
    await prod.data("PUT", "/access/acl", path="/vms", roles="Look", groups="night")
    entries = await prod.get("/access/acl")
    assert {
        "path": "/vms",
        "roleid": "Look",
        "ugid": "night",
        "type": "group",
        "propagate": 1,
    } in entries
    await prod.data("PUT", "/access/acl", path="/vms", roles="Look", groups="night", delete=1)
    assert all(entry["ugid"] != "night" for entry in await prod.get("/access/acl"))
    await prod.data("DELETE", "/access/groups/night")
    assert (await prod.get("/access/users/zoe@pve"))["groups"] == []
    await prod.data("DELETE", "/access/users/zoe@pve")
    missing = await prod.request("GET", "/access/users/zoe@pve")
    assert reason_of(missing) == "no such user ('zoe@pve')"


async def test_a_bug_in_a_handler_is_logged_and_answered_with_500(prod, monkeypatch, caplog):
    def broken_handler(_request):
        raise LookupError("an unexpected error")

    monkeypatch.setattr("proxmox_client.emulator.gateway.find_handler", lambda *_: broken_handler)
    response = await prod.request("GET", "/version")
    assert (response.status_code, response.reason_phrase) == (
        500,
        "the emulator made a mistake: see its log",
    )
    assert "an unexpected error" in caplog.text


async def test_a_bug_in_a_task_ends_it(prod, caplog):
    async def broken_task(_context):
        raise LookupError("an unexpected error")

    upid = prod.cluster.tasks.start("pve01", "qmstart", "1", "root@pam", broken_task)
    await prod.cluster.tasks.settle()
    assert prod.cluster.state.tasks[upid].outcome.startswith("the emulator made a mistake")
    assert upid in caplog.text
