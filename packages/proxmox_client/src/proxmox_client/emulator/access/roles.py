"""The privileges and built-in roles of each version."""

from functools import cache
from typing import Final

_AGENT: Final = "Audit FileRead FileSystemMgmt FileWrite Unrestricted"
_CONFIG: Final = "CDROM CPU Cloudinit Disk HWType Memory Network Options"


def _privileges(group: str, names: str) -> frozenset[str]:
    return frozenset(f"{group}.{name}" for name in names.split())


DATASTORE: Final = _privileges("Datastore", "Allocate AllocateSpace AllocateTemplate Audit")
SYSTEM: Final = _privileges("Sys", "AccessNetwork Audit Console Incoming Modify PowerMgmt Syslog")
CONFIG: Final = _privileges("VM.Config", _CONFIG)
_VM_COMMON: Final = CONFIG | _privileges(
    "VM", "Allocate Audit Backup Clone Console Migrate PowerMgmt Snapshot Snapshot.Rollback"
)
_MAPPING: Final = _privileges("Mapping", "Audit Modify Use")
_SDN: Final = _privileges("SDN", "Allocate Audit Use")
_POOL: Final = _privileges("Pool", "Allocate Audit")
_USERS: Final = frozenset({"Group.Allocate", "Realm.AllocateUser", "User.Modify"})


@cache
def vm_privileges(release: tuple[int, int]) -> frozenset[str]:
    """Return the privileges on guests; from 9 on VM.GuestAgent.* replace VM.Monitor."""
    if release < (9, 0):
        return _VM_COMMON | {"VM.Monitor"}
    return _VM_COMMON | {"VM.Replicate"} | _privileges("VM.GuestAgent", _AGENT)


@cache
def all_privileges(release: tuple[int, int]) -> frozenset[str]:
    """Return all privileges of a version."""
    others = frozenset({"Permissions.Modify", "Realm.Allocate"})
    return DATASTORE | SYSTEM | vm_privileges(release) | _MAPPING | _SDN | _POOL | _USERS | others


@cache
def builtin_roles(release: tuple[int, int]) -> dict[str, frozenset[str]]:
    """Return the built-in roles of a version, with their privileges."""
    everything, guests = all_privileges(release), vm_privileges(release)
    administrators_only = frozenset(
        {"Permissions.Modify", "Realm.Allocate", "Mapping.Modify", "Sys.Modify", "Sys.PowerMgmt"}
        | {"Sys.Incoming", "Sys.AccessNetwork"}
    )
    user = frozenset({"VM.Audit", "VM.Backup", "VM.Console", "VM.PowerMgmt"})
    agent = {"VM.GuestAgent.Unrestricted"}
    by_agent = frozenset(name for name in guests if name.startswith("VM.GuestAgent.")) - agent
    return {
        "Administrator": everything,
        "NoAccess": frozenset(),
        "PVEAdmin": everything - administrators_only,
        "PVEAuditor": frozenset(
            name for name in everything if name.endswith(".Audit") or name == "VM.GuestAgent.Audit"
        ),
        "PVEDatastoreAdmin": DATASTORE,
        "PVEDatastoreUser": frozenset({"Datastore.AllocateSpace", "Datastore.Audit"}),
        "PVEMappingAdmin": _MAPPING,
        "PVEMappingUser": _MAPPING - {"Mapping.Modify"},
        "PVEPoolAdmin": _POOL,
        "PVEPoolUser": frozenset({"Pool.Audit"}),
        "PVESDNAdmin": _SDN,
        "PVESDNUser": _SDN - {"SDN.Allocate"},
        "PVESysAdmin": frozenset({"Sys.Audit", "Sys.Console", "Sys.Syslog"}),
        "PVETemplateUser": frozenset({"VM.Audit", "VM.Clone"}),
        "PVEUserAdmin": _USERS,
        "PVEVMAdmin": guests,
        "PVEVMUser": user | {"VM.Config.CDROM", "VM.Config.Cloudinit"} | by_agent,
    }
