"""Paths, hosts and requests that have no method of their own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxmox_client import BadParameters
from proxmox_client.hosts import Host, Ring
from proxmox_client.paths import join, node_of

pytestmark = pytest.mark.anyio


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
async def test_a_segment_that_could_lead_elsewhere_is_refused_without_asking(segment, client, pve):
    with pytest.raises(BadParameters):
        await client.storage("pve1", "local").delete(segment)
    assert pve.requests == []


def test_the_node_of_a_path_is_known():
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
def test_a_host_is_read(text, name, port):
    host = Host.parse(text)
    assert (host.name, host.port) == (name, port)
    assert Host.parse(str(host)) == host


@pytest.mark.parametrize("text", ["", ":8006", "pve1:0", "pve1:99999", "pve1:x", "a/b", "u@h"])
def test_what_is_no_host_is_refused(text):
    with pytest.raises(ValueError, match="is not a host"):
        Host.parse(text)


def test_a_cluster_has_a_host():
    with pytest.raises(ValueError, match="at least one host"):
        Ring([])


def test_who_fails_late_does_not_turn_away_from_the_host_that_replaced_it():
    ring = Ring(["a", "b"])
    failed = ring.current
    ring.failed(failed)
    ring.failed(failed)
    assert ring.current.name == "b"


async def test_a_request_of_ones_own_is_checked_and_sent(client, pve):
    pve.answer("GET /version", {"version": "9.2.11", "release": "9.2"})
    pve.answer("GET /nodes/pve1/services", [{"service": "pveproxy"}])
    assert await client.raw("GET", "/nodes/pve1/services") == [{"service": "pveproxy"}]


@pytest.mark.parametrize(
    ("method", "path", "parameters", "named"),
    [
        ("GET", "/cluster/nope", {}, "path"),
        ("GET", "/cluster/tasks", {"limit": 5}, "limit"),
        ("POST", "/pools", {}, "poolid"),
        ("GET", "/nodes/pve1/rrddata", {"timeframe": "century"}, "timeframe"),
    ],
    ids=["unknown path", "unknown parameter", "missing", "not allowed"],
)
async def test_a_request_that_the_schema_refuses_is_not_sent(
    method, path, parameters, named, client, pve
):
    """Quirk 15: Proxmox would refuse every unknown parameter."""
    pve.answer("GET /version", {"version": "9.2.11", "release": "9.2"})
    with pytest.raises(BadParameters) as caught:
        await client.raw(method, path, **parameters)
    assert set(caught.value.errors) == {named}
    assert pve.lines == ["GET /version"]


async def test_what_a_version_lacks_is_told_before_it_is_asked(client, pve):
    """Quirk 26: rules came with 9.0."""
    pve.answer("GET /version", {"version": "8.4.1", "release": "8.4"})
    with pytest.raises(BadParameters, match=r"does not exist in Proxmox VE 8\.4"):
        await client.raw("GET", "/cluster/ha/rules")


@pytest.mark.parametrize(
    "path", ["/nodes/../access/users", "/nodes/%2e%2e/status", "nodes//status"]
)
async def test_a_path_of_ones_own_cannot_climb(path, client, pve):
    pve.answer("GET /version", {"version": "9.2.11", "release": "9.2"})
    with pytest.raises(BadParameters):
        await client.raw("GET", path)
    assert pve.lines == ["GET /version"]
