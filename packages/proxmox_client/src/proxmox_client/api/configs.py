"""Configurations of guests: common options as typed fields, and all options in `raw`."""

import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final, Self
from urllib.parse import unquote

import msgspec
from msgspec import field

from proxmox_client.json_decoder import Answer, convert_object, split_list
from proxmox_client.names import NAME
from proxmox_client.properties import Properties, flag, number, parse, whole_number

MOST_OPTIONS: Final = 1_000
"""Options of a configuration; Proxmox allows about 800: net0 to net31, unused0 to unused255."""
MOST_BYTES: Final = 2 << 20
"""Size of a configuration as JSON; a file of the cluster file system has 1 MiB at most."""
_DISK = re.compile(r"(ide|sata|scsi|virtio|efidisk|tpmstate|unused|mp)\d+|rootfs", re.ASCII)
_NETWORK = re.compile(r"net\d+", re.ASCII)
_DEVICE = re.compile(r"(hostpci|usb|serial|parallel)\d+", re.ASCII)
_MAC = re.compile(r"[0-9A-F]{2}(:[0-9A-F]{2}){5}", re.ASCII | re.IGNORECASE)
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)([KMGT]?)", re.ASCII)
_CLOUD_INIT = re.compile(r"vm-\d+-cloudinit(\.\w+)?", re.ASCII)
# options that have a field of their own
_OF_DISK = frozenset({"size", "media", "cache", "discard", "backup", "mp"})
_OF_NETWORK = frozenset(
    {"model", "type", "macaddr", "hwaddr", "bridge", "tag", "firewall", "link_down", "rate"}
    | {"name", "ip", "ip6"}
)
_MAP = "#qmdump#"  # which drive is which part of the archive
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class GuestDisk(msgspec.Struct, frozen=True, kw_only=True):
    """A disk, drive or mount point; `volume` is a volid, a path, or `none`.

    `backup` says whether backups include it; `further` lists the options without a field here.
    """

    id: str
    bus: str
    volume: str
    storage: str | None
    size: int | None
    media: str = "disk"
    cache: str | None = None
    discard: bool = False
    backup: bool = True
    mount_point: str | None = None
    options: Properties
    further: str | None = None

    @property
    def is_cloud_init(self) -> bool:
        """Whether it is the drive that Proxmox creates for cloud-init."""
        return _CLOUD_INIT.fullmatch(self.volume.rpartition("/")[2].rpartition(":")[2]) is not None

    @classmethod
    def of(cls, name: str, text: str, *, ovmf: bool = True) -> Self:
        """Parse a disk's configuration; `ovmf` is whether the guest boots with UEFI."""
        options = parse(text, "volume")
        volume = options.pop("volume", options.pop("file", "none"))
        storage, mark, _ = volume.partition(":")
        bus = name.rstrip("0123456789")
        return cls(
            id=name,
            bus=bus,
            volume=volume,
            storage=storage if mark and NAME.fullmatch(storage) else None,
            size=bytes_of(options.get("size")),
            media=options.get("media", "disk"),
            cache=options.get("cache"),
            discard=flag(options.get("discard")),
            backup=_is_backed_up(bus, volume, options, ovmf=ovmf),
            mount_point="/" if name == "rootfs" else options.get("mp"),
            options=options,
            further=_format_other(options, _OF_DISK),
        )


class GuestNetwork(msgspec.Struct, frozen=True, kw_only=True):
    """A network device; `rate` is MB/s, `ip` as configured (cloud-init's for a virtual machine)."""

    id: str
    model: str
    mac: str | None
    bridge: str | None
    vlan: int | None
    firewall: bool
    link_down: bool
    rate: float | None
    name: str | None
    ip: str | None
    ip6: str | None
    options: Properties
    further: str | None = None

    @classmethod
    def of(cls, key: str, text: str, addresses: Properties) -> Self:
        """Parse a network device's configuration; `addresses` is its cloud-init `ipconfig`."""
        options = parse(text, "model")
        model, mac = _model_and_mac(options)
        vlan = number(options.get("tag"))
        return cls(
            id=key,
            model=model,
            mac=mac,
            bridge=options.get("bridge"),
            vlan=None if vlan is None else int(vlan),
            firewall=flag(options.get("firewall")),
            link_down=flag(options.get("link_down")),
            rate=number(options.get("rate")),
            name=options.get("name"),
            ip=options.get("ip") or addresses.get("ip"),
            ip6=options.get("ip6") or addresses.get("ip6"),
            options=options,
            further=_format_other(options, _OF_NETWORK | {model}),
        )


class GuestConfig(Answer, frozen=True):
    """Options that virtual machines and containers share; `raw` has all options unparsed."""

    description: str | None = None
    tags: str = ""
    arch: str | None = None
    os_type: str | None = field(name="ostype", default=None)
    cores: int | None = None
    cpu_limit: float | None = field(name="cpulimit", default=None)
    cpu_units: int | None = field(name="cpuunits", default=None)
    on_boot: bool = field(name="onboot", default=False)
    startup: str | None = None
    protection: bool = False
    template: bool = False
    lock: str | None = None
    parent: str | None = None
    snapshot_time: int | None = field(name="snaptime", default=None)
    hookscript: str | None = None
    digest: str | None = None
    raw: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Self:
        """Parse a configuration; raise ValueError for one that Proxmox cannot have stored."""
        if len(raw) > MOST_OPTIONS:
            raise ValueError(f"it has {len(raw):,} options, more than a guest can have")
        if len(msgspec.json.encode(raw)) > MOST_BYTES:
            raise ValueError(f"its options have more than {MOST_BYTES >> 20} MiB")
        return convert_object({**raw, "raw": dict(raw)}, cls)

    @property
    def tag_list(self) -> list[str]:
        """The tags as a list."""
        return split_list(self.tags)

    @property
    def disks(self) -> list[GuestDisk]:
        """Disks, drives and mount points, including unused disks."""
        names = sorted(filter(_DISK.fullmatch, self.raw), key=_device_order)
        ovmf = self.raw.get("bios") == "ovmf"  # else backups leave out the disk of its variables
        return [GuestDisk.of(name, str(self.raw[name]), ovmf=ovmf) for name in names]

    @property
    def networks(self) -> list[GuestNetwork]:
        """Network devices."""
        names = sorted(filter(_NETWORK.fullmatch, self.raw), key=_device_order)
        return [
            GuestNetwork.of(name, str(self.raw[name]), parse(self.raw.get(f"ipconfig{name[3:]}")))
            for name in names
        ]


