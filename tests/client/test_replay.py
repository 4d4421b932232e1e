"""Every answer that Proxmox itself gave is understood, on all recorded versions."""

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

import pytest

from proxmox_client import Client

pytestmark = pytest.mark.anyio

Call = Callable[..., Awaitable[Any]]

READS: dict[str, Call] = {
    r"/version": lambda c: c.version(),
    r"/nodes": lambda c: c.nodes(),
    r"/pools": lambda c: c.pools(),
    r"/storage": lambda c: c.storages(),
    r"/cluster/resources": lambda c: c.cluster.resources(),
    r"/cluster/status": lambda c: c.cluster.status(),
    r"/cluster/options": lambda c: c.cluster.options(),
    r"/cluster/tasks": lambda c: c.cluster.tasks(),
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


def answered(exchanges: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Exchanges of a success that one of our methods reads."""
    return [
        one
        for one in exchanges
        if one["method"] == "GET"
        and one["status"] == 200
        and isinstance(one["body"], dict)
        and any(re.fullmatch(path, one["path"]) for path in READS)
    ]


async def replayed(client: Client, pve, exchange: dict[str, Any]) -> Any:
    """Ask what was asked then, and be answered what was answered then."""
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
    seen = set()
    for exchange in answered(exchanges[version]):
        await replayed(client, pve, exchange)
        seen.add(next(path for path in READS if re.fullmatch(path, exchange["path"])))
    only_newer = {r"/cluster/ha/rules", r"/nodes/([^/]+)/lxc/(\d+)/migrate"}
    unseen = set(READS) - seen - (only_newer if version == "8.4" else set())
    assert unseen == set()


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_recorded_pool_is_decoded_with_its_members(version, exchanges, client, pve):
    told = next(
        one["body"]["data"] for one in exchanges[version] if one["path"] == "/pools/prod"
    )  # asked for by its path; asked for by name, the same comes as the one row of a list
    pve.answer("GET /pools", [told])
    found = await client.pool("prod")
    assert (found.pool_id, found.comment) == ("prod", "Production")
    assert [(one.type, one.vmid, one.node) for one in found.members] == [("qemu", 100, "pve1")]


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_recorded_row_of_the_resources_is_kept(version, exchanges, client, pve):
    for exchange in answered(exchanges[version]):
        if exchange["path"] != "/cluster/resources":
            continue
        found = await replayed(client, pve, exchange)
        kinds = [row["type"] for row in exchange["body"]["data"]]
        assert len(found.guests) == kinds.count("qemu") + kinds.count("lxc")
        assert len(found.nodes) == kinds.count("node")
        assert len(found.storages) == kinds.count("storage")
        assert len(found.pools) == kinds.count("pool")
        assert len(found.networks) == kinds.count("sdn") + kinds.count("network")
