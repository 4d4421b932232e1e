"""Recorded answers of real Proxmox clusters are decoded, for every recorded version."""

import json
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

import pytest

from proxmox_client import Client, ProxmoxError

pytestmark = pytest.mark.anyio

Read = Callable[..., Awaitable[Any]]

READS: dict[str, Read] = {
    r"/version": lambda c: c.version(),
    r"/nodes": lambda c: c.nodes(),
    r"/pools": lambda c: c.pools(),
    r"/storage": lambda c: c.storages(),
    r"/cluster/resources": lambda c: c.cluster.resources(),
    r"/cluster/status": lambda c: c.cluster.status(),
    r"/cluster/options": lambda c: c.cluster.options(),
    r"/cluster/tasks": lambda c: c.cluster.tasks(),
    r"/cluster/log": lambda c: c.cluster.log(),
    r"/cluster/firewall/rules": lambda c: c.cluster.firewall().rules(),
    r"/cluster/firewall/options": lambda c: c.cluster.firewall().options(),
    r"/cluster/firewall/groups": lambda c: c.cluster.firewall_groups(),
    r"/cluster/firewall/groups/([^/]+)": lambda c, group: c.cluster.firewall(group).rules(),
    r"/nodes/([^/]+)/firewall/rules": lambda c, node: c.node(node).firewall.rules(),
    r"/nodes/([^/]+)/firewall/options": lambda c, node: c.node(node).firewall.options(),
    r"/nodes/([^/]+)/qemu/(\d+)/firewall/rules": lambda c, n, i: c.qemu(n, int(i)).firewall.rules(),
    r"/nodes/([^/]+)/lxc/(\d+)/firewall/options": (
        lambda c, n, i: c.lxc(n, int(i)).firewall.options()
    ),
    r"/cluster/nextid": lambda c: c.cluster.nextid(),
    r"/cluster/backup": lambda c: c.cluster.backup_jobs(),
    r"/cluster/backup/([^/]+)/included_volumes": lambda c, job: c.cluster.backup_job_volumes(job),
    r"/cluster/backup-info/not-backed-up": lambda c: c.cluster.not_backed_up(),
    r"/cluster/ha/resources": lambda c: c.cluster.ha_resources(),
    r"/cluster/ha/status/current": lambda c: c.cluster.ha_status(),
    r"/cluster/ha/rules": lambda c: c.cluster.ha_rules(),
    r"/cluster/replication": lambda c: c.cluster.replications(),
    r"/access/permissions": lambda c: c.access.permissions(),
    r"/access/users": lambda c: c.access.users(),
    r"/access/users/([^/]+)": lambda c, user: c.access.user(user),
    r"/access/users/([^/]+)/token": lambda c, user: c.access.tokens(user),
    r"/access/roles": lambda c: c.access.roles(),
    r"/access/groups": lambda c: c.access.groups(),
    r"/access/acl": lambda c: c.access.acl(),
    r"/access/domains": lambda c: c.access.realms(),
    r"/nodes/([^/]+)/status": lambda c, node: c.node(node).status(),
    r"/nodes/([^/]+)/time": lambda c, node: c.node(node).time(),
    r"/nodes/([^/]+)/rrddata": lambda c, node: c.node(node).rrd("hour"),
    r"/nodes/([^/]+)/disks/list": lambda c, node: c.node(node).disks(),
    r"/nodes/([^/]+)/hardware/pci": lambda c, node: c.node(node).pci_devices(),
    r"/nodes/([^/]+)/apt/versions": lambda c, node: c.node(node).package_versions(),
    r"/nodes/([^/]+)/apt/update": lambda c, node: c.node(node).updates(),
    r"/nodes/([^/]+)/services": lambda c, node: c.node(node).services(),
    r"/nodes/([^/]+)/certificates/info": lambda c, node: c.node(node).certificates(),
    r"/nodes/([^/]+)/subscription": lambda c, node: c.node(node).subscription(),
    r"/nodes/([^/]+)/network": lambda c, node: c.node(node).network(),
    r"/nodes/([^/]+)/qemu": lambda c, node: c.node(node).qemus(),
    r"/nodes/([^/]+)/lxc": lambda c, node: c.node(node).lxcs(),
    r"/nodes/([^/]+)/storage": lambda c, node: c.node(node).storages(),
    r"/nodes/([^/]+)/replication": lambda c, node: c.node(node).replications(),
    r"/nodes/([^/]+)/tasks": lambda c, node: c.node(node).tasks(),
    r"/nodes/([^/]+)/query-url-metadata": lambda c, node: c.node(node).url_metadata("http://x"),
    r"/nodes/([^/]+)/qemu/(\d+)/config": lambda c, n, i: c.qemu(n, int(i)).config(),
    r"/nodes/([^/]+)/qemu/(\d+)/pending": lambda c, n, i: c.qemu(n, int(i)).pending(),
    r"/nodes/([^/]+)/qemu/(\d+)/status/current": lambda c, n, i: c.qemu(n, int(i)).status(),
    r"/nodes/([^/]+)/qemu/(\d+)/rrddata": lambda c, n, i: c.qemu(n, int(i)).rrd("hour"),
    r"/nodes/([^/]+)/qemu/(\d+)/snapshot": lambda c, n, i: c.qemu(n, int(i)).snapshots(),
    r"/nodes/([^/]+)/qemu/(\d+)/migrate": lambda c, n, i: c.qemu(n, int(i)).migrate_check(),
    r"/nodes/([^/]+)/lxc/(\d+)/config": lambda c, n, i: c.lxc(n, int(i)).config(),
    r"/nodes/([^/]+)/lxc/(\d+)/pending": lambda c, n, i: c.lxc(n, int(i)).pending(),
    r"/nodes/([^/]+)/lxc/(\d+)/status/current": lambda c, n, i: c.lxc(n, int(i)).status(),
    r"/nodes/([^/]+)/lxc/(\d+)/rrddata": lambda c, n, i: c.lxc(n, int(i)).rrd("hour"),
    r"/nodes/([^/]+)/lxc/(\d+)/snapshot": lambda c, n, i: c.lxc(n, int(i)).snapshots(),
    r"/nodes/([^/]+)/lxc/(\d+)/migrate": lambda c, n, i: c.lxc(n, int(i)).migrate_check(),
    r"/nodes/([^/]+)/lxc/(\d+)/interfaces": lambda c, n, i: c.lxc(n, int(i)).interfaces(),
    r"/nodes/([^/]+)/storage/([^/]+)/status": lambda c, n, s: c.storage(n, s).status(),
    r"/nodes/([^/]+)/storage/([^/]+)/content": lambda c, n, s: c.storage(n, s).content(),
    r"/nodes/([^/]+)/storage/([^/]+)/rrddata": lambda c, n, s: c.storage(n, s).rrd("hour"),
    r"/nodes/([^/]+)/storage/([^/]+)/content/([^/]+)": (
        lambda c, n, s, v: c.storage(n, s).volume(v)
    ),
    r"/nodes/[^/]+/tasks/([^/]+)/status": lambda c, upid: c.task(upid).status(),
    r"/nodes/[^/]+/tasks/([^/]+)/log": lambda c, upid: c.task(upid).log(),
}

