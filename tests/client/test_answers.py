"""Decoding of answers: numbers in strings, missing and extra fields, property strings."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxmox_client.api.backup_server import BackupServerVersion
from proxmox_client.api.cluster import Version
from proxmox_client.api.configs import GuestDisk, LxcConfig, QemuConfig, bytes_of
from proxmox_client.api.resources import Resources
from proxmox_client.api.smart import Smart
from proxmox_client.api.storage import Volume
from proxmox_client.json_decoder import Answer, decode
from proxmox_client.properties import flag, parse

pytestmark = pytest.mark.anyio


class Thing(Answer):
    number: int | None = None
    share: float | None = None
    yes: bool = False
    text: str = ""


@pytest.mark.parametrize(
    ("body", "thing"),
    [
        (b'{"number":"103","share":"0.00"}', Thing(number=103, share=0.0)),
        (b'{"yes":1}', Thing(yes=True)),
        (b'{"yes":"1"}', Thing(yes=True)),
        (b'{"yes":true}', Thing(yes=True)),
        (b'{"text":5,"number":"7"}', Thing(text="5", number=7)),
        (b'{"text":null,"number":null,"yes":null}', Thing()),
        (b'{"number":"","yes":""}', Thing()),
        (b'{"unknown":{"of":[1]}}', Thing()),
        (b'{"text":"\xe9"}', Thing(text="�")),
        (rb'{"text":"\ud800 \ud83d\ude00 \\ud800 \udc00"}', Thing(text="� 😀 \\ud800 �")),
    ],
    ids=[
        "numbers",
        "int",
        "digit",
        "json",
        "number for text",
        "null",
        "empty",
        "extra",
        "latin-1",
        "half of a surrogate pair",
    ],
)
def test_perl_types_are_converted(body, thing):
    # Quirks 19, 20, 21 and 22.
    assert decode(b'{"data":' + body + b"}", Thing).data == thing


@pytest.mark.parametrize(
    ("body", "what"), [(b"<!DOCTYPE html><p>Hi", "a web page"), (b"", "no JSON"), (b"{", "no JSON")]
)
def test_a_body_that_is_not_of_proxmox_is_named_as_what_it_is(body, what):
    with pytest.raises(ValueError, match=f"it is {what}, so it is not Proxmox that answered"):
        decode(body, Thing)


@pytest.mark.parametrize("body", [b'{"data":null}', b"{}"])
def test_null_becomes_an_empty_list_or_mapping(body):
    # Quirk 19.
    assert decode(body, list[Thing]).data == []
    assert decode(body, dict[str, Thing]).data == {}
    with pytest.raises(msgspec.ValidationError):
        decode(body, Thing)


def test_the_total_of_a_page_is_kept():
    # Quirk 19.
    assert decode(b'{"data":[],"total":"90","changes":""}', list[Thing]).total == 90


@given(
    st.builds(
        Thing,
        number=st.none() | st.integers(-(2**53), 2**53),
        share=st.none() | st.floats(allow_nan=False, allow_infinity=False),
        yes=st.booleans(),
        text=st.text(),
    )
)
def test_encoding_and_decoding_round_trips(thing):
    assert decode(msgspec.json.encode({"data": thing}), Thing).data == thing


async def test_the_lists_of_a_backup_job_are_parsed(client, pve):
    # Quirk 45: prune-backups is an object, next-run is set only while enabled.
    pve.answer(
        "GET /cluster/backup",
        [{"id": "a", "vmid": "100,200", "enabled": 1, "next-run": 5,
          "prune-backups": {"keep-last": "3"}},
         {"id": "b", "all": 1, "exclude": "300", "enabled": 0, "prune-backups": "keep-all=1"}],
    )  # fmt: skip
    selected, everything = await client.cluster.backup_jobs()
    assert (selected.vmids, selected.retention, selected.next_run) == (
        [100, 200],
        {"keep-last": "3"},
        5,
    )
    assert (everything.all, everything.excluded, everything.enabled) == (True, [300], False)
    assert everything.retention == {"keep-all": "1"}


async def test_vzdump_sends_a_list_of_guests(client, pve):
    # Quirk 45.
    upid = "UPID:pve1:000002CD:000E132A:6B02ABF1:vzdump::mcp@pve!full:"
    pve.answer("POST /nodes/pve1/vzdump", upid)
    await client.node("pve1").vzdump(
        [100, 200], storage="nas", mode="snapshot", compress="zstd", protected=True, notes="{{x}}"
    )
    assert pve.requests[0].content.decode() == (
        "vmid=100%2C200&storage=nas&mode=snapshot&compress=zstd&protected=1"
        "&notes-template=%7B%7Bx%7D%7D"
    )


async def test_a_download_uses_proxmox_parameter_names(client, pve):
    # Quirk 47: a checksum needs its algorithm.
    upid = "UPID:pve1:000002CD:000E132A:6B02ABF1:download:a.iso:mcp@pve!full:"
    pve.answer("POST /nodes/pve1/storage/local/download-url", upid)
    await client.storage("pve1", "local").download_url(
        "https://x/a.iso", "a.iso", checksum="ab", checksum_algorithm="sha256",
        verify_certificates=False,
    )  # fmt: skip
    assert pve.requests[0].content.decode() == (
        "url=https%3A%2F%2Fx%2Fa.iso&filename=a.iso&content=iso&checksum=ab"
        "&checksum-algorithm=sha256&verify-certificates=0"
    )


async def test_content_of_a_backup_server_is_decoded(client, pve):
    # Quirk 46.
    pve.answer(
        "GET /nodes/pve1/storage/pbs/content",
        [{"volid": "pbs:backup/vm/100/2026-11-22T08:50:09Z", "content": "backup", "size": 7,
          "subtype": "qemu", "vmid": 100, "ctime": 5, "encrypted": 1, "parent": None,
          "verification": {"state": "ok", "upid": "UPID:pbs:x"}}],
    )  # fmt: skip
    (backup,) = await client.storage("pve1", "pbs").content("backup", 100)
    assert pve.lines == ["GET /nodes/pve1/storage/pbs/content content=backup&vmid=100"]
    assert (backup.guest_type, backup.encrypted, backup.created) == ("qemu", "1", 5)
    assert backup.verification is not None
    assert backup.verification.state == "ok"


@pytest.mark.parametrize(
    ("volid", "name"),
    [
        ("local:iso/debian-12.iso", "debian-12.iso"),
        ("local-zfs:vm-100-disk-0", "vm-100-disk-0"),
        ("local:100/vm-100-disk-0.qcow2", "vm-100-disk-0.qcow2"),
    ],
)
def test_the_name_of_a_volume_is_its_last_part(volid, name):
    assert Volume(volid=volid).name == name


def test_a_shared_storage_has_a_row_per_node():
    # Quirk 24: the sizes are named disk and maxdisk here, used and total elsewhere.
    rows = [
        {"type": "storage", "storage": "nas", "node": node, "shared": 1, "disk": 5, "maxdisk": 9,
         "content": "iso,backup", "plugintype": "nfs", "status": "available"}
        for node in ("pve1", "pve2")
    ]  # fmt: skip
    storages = Resources.read(msgspec.json.encode({"data": rows})).storages
    assert [(row.node, row.shared, row.disk, row.disk_max) for row in storages] == [
        ("pve1", True, 5, 9),
        ("pve2", True, 5, 9),
    ]
    assert storages[0].content_list == ["backup", "iso"]


async def test_an_offline_node_has_few_fields(client, pve):
    # Quirk 33.
    pve.answer("GET /nodes", [{"node": "pve3", "status": "offline", "maxcpu": 4, "maxmem": 8}])
    (node,) = await client.nodes()
    assert (node.status, node.uptime, node.memory, node.memory_max) == ("offline", None, None, 8)


async def test_a_list_without_privileges_is_empty_and_permissions_explain_it(client, pve):
    # Quirks 10 and 34: Proxmox filters lists without a notice.
    pve.answer("GET /cluster/resources", [])
    pve.answer("GET /access/permissions", {"/vms": {"VM.Audit": 1, "VM.PowerMgmt": 0}})
    assert (await client.cluster.resources()).guests == []
    permissions = await client.access.permissions("/vms", "mcp@pve!full")
    assert permissions == {"/vms": {"VM.Audit": True, "VM.PowerMgmt": False}}
    assert pve.lines[-1] == "GET /access/permissions path=%2Fvms&userid=mcp%40pve%21full"


async def test_a_nested_pool_is_requested_by_its_full_name(client, pve):
    members = [{"id": "qemu/100", "type": "qemu", "vmid": 100, "node": "pve1"}]
    pve.answer("GET /pools", [{"poolid": "front/web", "members": members}])
    pool = await client.pool("front/web")
    assert pve.lines == ["GET /pools poolid=front%2Fweb"]
    assert [member.vmid for member in pool.members] == [100]


async def test_filters_of_tasks_are_sent_to_proxmox(client, pve):
    # Quirk 41: the default is 50 finished tasks.
    pve.answer("GET /nodes/pve1/tasks", [])
    await client.node("pve1").tasks(limit=20, vmid=100, errors=True, status=["error", "unknown"])
    (line,) = pve.lines
    assert line == (
        "GET /nodes/pve1/tasks source=all&limit=20&start=0&vmid=100&errors=1"
        "&statusfilter=error%2Cunknown"
    )


async def test_a_single_node_without_a_cluster_is_quorate(client, pve):
    pve.answer("GET /cluster/status", [{"type": "node", "name": "home", "online": 1, "local": 1}])
    status = await client.cluster.status()
    assert (status.name, status.quorate, [member.name for member in status.members]) == (
        "", True, ["home"],
    )  # fmt: skip


async def test_option_groups_may_be_mappings_or_property_strings(client, pve):
    pve.answer(
        "GET /cluster/options",
        {"migration": {"type": "secure", "network": "10.0.0.0/24"}, "bwlimit": "clone=5,move=7"},
    )
    options = await client.cluster.options()
    assert options.group("migration") == {"type": "secure", "network": "10.0.0.0/24"}
    assert options.group("bwlimit") == {"clone": "5", "move": "7"}
    assert options.group("ha") == {}


def test_the_configuration_of_a_virtual_machine_is_parsed():
    # Quirk 20: memory is a string in a virtual machine, a number in a container.
    config = QemuConfig.of(
        {
            "name": "web", "memory": "current=2048", "cores": 2, "agent": "enabled=1,fstrim=1",
            "boot": "order=scsi0;net0", "tags": "prod;web", "onboot": 1, "numa": "0",
            "scsi0": "local-zfs:vm-100-disk-0,size=32G,discard=on,cache=writeback,backup=0",
            "ide2": "none,media=cdrom", "efidisk0": "file=nas:100/e.raw,size=528K",
            "scsihw": "virtio-scsi-single",
            "net0": "virtio=BC:24:11:EC:2A:D1,bridge=vmbr0,tag=30,firewall=1,rate=1.5",
            "ipconfig0": "ip=10.0.0.5/24,gw=10.0.0.1", "bootdisk": "scsi0",
        }
    )  # fmt: skip
    assert (config.memory_mb, config.agent_enabled, config.on_boot) == (2048, True, True)
    assert (config.boot_order, config.tag_list) == (["scsi0", "net0"], ["prod", "web"])
    assert [disk.id for disk in config.disks] == ["efidisk0", "ide2", "scsi0"]
    efi, cdrom, root = config.disks
    assert (efi.storage, efi.size, efi.bus) == ("nas", 528 * 1024, "efidisk")
    assert (cdrom.volume, cdrom.storage, cdrom.media) == ("none", None, "cdrom")
    assert (root.storage, root.size, root.bus) == ("local-zfs", 32 * 1024**3, "scsi")
    assert (root.discard, root.cache, root.backup) == (True, "writeback", False)
    (net,) = config.networks
    assert (net.model, net.mac, net.bridge) == ("virtio", "BC:24:11:EC:2A:D1", "vmbr0")
    assert (net.vlan, net.firewall, net.rate, net.ip) == (30, True, 1.5, "10.0.0.5/24")
    assert config.raw["scsihw"] == "virtio-scsi-single"


def test_the_configuration_of_a_container_is_parsed():
    config = LxcConfig.of(
        {
            "hostname": "ct1", "memory": 64, "swap": 512, "unprivileged": 1,
            "rootfs": "local:200/subvol-200-disk-0.subvol,size=8G",
            "mp0": "nas:200/vm-200-disk-1.raw,mp=/srv,size=1T",
            "mp1": "/mnt/host,mp=/data,backup=1",
            "net0": "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:93:F4:F5,ip=dhcp,ip6=auto,type=veth",
        }
    )  # fmt: skip
    assert (config.name, config.memory_mb, config.swap) == ("ct1", 64, 512)
    data, host, root = config.disks
    assert (data.mount_point, data.size, data.backup) == ("/srv", 1024**4, False)
    assert (host.volume, host.storage, host.backup) == ("/mnt/host", None, False)
    assert (root.id, root.mount_point, root.backup) == ("rootfs", "/", True)
    (net,) = config.networks
    assert (net.name, net.mac, net.model) == ("eth0", "BC:24:11:93:F4:F5", "veth")
    assert (net.ip, net.ip6, net.vlan) == ("dhcp", "auto", None)


@pytest.mark.parametrize(
    ("boot", "order"),
    [
        ("order=net0;scsi2", ["net0", "scsi2"]),
        ("order=", []),
        ("cdn", ["scsi2", "ide2", "net0", "net10"]),
        ("legacy=nd", ["net0", "net10", "ide2"]),
        (None, ["scsi2", "ide2", "net0", "net10"]),
    ],
)
def test_the_boot_order_is_parsed_in_both_formats(boot, order):
    config = QemuConfig.of(
        {
            "boot": boot, "bootdisk": "scsi2", "scsi2": "nas:100/a.raw", "scsi10": "nas:100/b.raw",
            "ide0": "nas:100/vm-100-cloudinit.qcow2,media=cdrom", "ide2": "none,media=cdrom",
            "net0": "virtio,bridge=vmbr0", "net10": "e1000,bridge=vmbr0",
        }
    )  # fmt: skip
    assert config.boot_order == order
    assert [disk.id for disk in config.disks] == ["ide0", "ide2", "scsi2", "scsi10"]


@pytest.mark.parametrize(
    ("name", "text", "backup"),
    [
        ("scsi0", "nas:100/a.raw", True),
        ("scsi0", "nas:100/a.raw,backup=0", False),
        ("scsi1", "/dev/disk/by-id/x", True),
        ("ide2", "nas:iso/x.iso,media=cdrom", False),
        ("unused0", "nas:100/a.raw", False),
        ("rootfs", "nas:100/a.raw", True),
        ("mp0", "nas:100/a.raw,mp=/a", False),
        ("mp0", "nas:100/a.raw,mp=/a,backup=1", True),
        ("mp0", "/host,mp=/a,backup=1", False),
    ],
)
def test_disks_included_in_backups_are_recognized(name, text, backup):
    assert GuestDisk.of(name, text).backup is backup


def test_options_without_a_field_are_in_further():
    disk = GuestDisk.of("scsi0", "nas:100/a.raw,cache=none,iothread=1,size=8G,ssd=1")
    net = "virtio=BC:24:11:EC:2A:D1,bridge=vmbr0,link_down=1,mtu=9000,trunks=2;3"
    (network,) = QemuConfig.of({"net0": net}).networks
    assert (disk.further, network.further) == ("iothread=1,ssd=1", "mtu=9000,trunks=2;3")
    assert network.link_down
    assert GuestDisk.of("ide2", "none,media=cdrom").further is None


def test_an_empty_configuration_has_proxmox_defaults():
    machine, container = QemuConfig.of({}), LxcConfig.of({})
    assert (machine.memory_mb, machine.sockets, machine.agent_enabled) == (512, 1, False)
    assert (machine.boot_order, machine.disks, machine.networks) == ([], [], [])
    assert container.memory_mb == 512


OPTIONS = st.sampled_from(["tag", "rate", "size", "model", "ip", "backup", "file", "order", "mp"])


@given(st.text() | st.builds("{}={},{}={}".format, OPTIONS, st.text(), OPTIONS, st.text()))
def test_any_text_is_parsed_without_an_error(text):
    config = QemuConfig.of(
        {"scsi0": text, "net0": text, "agent": text, "boot": text, "memory": text}
    )
    assert [disk.id for disk in config.disks] == ["scsi0"]
    assert [net.id for net in config.networks] == ["net0"]
    assert config.agent_enabled in (True, False)
    assert config.memory_mb > 0
    assert all(isinstance(value, str) for value in parse(text, "x").values())


@pytest.mark.parametrize(
    ("text", "size"),
    [("32G", 32 << 30), ("4M", 4 << 20), ("0T", 0), ("1.5K", 1536), ("7", 7), ("", None),
     ("big", None)],
)  # fmt: skip
def test_sizes_are_converted_to_bytes(text, size):
    assert bytes_of(text) == size


@pytest.mark.parametrize(("text", "value"), [("1", True), ("on", True), ("0", False)])
def test_flags_are_parsed(text, value):
    assert flag(text) is value


def test_a_report_of_blank_lines_is_read_quickly():
    """Read it in linear time: in quadratic time it takes minutes, and blocks all other calls."""
    text = "\n" * 200_000 + "Temperature: 36" + " " * 200_000 + "C"
    assert Smart(text=text).attribute("Temperature") == 36


@pytest.mark.parametrize("version", ["", "9" * 3_000_000, "9.2\n", "9.2 and more"])
@pytest.mark.parametrize("kind", [Version, BackupServerVersion])
def test_a_text_that_is_no_version_is_a_short_error(kind, version):
    body = msgspec.json.encode({"data": {"version": version, "release": version}})
    with pytest.raises(msgspec.ValidationError) as caught:
        decode(body, kind)
    assert len(str(caught.value)) < 200