class QemuConfig(GuestConfig, frozen=True):
    """The configuration of a virtual machine; memory in MiB."""

    name: str = ""
    sockets: int = 1
    vcpus: int | None = None
    cpu: str | None = None
    memory: str | None = None
    balloon: int | None = None
    shares: int | None = None
    numa: bool = False
    bios: str | None = None
    machine: str | None = None
    boot: str | None = None
    bootdisk: str | None = None
    scsihw: str | None = None
    vga: str | None = None
    agent: str | None = None
    acpi: bool = True
    kvm: bool = True
    hotplug: str | None = None
    tablet: bool = True
    vmstate: str | None = None

    @property
    def memory_mb(self) -> int:
        """The memory in MiB; the default is 512."""
        return int(number(parse(self.memory, "current").get("current")) or 512)

    @property
    def agent_enabled(self) -> bool:
        """Whether the guest agent is switched on."""
        return flag(parse(self.agent, "enabled").get("enabled"))

    @property
    def devices(self) -> dict[str, str]:
        """Devices of the node that it uses, by option: hostpci0, usb1, serial0."""
        return {
            name: str(value) for name, value in sorted(self.raw.items()) if _DEVICE.fullmatch(name)
        }

    @property
    def boot_order(self) -> list[str]:
        """The boot devices in order; the legacy format names kinds of devices: `cdn`."""
        boot = parse(self.boot, "legacy")
        if "order" in boot:
            return split_list(boot["order"])
        kinds = dict.fromkeys(boot.get("legacy", "cdn"))  # each once: it takes all devices of one
        return [name for kind in kinds for name in self._boot_devices(kind)]

    def _boot_devices(self, kind: str) -> list[str]:
        """List the boot devices of a kind: c the boot disk, d CD drives, n networks."""
        match kind:
            case "c":
                return [self.bootdisk] if self.bootdisk in self.raw else []
            case "d":
                drives = [disk for disk in self.disks if disk.media == "cdrom"]
                return [drive.id for drive in drives if not drive.is_cloud_init]
            case "n":
                return [network.id for network in self.networks]
            case _:
                return []


class LxcConfig(GuestConfig, frozen=True):
    """The configuration of a container; memory and swap in MiB."""

    hostname: str = ""
    memory: int = 512
    swap: int = 512
    unprivileged: bool = False
    nameserver: str | None = None
    searchdomain: str | None = None
    features: str | None = None
    timezone: str | None = None
    console: bool = True

    @property
    def name(self) -> str:
        """The container's display name."""
        return self.hostname

    @property
    def memory_mb(self) -> int:
        """The memory in MiB."""
        return self.memory


def read_config(text: str) -> QemuConfig | LxcConfig:
    """Parse a guest's configuration file, as a backup has it.

    A comment is the description, percent-encoded; containers alone have a `rootfs`.
    """
    raw: dict[str, Any] = {}
    description, further = [], []
    for line in text.splitlines():
        name, colon, value = line.partition(": ")
        if line.startswith("#"):
            if not line.startswith(_MAP):
                description.append(unquote(line[1:]))
        elif name.startswith("lxc.") and colon:
            further.append([name, value.strip()])
        elif colon:
            raw[name.strip()] = value.strip()
    if description:
        raw["description"] = "\n".join(description)
    if further:
        raw["lxc"] = further
    return (LxcConfig if "rootfs" in raw else QemuConfig).of(raw)


def bytes_of(size: str | None) -> int | None:
    """Convert a size as disks write it (`32G`) to bytes."""
    match = _SIZE.fullmatch(size or "")
    return int(float(match[1]) * _UNITS[match[2]]) if match else None


def _device_order(name: str) -> tuple[str, int]:
    """Return a sort key that puts scsi2 before scsi10."""
    bus = name.rstrip("0123456789")
    return bus, whole_number(name.removeprefix(bus)) or 0


def _is_backed_up(bus: str, volume: str, options: Properties, *, ovmf: bool) -> bool:
    if bus == "unused" or options.get("media") == "cdrom" or (bus == "efidisk" and not ovmf):
        return False
    if bus == "mp":  # opt-in for mount points, and only for volumes
        return not volume.startswith("/") and flag(options.get("backup"))
    return flag(options.get("backup"), absent=True)


def _format_other(options: Properties, parsed: AbstractSet[str]) -> str | None:
    """Format the options without a field of their own as a property string."""
    other = (f"{key}={value}" for key, value in options.items() if key not in parsed)
    return ",".join(other) or None


def _model_and_mac(options: Properties) -> tuple[str, str | None]:
    """Read model and MAC from `virtio=MAC`, `model=virtio,macaddr=MAC` or `hwaddr=MAC`."""
    for key, value in options.items():
        if _MAC.fullmatch(value) and key not in ("hwaddr", "macaddr"):
            return key, value
    mac = options.get("hwaddr") or options.get("macaddr")
    return options.get("model") or options.get("type") or "veth", mac