VERSIONS = ["8.4", "9.1", "9.2"]
NOT_RECORDED = {
    "8.4": {r"/cluster/ha/rules", r"/nodes/([^/]+)/lxc/(\d+)/migrate"},
    "9.2": {r"/nodes/([^/]+)/subscription"},
}
"""Reads without a successful answer: those of newer versions, and one that failed."""
UNUSUAL = "9.2-more"
"""The recordings of unusual states and of narrow accounts."""


def readable(exchanges: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Select the successful reads for which the client has a method."""
    return [
        exchange
        for exchange in exchanges
        if exchange["method"] == "GET"
        and exchange["status"] == 200
        and isinstance(exchange["body"], dict)
        and any(re.fullmatch(path, exchange["path"]) for path in READS)
    ]


async def replay(client: Client, pve, exchange: dict[str, Any]) -> Any:
    """Send the recorded request through the client and return its decoded answer."""
    path = exchange["path"]
    pattern = next(pattern for pattern in READS if re.fullmatch(pattern, path))
    names = [unquote(name) for name in re.fullmatch(pattern, path).groups()]
    pve.answers.clear()
    pve.requests.clear()
    encoded = path if "%" in path else path.replace("!", "%21").replace("@", "%40")
    pve.respond(f"GET {encoded}", 200, "OK", json.dumps(exchange["body"]).encode())
    return await READS[pattern](client, *names)


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_recorded_answer_is_decoded(version, exchanges, client, pve):
    covered = set()
    for exchange in readable(exchanges[version]):
        await replay(client, pve, exchange)
        covered.add(next(path for path in READS if re.fullmatch(path, exchange["path"])))
    assert set(READS) - covered == NOT_RECORDED.get(version, set())


AGENT_READS: dict[str, Read] = {
    "get-osinfo": lambda c, n, i: c.qemu(n, i).agent_os_info(),
    "network-get-interfaces": lambda c, n, i: c.qemu(n, i).agent_network(),
    "get-fsinfo": lambda c, n, i: c.qemu(n, i).agent_filesystems(),
}


async def test_every_recorded_answer_of_the_guest_agent_is_decoded_or_an_error(
    exchanges, client, pve
):
    for exchange in exchanges[UNUSUAL]:
        match = re.fullmatch(r"/nodes/(\w+)/qemu/(\d+)/agent/([a-z-]+)", exchange["path"])
        if match is None or match[3] not in AGENT_READS:
            continue
        pve.answers.clear()
        body = json.dumps(exchange["body"]).encode()
        pve.respond(f"GET {exchange['path']}", exchange["status"], exchange["reason"], body)
        with suppress(ProxmoxError):
            await AGENT_READS[match[3]](client, match[1], int(match[2]))


async def test_every_recorded_answer_of_unusual_states_is_decoded(exchanges, client, pve):
    decoded = [await replay(client, pve, exchange) for exchange in readable(exchanges[UNUSUAL])]
    assert len(decoded) > 450


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_recorded_pool_is_decoded_with_its_members(version, exchanges, client, pve):
    # recorded by path; requested by name, the same data is the only row of a list
    row = next(
        exchange["body"]["data"]
        for exchange in exchanges[version]
        if exchange["path"] == "/pools/prod"
    )
    pve.answer("GET /pools", [row])
    pool = await client.pool("prod")
    assert (pool.pool_id, pool.comment) == ("prod", "Production")
    members = [(member.type, member.vmid, member.node) for member in pool.members]
    assert members == [("qemu", 100, "pve1")]


@pytest.mark.parametrize("version", [*VERSIONS, UNUSUAL])
async def test_no_recorded_resource_is_lost(version, exchanges, client, pve):
    for exchange in readable(exchanges[version]):
        if exchange["path"] != "/cluster/resources":
            continue
        resources = await replay(client, pve, exchange)
        kinds = [row["type"] for row in exchange["body"]["data"]]
        assert len(resources.guests) == kinds.count("qemu") + kinds.count("lxc")
        assert len(resources.nodes) == kinds.count("node")
        assert len(resources.storages) == kinds.count("storage")
        assert len(resources.pools) == kinds.count("pool")
        assert len(resources.networks) == kinds.count("sdn") + kinds.count("network")
