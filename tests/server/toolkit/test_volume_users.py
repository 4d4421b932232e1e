"""The search for clones looks at each volume once, however many bases there are."""

import pytest

from proxmox_client.api.storage import Volume
from pvemcp_server.toolkit.volume_users import clones_of

BLOCK = Volume(volid="zfs:base-100-disk-0", vmid=100)
FILE = Volume(volid="nfs:100/base-100-disk-1.qcow2", vmid=100)


@pytest.mark.parametrize(
    ("volid", "parent", "is_clone"),
    [
        ("zfs:base-100-disk-0/vm-101-disk-0", None, True),
        ("nfs:100/base-100-disk-1.qcow2/101/vm-101-disk-0.qcow2", None, True),
        ("zfs:vm-101-disk-0", "base-100-disk-0@__base__", True),
        ("nfs:101/vm-101-disk-0.qcow2", "../100/base-100-disk-1.qcow2", True),
        ("zfs:base-100-disk-0", None, False),
        ("zfs:base-100-disk-01/vm-101-disk-0", None, False),
        ("zfs:vm-101-disk-0", "base-102-disk-0@__base__", False),
        ("zfs:" + "a/" * 100_000, None, False),
    ],
)
def test_a_clone_names_its_base_in_its_id_or_as_its_parent(volid, parent, is_clone):
    other = Volume(volid=volid, vmid=101, parent=parent)
    volumes = iter([BLOCK, FILE, BLOCK, other])  # one pass is all that it has
    assert clones_of([BLOCK, FILE], volumes) == ([other] if is_clone else [])
