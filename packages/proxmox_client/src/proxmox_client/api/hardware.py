"""Hardware, kernel, disks and network devices of a node."""

from msgspec import field

from proxmox_client.json_decoder import Answer


class Space(Answer, frozen=True):
    """Bytes of memory, swap or a file system."""

    total: int = 0
    used: int = 0
    free: int | None = None
    available: int | None = None
    avail: int | None = None


class CpuInfo(Answer, frozen=True):
    """The processor; `cpus` counts threads, `cores` the cores of all sockets."""

    model: str = ""
    sockets: int | None = None
    cores: int | None = None
    cpus: int | None = None
    mhz: float | None = None
    flags: str = ""


class Kernel(Answer, frozen=True):
    """The running kernel."""

    sysname: str = ""
    release: str = ""
    version: str = ""
    machine: str = ""


class BootInfo(Answer, frozen=True):
    """The boot mode, `efi` or `legacy-bios`, and secure boot."""

    mode: str = ""
    secure_boot: bool | None = field(name="secureboot", default=None)


class Disk(Answer, frozen=True):
    """A physical disk; `wearout` is the percentage of life left, or a text."""

    device: str = field(name="devpath")
    type: str = ""
    model: str | None = None
    vendor: str | None = None
    serial: str | None = None
    size: int | None = None
    health: str | None = None
    wearout: float | str | None = None
    used: str | None = None
    wwn: str | None = None
    rpm: int | str | None = None
    gpt: bool = False
    mounted: bool = False
    parent: str | None = None

    @property
    def life_left(self) -> float | None:
        """The percentage of life left, if the disk reports it.

        An NVMe SSD counts on beyond its rated life: Proxmox then has a negative number.
        """
        try:
            return max(0.0, float(self.wearout)) if self.wearout is not None else None
        except ValueError:
            return None


class NetworkInterface(Answer, frozen=True):
    """A network device of a node as configured."""

    iface: str
    type: str = ""
    active: bool = False
    autostart: bool = False
    method: str | None = None
    address: str | None = None
    netmask: str | None = None
    cidr: str | None = None
    gateway: str | None = None
    method6: str | None = None
    address6: str | None = None
    cidr6: str | None = None
    gateway6: str | None = None
    mtu: int | None = None
    bridge_ports: str | None = None
    ovs_ports: str | None = None
    bridge_vlan_aware: bool | None = None
    slaves: str | None = None
    vlan_id: int | None = field(name="vlan-id", default=None)
    vlan_device: str | None = field(name="vlan-raw-device", default=None)
    comments: str | None = None


class ZfsPool(Answer, frozen=True):
    """A ZFS pool, in bytes; `fragmentation` is a percentage."""

    name: str
    health: str = ""
    size: int | None = None
    allocated: int | None = field(name="alloc", default=None)
    free: int | None = None
    fragmentation: float | None = field(name="frag", default=None)
    deduplication: float | None = field(name="dedup", default=None)


class PciDevice(Answer, frozen=True):
    """A PCI device; numbers are hexadecimal texts, and -1 is no IOMMU group.

    Names are missing where the node does not know them.
    """

    id: str
    pci_class: str | None = field(name="class", default=None)
    vendor: str = ""
    vendor_name: str | None = None
    device: str = ""
    device_name: str | None = None
    iommu_group: int | None = field(name="iommugroup", default=None)
    mediated: bool = field(name="mdev", default=False)
