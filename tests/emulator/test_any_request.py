"""Random requests, valid and invalid, never cause an internal error."""

import logging
import random
from urllib.parse import quote, urlencode

import pytest

from proxmox_client.emulator import Clock, EmulatedCluster
from proxmox_client.emulator.gateway import Gateway
from proxmox_client.emulator.http.messages import Request
from proxmox_client.emulator.router import emulated_endpoints
from proxmox_client.emulator.scenario.prod import prod

pytestmark = pytest.mark.anyio
REQUESTS = 700
CANDIDATES = {
    "node": ("pve01", "pve02", "pve05", "nope"),
    "vmid": ("100", "101", "200", "300", "9000", "999"),
    "storage": ("local", "pbs-main", "ceph-vm", "nope"),
    "volume": ("local:iso/virtio-win-0.1.240.iso", "nope", "ceph-vm:vm-101-disk-0"),
    "target": ("pve02", "pve05", "x"),
    "snapname": ("one", "before-pg16", "current"),
    "poolid": ("production", "new"),
    "newid": ("700", "100"),
    "disk": ("scsi0", "scsi9", "rootfs"),
    "size": ("+1G", "1G", "10"),
    "userid": ("alice@pve", "x@pve", "bad"),
    "id": ("backup-nightly", "103-0", "x"),
    "sid": ("vm:103", "103", "ct:300", "vm:9999", "vm:x"),
    "content": ("iso", "images", "backup"),
    "url": ("https://x.test/a.iso",),
    "filename": ("a.iso", "b.tar.gz", "../c.iso"),
    "vms": ("101", "101,102", "x"),
    "targetstorage": ("1", "ceph-vm", "a:b"),
    "schedule": ("daily", "mon..fri 2:00", "*/5", "bogus", "0"),
    "prune-backups": ("keep-last=1", "keep-all=1", "x"),
    "path": ("/", "/vms/1", "x"),
    "delete": ("memory", "onboot,tags", "x"),
    "archive": ("pbs-main:backup/x", "x"),
    "rootfs": ("local-zfs:8", "local:4", "x"),
    "scsi0": ("ceph-vm:8", "none", "local:iso/x.iso,media=cdrom"),
    "net0": ("virtio,bridge=vmbr0", "x"),
}
WORDS = ("a1", "100", "local", "x y", "ünï", "", " ", "\x00", "%", "../..", "-1", "x" * 500)


class RequestGenerator:
    """Generates random requests to emulated endpoints from the schema."""

    def __init__(self, cluster, seed):
        self.random = random.Random(seed)  # noqa: S311 - which request comes next is no secret
        self.cluster = cluster
        self.endpoints = [
            endpoint
            for endpoint in cluster.schema.endpoints
            if (endpoint.method, endpoint.path) in emulated_endpoints()
            and endpoint.permissions != "world"
        ]

    def request(self):
        endpoint = self.random.choice(self.endpoints)
        params = {
            name.replace("[n]", "0"): self.value(name.replace("[n]", "0"), parameter)
            for name, parameter in endpoint.parameters.items()
            if not parameter.optional or self.random.random() < 0.25
        }
        path = endpoint.path
        for name in [name for name in params if f"{{{name}}}" in path]:
            path = path.replace(f"{{{name}}}", quote(str(params.pop(name)) or "-", safe=""))
        text = urlencode(params, doseq=True)
        name, secret = self.cluster.token
        headers = {"authorization": f"PVEAPIToken={name}={secret}"}
        in_query = endpoint.method in ("GET", "DELETE")
        query, body = (text, b"") if in_query else ("", text.encode())
        return Request(endpoint.method, f"/api2/json{path}", query, headers, body)

    def value(self, name, parameter):
        choose = self.random.choice
        if self.random.random() < 0.05:
            return choose(WORDS)
        if name in CANDIDATES:
            return choose(CANDIDATES[name])
        if parameter.enum:
            return choose(parameter.enum)
        if parameter.type == "boolean":
            return choose("01")
        if parameter.type in ("integer", "number"):
            return choose(("0", "1", "5", "100", "1000000"))
        if parameter.parts:
            required = {k: v for k, v in parameter.parts.items() if not v.optional and not v.alias}
            return ",".join(f"{k}={self.value(k, v)}" for k, v in required.items()) or choose("1x")
        return choose(WORDS)


@pytest.mark.parametrize("seed", range(4))
async def test_random_requests_never_fail_internally_and_tasks_end(seed, caplog):
    cluster = EmulatedCluster(prod(Clock(1_000_000)))
    gateway = Gateway(cluster, cluster.state.nodes["pve01"])
    generator = RequestGenerator(cluster, seed)
    with caplog.at_level(logging.ERROR):
        statuses = {(await gateway.answer(generator.request())).status for _ in range(REQUESTS)}
        await cluster.tasks.settle()
    assert caplog.messages == []
    assert {200, 400, 500, 595} <= statuses <= {200, 400, 403, 500, 501, 595}
    assert not any(task.running for task in cluster.state.tasks.values())
    response = await gateway.answer(
        Request("GET", "/api2/json/cluster/resources", headers=generator.request().headers)
    )
    assert response.status == 200
