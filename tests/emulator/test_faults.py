"""Injected faults and their removal."""

import asyncio
import ssl
import time

import httpx2 as httpx
import pytest

from proxmox_client.emulator import Emulator, ManualClock, Scenario
from proxmox_client.emulator.errors import ApiError

pytestmark = pytest.mark.anyio
OTHER = "/nodes/pve2/status"


async def test_an_offline_node_refuses_and_other_nodes_answer_595(admin, lab):
    port = lab.state.nodes["pve2"].port
    await lab.node_down("pve2")
    response = await admin.request("GET", OTHER)
    assert (response.status_code, response.reason_phrase) == (595, "No route to host")
    assert response.content == b""
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_an_offline_node_is_listed_with_its_size_only(admin, lab):
    await lab.node_down("pve2")
    row = next(row for row in await admin.get("/nodes") if row["node"] == "pve2")
    assert row["status"] == "offline"
    assert {"maxcpu", "maxmem", "maxdisk"} <= row.keys()
    assert row.keys().isdisjoint({"cpu", "mem", "uptime"})


async def test_guests_of_an_offline_node_become_unknown_after_five_minutes(admin, lab):
    guests = {guest.vmid for guest in lab.state.guests_on("pve2")}
    await lab.node_down("pve2")
    rows = [row for row in await admin.get("/cluster/resources") if row.get("vmid") in guests]
    assert all("name" in row for row in rows)
    lab.state.nodes["pve2"].lost -= 301
    rows = [row for row in await admin.get("/cluster/resources") if row.get("vmid") in guests]
    known = {"id", "type", "node", "vmid", "status", "tags"}
    assert {frozenset(row) for row in rows} == {frozenset(known)}
    assert {row["status"] for row in rows} == {"unknown"}


async def test_tasks_of_an_offline_node_are_killed(admin, lab):
    upid = await admin.data("POST", "/nodes/pve2/qemu/101/status/shutdown")
    await lab.node_down("pve2")
    await lab.tasks.settle()
    assert lab.state.tasks[upid].outcome == "unexpected status"


async def test_a_node_returns_on_its_port(admin, lab):
    port = lab.state.nodes["pve2"].port
    await lab.node_down("pve2")
    await lab.node_up("pve2")
    assert lab.state.nodes["pve2"].port == port
    assert (await admin.get(OTHER))["uptime"] < 1000


async def test_a_hanging_node_is_a_proxy_timeout(admin, lab):
    lab.fault("hang", node="pve2")
    response = await admin.request("GET", OTHER)
    assert (response.status_code, response.reason_phrase) == (596, "Connection timed out")


async def test_a_direct_request_to_a_hanging_node_gets_no_response(lab, open_client):
    lab.fault("hang", node="pve2")
    async with open_client(lab, lab.token, node=1) as direct:
        with pytest.raises(httpx.ReadTimeout):
            await direct.http.get("/api2/json/version", timeout=0.2)


@pytest.mark.parametrize(
    ("kind", "status", "reason"),
    [
        ("proxy-timeout", 596, "Connection timed out"),
        ("proxy-redirects", 599, "Too many redirections"),
        ("unauthenticated", 401, "Authentication failed!"),
        ("error", 500, "emulated failure"),
    ],
)
async def test_a_fault_replaces_the_response(admin, lab, kind, status, reason):
    node = "pve2" if kind.startswith("proxy") else "pve1"
    fault = lab.fault(kind, node=node)
    response = await admin.request("GET", OTHER)
    assert (response.status_code, response.reason_phrase) == (status, reason)
    lab.faults.remove(fault)
    assert (await admin.request("GET", OTHER)).status_code == 200


async def test_a_path_can_be_forbidden(admin, lab, reason_of):
    lab.fault("forbidden", path="/cluster/backup", message="/, Sys.Audit")
    response = await admin.request("GET", "/cluster/backup")
    assert reason_of(response) == "Permission check failed (/, Sys.Audit)"
    assert (await admin.request("GET", "/cluster/status")).status_code == 200


async def test_a_dropped_response_is_cut_off_after_the_change(admin, lab):
    lab.fault("drop", method="POST", times=1)
    with pytest.raises(httpx.RemoteProtocolError):
        await admin.request("POST", "/pools", poolid="made")
    assert "made" in lab.state.pools


