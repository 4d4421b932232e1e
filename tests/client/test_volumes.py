"""The guests that own volumes."""

from tests.cases import walk

from proxmox_client.volumes import owners


@walk(
    ("volume", "vmids"),
    [
        ("local-lvm:vm-101-disk-0", [101]),
        ("local-zfs:subvol-101-disk-0,mp=/srv", [101]),
        ("local-zfs:base-100-disk-0/vm-101-disk-0", [100, 101]),
        ("local-zfs:basevol-100-disk-0/subvol-101-disk-0", [100, 101]),
        ("nfs:101/custom.qcow2", [101]),
        ("nfs:0,import-from=nfs:101/custom.raw", [101]),
        ("nfs:100/base-100-disk-0.qcow2/101/custom.qcow2", [100, 100, 101]),
        ("/dev/mapper/pve-vm--101--disk--0", [101]),
        ("/dev/zvol/rpool/data/vm-101-disk-0", [101]),
        ("/mnt/pve/nfs/images/101/custom.raw", [101]),
        ("nfs:backup/vzdump-lxc-101-2026_01_01-00_00_00.tar.zst", [101]),
        ("nfs:backup/vzdump-qemu-101-2026_01_01-00_00_00.vma.zst", [101]),
        ("pbs:backup/vm/101/2026-01-01T00:00:00Z", [101]),
        ("pbs:backup/ct/101/2026-01-01T00:00:00Z", [101]),
        ("nfs:iso/debian-13.iso", []),
        ("local-zfs:32", []),
        ("https://192.0.2.1:8006/a, at https://host:443/", []),
    ],
)
def test_the_owners_of_a_volume_are_in_its_id(volume, vmids):
    assert owners(volume) == vmids
