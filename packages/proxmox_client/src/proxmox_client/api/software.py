"""Software of a node: packages, services, certificates and the subscription."""

from msgspec import field

from proxmox_client.json_decoder import Answer


class Package(Answer, frozen=True):
    """A package: installed, or an update; `old_version` is the one that is installed.

    `running_kernel` is set for proxmox-ve, `manager_version` for pve-manager.
    """

    package: str = field(name="Package")
    version: str = field(name="Version", default="")
    old_version: str | None = field(name="OldVersion", default=None)
    state: str | None = field(name="CurrentState", default=None)
    origin: str | None = field(name="Origin", default=None)
    priority: str | None = field(name="Priority", default=None)
    section: str | None = field(name="Section", default=None)
    title: str | None = field(name="Title", default=None)
    running_kernel: str | None = field(name="RunningKernel", default=None)
    manager_version: str | None = field(name="ManagerVersion", default=None)


class Service(Answer, frozen=True):
    """A service of a node, with systemd's states."""

    service: str
    name: str = ""
    description: str = field(name="desc", default="")
    state: str = "unknown"
    active_state: str | None = field(name="active-state", default=None)
    unit_state: str | None = field(name="unit-state", default=None)


class Certificate(Answer, frozen=True):
    """A certificate of a node; times are epochs."""

    filename: str
    subject: str | None = None
    issuer: str | None = None
    not_before: int | None = field(name="notbefore", default=None)
    not_after: int | None = field(name="notafter", default=None)
    fingerprint: str | None = None
    names: list[str] = field(name="san", default=[])
    key_type: str | None = field(name="public-key-type", default=None)
    key_bits: int | None = field(name="public-key-bits", default=None)


class Subscription(Answer, frozen=True):
    """The subscription of a node; `next_due_date` is a date, `check_time` an epoch.

    Its key and signature are not read.
    """

    status: str = ""
    level: str | None = None
    product: str | None = field(name="productname", default=None)
    sockets: int | None = None
    message: str | None = None
    registered: str | None = field(name="regdate", default=None)
    next_due_date: str | None = field(name="nextduedate", default=None)
    check_time: int | None = field(name="checktime", default=None)
