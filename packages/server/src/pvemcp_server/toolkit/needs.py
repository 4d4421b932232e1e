"""Privileges that tools need of the Proxmox account, and how far an account has them."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

Held = Mapping[str, Mapping[str, bool]]
"""Privileges by path, as from GET /access/permissions; true where they propagate below the path."""


@dataclass(frozen=True, slots=True)
class RequiredPrivilege:
    """A privilege somewhere below `path`; any one of `privileges` is enough.

    Proxmox VE 9 split VM.Monitor up: `until_8` is the name that older versions check instead.
    With the requirement `instead`, on another path, this one is unnecessary.
    """

    path: str
    privileges: tuple[str, ...]
    until_8: str = ""
    instead: "RequiredPrivilege | None" = None

    def of(self, major: int) -> tuple[str, ...]:
        """Return the names in that major version; the first one is the one to grant."""
        return (self.until_8,) if self.until_8 and major < 9 else self.privileges


class Extent(StrEnum):
    """How far an account has a privilege."""

    EVERYWHERE = "everywhere"
    PARTLY = "partly"
    NOWHERE = "nowhere"


def extent(need: RequiredPrivilege, held: Held, major: int) -> tuple[Extent, list[str]]:
    """Return how far the account has the privilege and, if only partly, on which paths."""
    if need.instead and extent(need.instead, held, major)[0] is Extent.EVERYWHERE:
        return Extent.EVERYWHERE, []
    accepted = set(need.of(major))
    paths = {path: _propagates(privileges, accepted) for path, privileges in held.items()}
    for top in {"/", need.path}:
        if (below := paths.get(top)) is not None and (below or need.path == "/"):
            return Extent.EVERYWHERE, []
    if need.path == "/":  # Proxmox checks / itself: a privilege below it is not enough
        return Extent.NOWHERE, []
    inside = (f"{need.path.rstrip('/')}/", "/pool/")  # pools hold guests and storages
    some = sorted(p for p, below in paths.items() if below is not None and p.startswith(inside))
    return (Extent.PARTLY, some) if some else (Extent.NOWHERE, [])


def _propagates(privileges: Mapping[str, bool], accepted: set[str]) -> bool | None:
    """Return whether an accepted privilege propagates below its path; None if none is held."""
    flags = [below for name, below in privileges.items() if name in accepted]
    return any(flags) if flags else None


GUESTS = RequiredPrivilege("/vms", ("VM.Audit",))
NODES = RequiredPrivilege("/nodes", ("Sys.Audit",))
STORAGES = RequiredPrivilege("/storage", ("Datastore.Audit", "Datastore.AllocateSpace"))
SYSLOG = RequiredPrivilege("/nodes", ("Sys.Syslog",))
CLUSTER = RequiredPrivilege("/", ("Sys.Audit",))
POOLS = RequiredPrivilege("/pool", ("Pool.Audit",))
AGENT = RequiredPrivilege(
    "/vms", ("VM.GuestAgent.Audit", "VM.GuestAgent.Unrestricted"), until_8="VM.Monitor"
)
AGENT_EXEC = RequiredPrivilege("/vms", ("VM.GuestAgent.Unrestricted",), until_8="VM.Monitor")
AGENT_READ = RequiredPrivilege(
    "/vms", ("VM.GuestAgent.FileRead", "VM.GuestAgent.Unrestricted"), until_8="VM.Monitor"
)
POWER = RequiredPrivilege("/vms", ("VM.PowerMgmt",))
SNAPSHOT = RequiredPrivilege("/vms", ("VM.Snapshot",))
ROLLBACK = RequiredPrivilege("/vms", ("VM.Snapshot.Rollback", "VM.Snapshot"))
STOP_TASKS = RequiredPrivilege("/nodes", ("Sys.Modify",))  # not for the account's own tasks
CLONE = RequiredPrivilege("/vms", ("VM.Clone",))
ALLOCATE = RequiredPrivilege("/vms", ("VM.Allocate",))
CONFIG_CPU = RequiredPrivilege("/vms", ("VM.Config.CPU",))
CONFIG_MEMORY = RequiredPrivilege("/vms", ("VM.Config.Memory",))
CONFIG_NETWORK = RequiredPrivilege("/vms", ("VM.Config.Network",))
CONFIG_CLOUD_INIT = RequiredPrivilege("/vms", ("VM.Config.Cloudinit", "VM.Config.Network"))
CONFIG_DISK = RequiredPrivilege("/vms", ("VM.Config.Disk",))
CONFIG_CD = RequiredPrivilege("/vms", ("VM.Config.CDROM", "VM.Config.Disk"))
CONFIG_HARDWARE = RequiredPrivilege("/vms", ("VM.Config.HWType",))
CONFIG_OPTIONS = RequiredPrivilege("/vms", ("VM.Config.Options",))
NODE_STARTUP = RequiredPrivilege("/", ("Sys.Modify",))
MIGRATE = RequiredPrivilege("/vms", ("VM.Migrate",))
BACKUP = RequiredPrivilege("/vms", ("VM.Backup",))
# of the bridges of its network devices, by VLAN where they have one
BRIDGES = RequiredPrivilege("/sdn/zones", ("SDN.Use",))
SPACE = RequiredPrivilege("/storage", ("Datastore.AllocateSpace",))
TEMPLATES = RequiredPrivilege("/storage", ("Datastore.AllocateTemplate",))
NETWORK = RequiredPrivilege("/nodes", ("Sys.AccessNetwork", "Sys.Modify"))
REGISTRIES = RequiredPrivilege("/nodes", ("Sys.AccessNetwork",))
CONTENT = RequiredPrivilege("/storage", ("Datastore.Allocate",))
# listing a volume of a guest takes Datastore.Allocate, or for a disk image this (PVE/Storage.pm)
DISK_IMAGES = RequiredPrivilege("/vms", ("VM.Config.Disk",), instead=CONTENT)
# and for a backup both of these
BACKUPS_OF_GUESTS = RequiredPrivilege("/vms", ("VM.Backup",), instead=CONTENT)
BACKUPS_ON_STORAGES = RequiredPrivilege(
    "/storage", ("Datastore.AllocateSpace", "Datastore.Allocate")
)
