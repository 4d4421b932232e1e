"""Paths, hosts and raw requests."""

import anyio
import httpx2 as httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxmox_client import ApiToken, BadParameters, Client
from proxmox_client.hosts import Host
from proxmox_client.limits import node_of
from proxmox_client.paths import join

pytestmark = pytest.mark.anyio

TOKEN = ApiToken("mcp@pve!full", "secret")


@given(st.text(min_size=1))
def test_a_segment_stays_one_segment(text):
    try:
        path = join("nodes", text, "status")
    except BadParameters:
        assert text in (".", "..") or not text.isprintable()
    else:
        assert path.count("/") == 3
        assert path.isascii()


@pytest.mark.parametrize("segment", ["", ".", "..", "a\nb", "\x00"])
async def test_an_unsafe_segment_is_rejected_before_a_request(segment, client, pve):
    with pytest.raises(BadParameters):
        await client.storage("pve1", "local").delete(segment)
    assert pve.requests == []


def test_the_node_is_read_from_the_path():
    assert node_of("/nodes/pve1/status") == "pve1"
    assert node_of("/nodes") == node_of("/cluster/resources") == ""


@pytest.mark.parametrize(
    ("text", "name", "port"),
    [
        ("pve1.example", "pve1.example", 8006),
        ("pve1:443", "pve1", 443),
        ("[fd00::1]", "fd00::1", 8006),
        ("[fd00::1]:8007", "fd00::1", 8007),
    ],
)
def test_a_host_is_parsed(text, name, port):
    host = Host.parse(text)
    assert (host.name, host.port) == (name, port)
    assert Host.parse(str(host)) == host


@pytest.mark.parametrize("text", ["", ":8006", "pve1:0", "pve1:99999", "pve1:x", "a/b", "u@h"])
def test_a_malformed_host_is_rejected(text):
    with pytest.raises(ValueError, match="is not a host"):
        Host.parse(text)


def test_a_cluster_needs_a_host():
    with pytest.raises(ValueError, match="at least one host"):
        Client([], TOKEN)


async def test_concurrent_failures_of_one_host_switch_only_once():
    hosts = []
    both_sent = anyio.Event()

    async def first_host_fails(request):
        hosts.append(request.url.host)
        if request.url.host == "b":
            return httpx.Response(200, json={"data": {"version": "9.2.11", "release": "9.2"}})
        if len(hosts) == 2:
            both_sent.set()
        await both_sent.wait()
        raise httpx.ConnectError("down")

    transport = httpx.MockTransport(first_host_fails)
    async with (
        Client(["a", "b"], TOKEN, http_transport=transport) as client,
        anyio.create_task_group() as reads,
    ):
        reads.start_soon(client.version)
        reads.start_soon(client.version)
    assert hosts == ["a", "a", "b", "b"]


async def test_a_raw_request_is_validated_and_sent(client, pve):
    pve.answer("GET /version", {"version": "9.2.11", "release": "9.2"})
    pve.answer("GET /nodes/pve1/services", [{"service": "pveproxy"}])
    assert await client.raw("GET", "/nodes/pve1/services") == [{"service": "pveproxy"}]


@pytest.mark.parametrize(
    ("method", "path", "parameters", "rejected"),
    [
        ("GET", "/cluster/nope", {}, "path"),
        ("GET", "/cluster/tasks", {"limit": 5}, "limit"),
        ("POST", "/pools", {}, "poolid"),
        ("GET", "/nodes/pve1/rrddata", {"timeframe": "century"}, "timeframe"),
    ],
    ids=["unknown path", "unknown parameter", "missing", "not allowed"],
)
async def test_a_raw_request_that_violates_the_schema_is_not_sent(
    method, path, parameters, rejected, client, pve
):
    # Quirk 15: Proxmox rejects unknown parameters.
    pve.answer("GET /version", {"version": "9.2.11", "release": "9.2"})
    with pytest.raises(BadParameters) as caught:
        await client.raw(method, path, **parameters)
    assert set(caught.value.errors) == {rejected}
    assert pve.lines == ["GET /version"]


async def test_an_endpoint_of_a_newer_version_is_rejected(client, pve):
    # Quirk 26: rules came with 9.0.
    pve.answer("GET /version", {"version": "8.4.1", "release": "8.4"})
    with pytest.raises(BadParameters, match=r"does not exist in Proxmox VE 8\.4"):
        await client.raw("GET", "/cluster/ha/rules")


@pytest.mark.parametrize(
    "path", ["/nodes/../access/users", "/nodes/%2e%2e/status", "nodes//status"]
)
async def test_a_raw_path_cannot_contain_dot_segments(path, client, pve):
    pve.answer("GET /version", {"version": "9.2.11", "release": "9.2"})
    with pytest.raises(BadParameters):
        await client.raw("GET", path)
    assert pve.lines == ["GET /version"]
