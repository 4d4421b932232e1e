"""The schema of the Proxmox VE API in every stored version."""

import pytest

from proxmox_client import schema


def check(method, path, **params):
    endpoint, values = schema.load("9.2").find(method, path)
    return endpoint.check({**values, **params})


@pytest.mark.parametrize(
    ("version", "endpoints"), [("8.4", 605), ("9.0", 628), ("9.1", 649), ("9.2", 675)]
)
def test_every_published_endpoint_is_stored(version, endpoints):
    assert len(schema.load(version).endpoints) == endpoints


@pytest.mark.parametrize(
    ("version", "stored"), [("9.2.11", "9.2"), ("9.7", "9.2"), ("10.0", "9.2"), ("8.1", "8.4")]
)
def test_an_unpublished_version_uses_the_nearest_stored_one(version, stored):
    assert len(schema.load(version).endpoints) == len(schema.load(stored).endpoints)


def test_a_malformed_version_is_rejected():
    with pytest.raises(ValueError, match="No version 'latest'"):
        schema.load("latest")


def test_a_request_is_matched_to_its_endpoint_and_path_values():
    endpoint, values = schema.load("9.2").find("GET", "/nodes/pve1/qemu/100/config")
    assert endpoint.path == "/nodes/{node}/qemu/{vmid}/config"
    assert values == {"node": "pve1", "vmid": "100"}


@pytest.mark.parametrize("volume", ["local%3Aiso%2Fdebian.iso", "local:iso/debian.iso"])
def test_a_volume_in_the_path_may_be_encoded_or_not(volume):
    _, values = schema.load("9.2").find("GET", f"/nodes/pve1/storage/local/content/{volume}")
    assert values["volume"] == "local:iso/debian.iso"


@pytest.mark.parametrize(("method", "path"), [("GET", "/cluster/nope"), ("DELETE", "/version")])
def test_an_unknown_request_matches_no_endpoint(method, path):
    assert schema.load("9.2").find(method, path) is None


def test_a_literal_segment_precedes_a_named_one():
    endpoint, values = schema.load("9.2").find("GET", "/cluster/backup/some-job")
    assert endpoint.path == "/cluster/backup/{id}"
    assert values == {"id": "some-job"}


def test_each_version_has_its_own_parameters():
    timeframes = {
        version: schema.load(version)
        .find("GET", "/nodes/n/rrddata")[0]
        .parameters["timeframe"]
        .enum
        for version in ("8.4", "9.2")
    }
    assert "decade" in timeframes["9.2"]
    assert "decade" not in timeframes["8.4"]


def test_permissions_are_stored():
    endpoint, _ = schema.load("9.2").find("GET", "/nodes/pve1/qemu/100/config")
    assert endpoint.permissions == ["perm", "/vms/{vmid}", ["VM.Audit"]]


CREATE = ("POST", "/nodes/pve1/qemu")
CONFIG = ("PUT", "/nodes/pve1/qemu/100/config")
MISSING = "property is missing and it is not optional"


@pytest.mark.parametrize(
    ("request_", "params", "errors"),
    [
        (CREATE, {"vmid": 190}, {}),
        (CREATE, {}, {"vmid": MISSING}),
        (CREATE, {"vmid": "abc"}, {"vmid": "type check ('integer') failed - got 'abc'"}),
        (
            CREATE,
            {"vmid": 99},
            {"vmid": "invalid format - value does not look like a valid VM ID\n"},
        ),
        (CONFIG, {"onboot": "true"}, {"onboot": "type check ('boolean') failed - got 'true'"}),
        (CONFIG, {"onboot": True}, {}),
        (CONFIG, {"cores": 0}, {"cores": "value must have a minimum value of 1"}),
        (
            CONFIG,
            {"memory": -5},
            {
                "memory": "invalid format - format error\n"
                "memory.current: value must have a minimum value of 16\n"
            },
        ),
        (
            CONFIG,
            {"scsi1": "bogus"},
            {
                "scsi1": "invalid format - format error\n"
                "scsi1.file: invalid format - unable to parse volume ID 'bogus'\n\n"
            },
        ),
        (
            CONFIG,
            {"net0": "virtio,bridge="},
            {"net0": "invalid format - missing key in comma-separated list property\n"},
        ),
        (CONFIG, {"net0": "virtio=BC:24:11:EC:2A:D1,bridge=vmbr0,tag=3"}, {}),
        (CONFIG, {"net0": "virtio=BC:24:11:EC:2A:D1,model=e1000"}, None),
        (CONFIG, {"net32": "virtio"}, None),
        (
            CONFIG,
            {"name": "bad name!"},
            {"name": "invalid format - value does not look like a valid DNS name\n"},
        ),
        (("GET", "/cluster/tasks"), {"limit": 5}, None),
        (
            ("POST", "/nodes/pve1/storage/local/download-url"),
            {"url": "ftp://x", "content": "iso", "filename": "a.iso", "checksum": "00"},
            {
                "url": "value does not match the regex pattern",
                "checksum-algorithm": "missing property required by 'checksum'",
            },
        ),
    ],
)
def test_parameters_are_validated_with_proxmox_messages(request_, params, errors):
    messages = check(*request_, **params)
    assert messages == errors if errors is not None else messages


def test_an_unknown_parameter_is_reported():
    assert list(check("GET", "/nodes/pve1/qemu/100/config", foo="1")) == ["foo"]