async def test_a_fault_ends_after_its_number_of_hits(admin, lab):
    lab.fault("error", times=2)
    statuses = [(await admin.request("GET", "/version")).status_code for _ in range(4)]
    assert statuses == [500, 500, 200, 200]


async def test_a_percentage_fault_hits_the_same_requests_every_time():
    async def outcomes():
        async with Emulator(Scenario.cluster("lab", seed=7)) as pve:
            pve["lab"].fault("error", percent=30)
            results = []
            for _ in range(60):
                try:
                    await pve["lab"].faults.before_request("pve1", "GET", "/version")
                    results.append(True)
                except ApiError as problem:
                    results.append(str(problem))
            return results

    first = await outcomes()
    assert first == await outcomes()
    assert 5 < first.count("emulated failure") < 35


async def test_a_slow_node_delays_by_the_cluster_clock():
    clock = ManualClock()
    async with Emulator(Scenario.cluster("lab"), clock=clock) as pve:
        pve["lab"].fault("slow", seconds=20)
        request = asyncio.create_task(pve["lab"].faults.before_request("pve1", "GET", "/version"))
        await clock.advance(19)
        assert not request.done()
        await clock.advance(1)
        assert await request is None


async def test_without_quorum_reads_work_and_changes_fail(admin, lab, reason_of):
    lab.lose_quorum()
    assert (await admin.get("/cluster/status"))[0]["quorate"] == 0
    response = await admin.request("POST", "/nodes/pve1/qemu/100/status/start")
    assert reason_of(response) == "cluster not ready - no quorum?"
    response = await admin.request("PUT", "/nodes/pve1/qemu/100/config", description="x")
    assert reason_of(response).startswith("unable to open file '/etc/pve/nodes/pve1/qemu-server/")
    response = await admin.request("POST", "/pools", poolid="new")
    no_lock = "cfs-lock 'file-user_cfg' error: no quorum!"
    assert reason_of(response) == f"create pool failed: {no_lock}"
    snapshot = await admin.task("POST", "/nodes/pve1/qemu/100/snapshot", snapname="late")
    assert snapshot["exitstatus"].endswith("- Permission denied")
    lab.restore_quorum()
    await admin.data("PUT", "/nodes/pve1/qemu/100/config", description="x")


async def test_requests_to_a_stuck_storage_hang(admin, lab, reason_of):
    lab.stick_storage("shared")
    assert (await admin.request("GET", "/nodes/pve2/storage")).status_code == 596
    response = await admin.request("GET", "/nodes/pve1/storage/shared/content")
    assert reason_of(response) == "storage 'shared' is not online"
    assert (await admin.request("GET", "/nodes/pve1/storage/local/content")).status_code == 200
    lab.stick_storage("shared", stuck=False)
    assert (await admin.request("GET", "/nodes/pve2/storage")).status_code == 200


async def test_a_node_clock_can_be_skewed(admin, lab):
    lab.skew_clock("pve2", 600)
    first, second = [(await admin.get(f"/nodes/{node}/time"))["time"] for node in ("pve1", "pve2")]
    assert second - first >= 600


async def test_a_node_can_serve_a_certificate_of_another_authority(lab):
    host, port = lab.hosts[1].split(":")

    async def served():
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        _, writer = await asyncio.open_connection(host, int(port), ssl=context)
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return certificate

    own = await served()
    lab.swap_certificate("pve2")
    assert await served() != own
    trusting = ssl.create_default_context(cadata=lab.ca_pem)
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.open_connection(host, int(port), ssl=trusting)
    lab.swap_certificate("pve2", genuine=True)
    assert await served() == own


async def test_a_fault_of_an_unknown_kind_is_refused(lab):
    with pytest.raises(ValueError, match="'gremlins' is not a valid FaultKind"):
        lab.fault("gremlins")


async def test_the_clock_of_tests_runs_fast(lab):
    started, real_start = lab.state.now, time.monotonic()
    await lab.state.clock.sleep(2)
    assert lab.state.now - started >= 2
    assert time.monotonic() - real_start < 1
