"""Options of guests: Proxmox's parameters for them, and changes in words."""

import pytest
from pydantic import SecretStr

from pvemcp_server.errors import BadArgument
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.guest_options import (
    GuestOptions,
    changes,
    in_words,
    needs_cloud_init,
    privileges,
)

KEY = "ssh-ed25519 AAAAC3Nz joe@x"
VM_NET = "virtio=BC:24:11:00:00:01,bridge=vmbr0,firewall=1"
CT_NET = "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:00:00:02,ip=10.0.0.4/24,gw=10.0.0.1,type=veth"


@pytest.mark.parametrize(
    ("kind", "current", "options", "parameters"),
    [
        ("qemu", {}, {"cores": 4, "memory": 4096}, {"cores": 4, "memory": 4096}),
        ("qemu", {}, {"tags": ["web", "prod"]}, {"tags": "web;prod"}),
        ("qemu", {}, {"ip": "DHCP"}, {"ipconfig0": "ip=dhcp"}),
        (
            "qemu",
            {"ipconfig0": "ip=dhcp,ip6=auto"},
            {"ip": "10.0.0.5/24,gw=10.0.0.1"},
            {"ipconfig0": "ip=10.0.0.5/24,ip6=auto,gw=10.0.0.1"},
        ),
        ("qemu", {}, {"ip": "2001:db8::5/64"}, {"ipconfig0": "ip6=2001:db8::5/64"}),
        ("qemu", {"net0": VM_NET}, {"vlan": 7}, {"net0": f"{VM_NET},tag=7"}),
        ("qemu", {}, {"bridge": "vmbr1"}, {"net0": "virtio,bridge=vmbr1"}),
        (
            "lxc",
            {"net0": CT_NET},
            {"ip": "dhcp"},
            {"net0": "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:00:00:02,ip=dhcp,type=veth"},
        ),
        (
            "qemu",
            {},
            {"dns": "1.1.1.1, ::1 lab.example"},
            {"nameserver": "1.1.1.1 ::1", "searchdomain": "lab.example"},
        ),
        (
            "qemu",
            {},
            {"ssh_keys": [KEY, KEY], "ciuser": "admin"},
            {
                "ciuser": "admin",
                "sshkeys": "ssh-ed25519%20AAAAC3Nz%20joe%40x%0Assh-ed25519%20AAAAC3Nz%20joe%40x",
            },
        ),
    ],
)
def test_options_become_parameters_of_the_kind(kind, current, options, parameters):
    assert GuestOptions(**options).parameters(kind, current) == parameters


def test_a_new_container_takes_a_password_and_keys():
    options = GuestOptions(password=SecretStr("secret-pw"), ssh_keys=[KEY])
    expected = {"password": "secret-pw", "ssh-public-keys": KEY}
    assert options.parameters("lxc", {}, new=True) == expected
    assert "secret-pw" not in repr(options)


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        ("lxc", {"ciuser": "admin"}, "ciuser: it is for cloud-init"),
        ("lxc", {"ssh_keys": [KEY]}, "ssh_keys: it is for cloud-init"),
        ("qemu", {"ip": "10.0.0.5"}, "give its prefix too, such as 10.0.0.5/24"),
        ("qemu", {"ip": "ten"}, "it is dhcp, or like"),
        ("qemu", {"ip": "dhcp,10.0.0.1"}, "ip: 'dhcp' does not appear"),
        ("qemu", {"ip": "10.0.0.5/24,::1"}, "one gateway, of the same family"),
        ("qemu", {"ip": "10.0.0.5/24 10.0.0.1 10.0.0.2"}, "one gateway"),
        ("qemu", {"dns": "1.1.1"}, "dns: '1.1.1' is neither"),
        ("qemu", {"dns": "a.example b.example"}, "dns: 'b.example' is neither"),
        ("qemu", {"memory": 1024}, "balloon is 2048 MiB"),
    ],
)
def test_values_that_cannot_be_are_refused(kind, options, says):
    with pytest.raises(BadArgument, match=says):
        GuestOptions(**options).parameters(kind, {"balloon": 2048})


def test_changes_show_old_and_new_without_secrets():
    current = {"cores": 2, "memory": "4096", "sshkeys": "a%0A", "cipassword": "**********"}
    new = {"cores": 4, "memory": 4096, "sshkeys": "a%0Ab", "cipassword": "pw-pw-pw", "tags": "web"}
    assert in_words(changes(current, new)) == (
        "cores 2 → 4, sshkeys 1 key → 2 keys, cipassword *** → ***, tags → web"
    )


def test_privileges_and_the_drive_follow_from_the_parameters():
    names = ["cores", "memory", "net0", "ipconfig0", "nameserver", "tags", "description"]
    assert privileges("qemu", names) == (
        needs.CONFIG_CPU,
        needs.CONFIG_MEMORY,
        needs.CONFIG_NETWORK,
        needs.CONFIG_CLOUD_INIT,
        needs.CONFIG_OPTIONS,
    )
    assert privileges("lxc", ["nameserver"]) == (needs.CONFIG_NETWORK,)
    assert needs_cloud_init(["cores", "ipconfig0"])
    assert not needs_cloud_init(["cores", "net0"])
