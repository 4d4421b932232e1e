"""Configuration files, as backups have them."""

import pytest

from proxmox_client.api.configs import MOST_BYTES, MOST_OPTIONS, LxcConfig, QemuConfig, read_config
from proxmox_client.schema.indexed import HIGHEST


def test_the_file_of_a_virtual_machine_is_read():
    config = read_config(
        "#on%3A rack 4\n#second line\nagent: 1\nmemory: 32\nname: fresh01\n"
        "scsi0: local:109/vm-109-disk-1.qcow2,discard=on,size=64226K\ntags: a;b\n\n"
        "#qmdump#map:scsi0:drive-scsi0:local:qcow2:\n"
    )
    assert isinstance(config, QemuConfig)
    assert (config.name, config.memory_mb, config.tag_list) == ("fresh01", 32, ["a", "b"])
    assert config.description == "on: rack 4\nsecond line"
    [disk] = config.disks
    assert (disk.storage, disk.size, disk.discard) == ("local", 64226 << 10, True)


def test_the_file_of_a_container_is_read_with_its_raw_lines():
    config = read_config(
        "arch: amd64\nhostname: ct01\nmemory: 128\nonboot: 1\n"
        "rootfs: local:400/subvol-400-disk-0.subvol,size=8G\n"
        "lxc.mount.entry: /srv srv none bind\nlxc.mount.entry: /opt opt none bind\n"
    )
    assert isinstance(config, LxcConfig)
    assert (config.name, config.memory, config.on_boot) == ("ct01", 128, True)
    assert config.raw["lxc"] == [
        ["lxc.mount.entry", "/srv srv none bind"],
        ["lxc.mount.entry", "/opt opt none bind"],
    ]


def test_a_guest_with_every_device_is_read():
    families = {name: highest for name, highest in HIGHEST.items() if name not in ("link", "mp")}
    raw = {f"{name}{n}": "x" for name, last in families.items() for n in range(last + 1)}
    config = QemuConfig.of(raw)
    assert len(config.networks) == HIGHEST["net"] + 1
    assert len(raw) < MOST_OPTIONS - 100  # that have no number


@pytest.mark.parametrize("device", ["net", "scsi", "unused", "mp", "usb"])
def test_a_configuration_that_no_guest_can_have_is_malformed(device):
    for raw, fact in (
        ({f"{device}{n}": "x" for n in range(MOST_OPTIONS + 1)}, "1,001 options, more than"),
        ({f"{device}0": "a," * MOST_BYTES}, "its options have more than 2 MiB"),
        ({f"{device}0": ["a"] * MOST_BYTES}, "its options have more than 2 MiB"),
    ):
        for kind in (QemuConfig, LxcConfig):
            with pytest.raises(ValueError, match=fact):
                kind.of(raw)


@pytest.mark.parametrize(("kind", "devices"), [("n", "net0"), ("d", "ide2"), ("c", "scsi0")])
def test_each_device_is_once_in_a_boot_order_of_any_length(kind, devices):
    raw = {"net0": "virtio", "ide2": "none,media=cdrom", "scsi0": "a:1", "bootdisk": "scsi0"}
    config = QemuConfig.of({**raw, "boot": kind * 1_000_000})
    assert config.boot_order == [devices]
