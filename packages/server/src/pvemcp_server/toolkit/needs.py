"""Which privileges a tool needs of the Proxmox account, and how far an account has them."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

Held = Mapping[str, Mapping[str, bool]]
"""Privileges by path; true where they hold below the path as well."""


@dataclass(frozen=True, slots=True)
class RequiredPrivilege:
    """A privilege somewhere below `path`; any one of `privileges` will do.

    Proxmox VE 9 split VM.Monitor up: `until_8` names what older versions ask for instead.
    `instead` is a need elsewhere that makes this one unnecessary.
    """

    path: str
    privileges: tuple[str, ...]
    until_8: str = ""
    instead: "RequiredPrivilege | None" = None

    def of(self, major: int) -> tuple[str, ...]:
        """The privileges by their names in that version; the first one is the one to grant."""
        return (self.until_8,) if self.until_8 and major < 9 else self.privileges


class Extent(StrEnum):
    """How far an account has a privilege."""

    EVERYWHERE = "everywhere"
    PARTLY = "partly"
    NOWHERE = "nowhere"


def extent(need: RequiredPrivilege, held: Held, major: int) -> tuple[Extent, list[str]]:
    """How far the need is met and, when only partly, on which paths."""
    if need.instead and extent(need.instead, held, major)[0] is Extent.EVERYWHERE:
        return Extent.EVERYWHERE, []
    wanted = set(need.of(major))
    paths = {path: below for path, names in held.items() for below in [_below(names, wanted)]}
    for top in {"/", need.path}:
        if (below := paths.get(top)) is not None and (below or need.path == "/"):
            return Extent.EVERYWHERE, []
    inside = (f"{need.path.rstrip('/')}/", "/pool/")  # pools hold guests and storages
    some = sorted(p for p, below in paths.items() if below is not None and p.startswith(inside))
    return (Extent.PARTLY, some) if some else (Extent.NOWHERE, [])


def _below(names: Mapping[str, bool], wanted: set[str]) -> bool | None:
    """Whether one of the wanted privileges holds below too; None when none is held at all."""
    found = [below for name, below in names.items() if name in wanted]
    return any(found) if found else None


GUESTS = RequiredPrivilege("/vms", ("VM.Audit",))
NODES = RequiredPrivilege("/nodes", ("Sys.Audit",))
STORAGES = RequiredPrivilege("/storage", ("Datastore.Audit", "Datastore.AllocateSpace"))
CLUSTER = RequiredPrivilege("/", ("Sys.Audit",))
POOLS = RequiredPrivilege("/pool", ("Pool.Audit",))
AGENT = RequiredPrivilege(
    "/vms", ("VM.GuestAgent.Audit", "VM.GuestAgent.Unrestricted"), until_8="VM.Monitor"
)
POWER = RequiredPrivilege("/vms", ("VM.PowerMgmt",))
SNAPSHOT = RequiredPrivilege("/vms", ("VM.Snapshot",))
ROLLBACK = RequiredPrivilege("/vms", ("VM.Snapshot.Rollback", "VM.Snapshot"))
MIGRATE = RequiredPrivilege("/vms", ("VM.Migrate",))
BACKUP = RequiredPrivilege("/vms", ("VM.Backup",))
SPACE = RequiredPrivilege("/storage", ("Datastore.AllocateSpace",))
TEMPLATES = RequiredPrivilege("/storage", ("Datastore.AllocateTemplate",))
NETWORK = RequiredPrivilege("/nodes", ("Sys.AccessNetwork", "Sys.Modify"))
CONTENT = RequiredPrivilege("/storage", ("Datastore.Allocate",))
# listing a backup takes both of these, or Datastore.Allocate (PVE/Storage.pm)
BACKUPS_OF_GUESTS = RequiredPrivilege("/vms", ("VM.Backup",), instead=CONTENT)
BACKUPS_ON_STORAGES = RequiredPrivilege(
    "/storage", ("Datastore.AllocateSpace", "Datastore.Allocate")
)
