"""What requests to Proxmox's API do: the one place that decides about POST, PUT and DELETE.

Tables of requests, as `METHOD path`, and rules for parameters. `tests/server/tools/api_effects.txt`
has the decision for every request of every stored version, so that a new one is looked at.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from proxmox_client.api.resources import StorageResource
from proxmox_client.json_decoder import split_list
from proxmox_client.properties import parse
from proxmox_client.schema import Endpoint
from proxmox_client.volumes import owners
from pvemcp_server.access.model import Effect
from pvemcp_server.audit.mask import SECRET_PARAMETER
from pvemcp_server.toolkit.node_bound import bound_devices, mapped_devices

_GUEST: Final = r"/nodes/\{node\}/(?:qemu|lxc)/\{vmid\}"

_RIGHTS: Final = "changes who may do what"
# Requests that are never sent, with the reason
_REFUSED: Final[Mapping[str, str]] = {
    _RIGHTS: r"\w+ /access.*|\w+ /cluster/(?:config|jobs/realm-sync).*"
    rf"|POST {_GUEST}/agent/set-user-password",
    "opens a console or a channel": r"POST .*/(?:\w*proxy|\w+shell|mtunnel|dbus-vmstate)"
    rf"|PUT {_GUEST}/sendkey",
    "runs programs or writes files": rf"POST /nodes/\{{node\}}/execute|POST {_GUEST}/monitor"
    rf"|POST {_GUEST}/agent/(?:exec|file-write)|POST .*/upload",
    "reaches other hosts": r"POST .*/(?:download-url|oci-registry-pull|remote_migrate)",
    # reads
    "reaches hosts, opens a channel, streams a file or reads inside a guest": (
        r"GET (?:/nodes/\{node\}/(?:scan(?:/.*)?|query-.*|apt/changelog)|/cluster/acme/(?:tos|meta)"
        r"|.*websocket|.*/file-restore/.*|.*/agent/(?:file-read|exec-status)"
        r"|/access/(?:ticket|openid.*))"
    ),
}
_STREAMS: Final = "download"  # the parameter that makes the answer of a GET a file
# Parameters that decide about rights, by their requests: second factors, and who may set which
# tags, on which roles and protected tags depend; their case too
_OF_RIGHTS: Final[Mapping[str, frozenset[str]]] = {
    "PUT /cluster/options": frozenset(
        {"webauthn", "u2f", "user-tag-access", "registered-tags", "tag-style"}
    ),
}
# Parameters that name programs which nodes run
_PROGRAMS: Final = frozenset({"script", "hookscript", "args"})
# Requests on many guests, with the parameter that has to name them
_BULK: Final[Mapping[str, str]] = {
    r"POST /cluster/bulk-action/.*": "vms",
    r"POST /nodes/\{node\}/(?:startall|stopall|suspendall|migrateall)": "vms",
    r"POST /nodes/\{node\}/vzdump": "vmid",
    r"DELETE /nodes/\{node\}/storage/\{storage\}/prunebackups": "vmid",
}
# The request on the guests of its node that run
_OF_NODE: Final = r"POST /nodes/\{node\}/status"
# Requests on the storages of a node that are on its disks; or on Ceph's, which all nodes share
_ON_DISKS: Final = re.compile(
    r"PUT /nodes/\{node\}/disks/wipedisk|POST /nodes/\{node\}/disks/initgpt"
    r"|DELETE /nodes/\{node\}/disks/.*"
)
_ON_CEPH: Final = re.compile(
    r"(?:PUT|DELETE) /nodes/\{node\}/ceph/(?:pool|fs|osd)/\{\w+\}"
    r"|POST /nodes/\{node\}/ceph/osd/\{osdid\}/out"
)
_CEPH: Final = frozenset({"rbd", "cephfs"})  # types of storages

_READS: Final = re.compile(rf"POST {_GUEST}/agent/(?:ping|fsfreeze-status)")

# Requests that lose data, a state or a connection, beside every DELETE; what is lost, in words
_DESTROYING: Final[Mapping[str, str]] = {
    "Running programs end, and what they have not saved is lost": (
        rf"POST {_GUEST}/status/(?:stop|reset|shutdown|reboot)"
        rf"|POST {_GUEST}/agent(?:/(?:shutdown|suspend-\w+|fsfreeze-freeze))?"
        r"|POST /nodes/\{node\}/(?:status|stopall|suspendall)"
        r"|POST /cluster/bulk-action/guest/shutdown"
        r"|POST /nodes/\{node\}/services/\{service\}/(?:stop|restart)"
        r"|POST /cluster/ha/(?:resources/\{sid\}/relocate|status/disarm-ha)"
        r"|POST /nodes/\{node\}/ceph/(?:stop|restart)|PUT /cluster/ceph/flags.*"
    ),
    "The present state is replaced by an older one": (
        rf"POST {_GUEST}/snapshot/\{{snapname\}}/rollback|POST /cluster/sdn/rollback"
    ),
    "What is on the disks is erased": (
        r"PUT /nodes/\{node\}/disks/wipedisk|POST /nodes/\{node\}/disks/\w+"
        r"|POST /nodes/\{node\}/ceph/(?:init|osd|osd/\{osdid\}/out)"
        rf"|PUT {_GUEST}/unlink"
    ),
    "It cannot be undone": rf"POST {_GUEST}/template",
    "What the changed options did before ends, such as a connection, a way to sign in or "
    "a protection": (
        rf"(?:PUT|POST) {_GUEST}/config|PUT /cluster/options"
        r"|PUT /nodes/\{node\}/(?:network|config)|PUT /cluster/sdn"
        r"|(?:PUT|POST) /nodes/\{node\}/certificates/.*|PUT /storage/.*"
        r"|PUT /nodes/\{node\}/ceph/pool/.*"
        r"|PUT /nodes/\{node\}/dns|POST /nodes/\{node\}/hosts"
    ),
    "Connections that were let in may be refused, and those that were refused let in": (
        r"(?:POST|PUT) .*/firewall/.*"
    ),
    "Older backups are removed by the retention of job or storage": (
        r"POST /nodes/\{node\}/vzdump"
    ),
}
# Requests that change what protects: with any parameter that has no harmless name they lose
# something, as a new schedule, storage or retention of a backup job loses backups
_PROTECTING: Final[Mapping[str, str]] = {
    "Guests may be protected less by backups, copies or HA, be moved or stopped, and older "
    "backups may be removed": (
        r"(?:POST|PUT) /cluster/(?:backup|replication|ha/(?:resources|rules|groups))(?:/\{\w+\})?"
        r"|PUT /pools.*"
    ),
    "Nodes may get other packages, or no more updates": (
        r"(?:POST|PUT) /nodes/\{node\}/apt/repositories"
    ),
    "Alerts may no longer reach those who have to know": (
        r"PUT /cluster/notifications/(?:endpoints|matchers)/.*"
    ),
}
# Parameters that change nothing of that: texts, the name of a pool, and the kind, which stays
_HARMLESS: Final = frozenset({"comment", "notes-template", "digest", "poolid", "type"})
# Parameters that make a request erase a disk: the LUN that a new volume group is made on.
# Source: PVE/Storage/LVMPlugin.pm, where a group is created.
_ERASING: Final[Mapping[str, str]] = {"POST /storage": "base"}
# Requests that make a guest, and its drives: with a volume that exists and has no guest's name, as
# a LUN, it writes to what may be in use
_NEW_GUEST: Final = re.compile(r"POST /nodes/\{node\}/(?:qemu|lxc)")
_DRIVE: Final = re.compile(r"(?:(?:ide|sata|scsi|virtio|mp|unused)\d+|rootfs|efidisk0|tpmstate0)")
_NEW_VOLUME: Final = re.compile(r"\d+(?:\.\d+)?|cloudinit")  # after the name of the storage
# Requests that move guests to another node
_MOVING: Final = re.compile(
    r"POST /(?:cluster/bulk-action/guest/migrate|nodes/\{node\}/migrateall"
    rf"|cluster/ha/resources/\{{sid\}}/\w+)|POST {_GUEST}/migrate"
)
# Parameters that make any request one that loses something, if they are set; and words in others
_LOSING_PARAMETERS: Final = frozenset({"forceStop", "overrule-shutdown", "stop", "target-vmid"})
_LOSING_WORDS: Final = frozenset({
    "delete", "force", "purge", "prune", "remove", "destroy", "wipe", "overwrite", "skiplock",
    "restart",
})  # fmt: skip
_UNSET: Final = frozenset({"", "0", "false", "no", "off"})
_STOPPING_VALUES: Final[Mapping[str, frozenset[str]]] = {
    "state": frozenset({"stopped", "disabled"}),  # of a resource of HA
    "mode": frozenset({"stop"}),  # of a backup
    "protected": _UNSET,
    "protection": _UNSET,
}
# Parameters that switch off what is there now, such as a backup job: of a PUT, as nothing new has
# done anything yet
_SWITCHES: Final[Mapping[str, frozenset[str]]] = {
    "enable": _UNSET,
    "enabled": _UNSET,
    "disable": frozenset({"1", "true", "yes", "on"}),
}
# Requests on guests, whose options could name disks and folders of their nodes
_OF_GUEST: Final = re.compile(
    rf"(?:POST|PUT) (?:/nodes/\{{node\}}/(?:qemu|lxc)|{_GUEST}(?!/firewall)(?:/.*)?)"
)
# Options without such names: texts, and what is inside of a container
_NO_PATHS: Final = frozenset({"description", "ssh-public-keys", "sshkeys", "env", "entrypoint"})
# A path in a part of an option. Those of a container's mount point and of a generator of random
# numbers are no folders
_HOST_PATH: Final = re.compile(
    r"(?:^|,)(?!mp=|source=/dev/(?:u?random|hwrng)(?:,|$))(?:[^,=]*=)?[\s\"']*/"
)
_DELETED: Final = "What is deleted cannot be restored."

# Parameters that name a host which the cluster contacts from then on
_HOSTS: Final = frozenset({"server", "server2", "url", "portal", "monhost", "directory", "mailto"})
_CONTACTING: Final = re.compile(
    r"POST /cluster/notifications/targets/.*|POST /nodes/\{node\}/(?:aplinfo|apt/update)"
    r"|(?:POST|PUT) /nodes/\{node\}/subscription|\w+ /cluster/acme/account.*"
)
# Parameters that name folders of nodes, by the requests that open these to guests
_FOLDERS: Final[Mapping[str, frozenset[str]]] = {
    r"POST /storage": frozenset({"path", "content-dirs"}),
    r"(?:POST|PUT) /cluster/mapping/dir.*": frozenset({"map"}),
}
# and that name devices, which a node loses to the guest that uses them
_DEVICES: Final = re.compile(r"(?:POST|PUT) /cluster/mapping/(?:pci|usb).*")


def refusal(endpoint: Endpoint, parameters: Mapping[str, Any]) -> str:
    """Return why the request is never sent, as the end of a sentence; empty if it may be."""
    request = f"{endpoint.method} {endpoint.path}"
    for reason, pattern in _REFUSED.items():
        if re.fullmatch(pattern, request):
            return f"it {reason}"
    if endpoint.method == "GET":
        return "it streams a file" if _STREAMS in parameters else ""
    changed = {*parameters, *split_list(str(parameters.get("delete", "")))}
    if rights := _OF_RIGHTS.get(request, frozenset()) & changed:
        return f"by {', '.join(sorted(rights))}, it {_RIGHTS}"
    if programs := _PROGRAMS & parameters.keys():
        return f"{', '.join(sorted(programs))} names programs that a node runs"
    if _OF_GUEST.fullmatch(request) and (paths := sorted(_host_paths(parameters))):
        return f"{', '.join(paths)} names a disk, a folder or a file of a node"
    for pattern, guests in _BULK.items():
        if re.fullmatch(pattern, request) and not _names_guests(parameters.get(guests)):
            return f"without {guests} it is about every guest"
    return ""


def _host_paths(parameters: Mapping[str, Any]) -> Iterator[str]:
    """Yield the options of a guest that have a path of its node, but texts and secrets."""
    for name, value in parameters.items():
        if name in _NO_PATHS or SECRET_PARAMETER.fullmatch(name):
            continue
        texts = value if isinstance(value, list) else [value]
        if any(_HOST_PATH.search(str(text)) for text in texts):
            yield name


def _names_guests(value: Any) -> bool:
    """Return whether a list has a number in it: an empty one would be about every guest."""
    return re.search(r"\d", str(value)) is not None


def effect(endpoint: Endpoint, parameters: Mapping[str, Any]) -> Effect:
    """Return what the request does, with these parameters."""
    if endpoint.method == "GET" or _READS.fullmatch(f"{endpoint.method} {endpoint.path}"):
        return Effect.READ
    return Effect.DESTROY if loss(endpoint, parameters) else Effect.WRITE


def loss(endpoint: Endpoint, parameters: Mapping[str, Any]) -> str:
    """Return a sentence on what the request loses; empty if it loses nothing."""
    if endpoint.method == "DELETE":
        return _DELETED
    request = f"{endpoint.method} {endpoint.path}"
    for words, pattern in _DESTROYING.items():
        if re.fullmatch(pattern, request):
            return f"{words}."
    for words, pattern in _PROTECTING.items():
        if parameters.keys() - _HARMLESS and re.fullmatch(pattern, request):
            return f"{words}."
    if request in _ERASING and _ERASING[request] in parameters:
        return f"What is on the disk of {_ERASING[request]} is erased, unless LVM has it already."
    if _NEW_GUEST.fullmatch(request) and (drives := sorted(_raw_drives(parameters))):
        return f"The guest writes to what exists already: the volume of {', '.join(drives)}."
    losing = sorted(
        name for name, value in parameters.items() if _loses(endpoint.method, name, str(value))
    )
    names = ", ".join(losing)
    return f"By {names}, it stops, removes or overrides what is there now." if losing else ""


def _raw_drives(parameters: Mapping[str, Any]) -> Iterator[str]:
    """Yield the drives whose volume exists and is of no guest."""
    for name in filter(_DRIVE.fullmatch, parameters):
        drive = parse(str(parameters[name]), "file")
        volume = drive.get("file") or drive.get("volume") or ""
        _, has_storage, file = volume.partition(":")
        is_image = has_storage and drive.get("media") != "cdrom"
        if is_image and not _NEW_VOLUME.fullmatch(file) and not owners(volume):
            yield name


def _loses(method: str, name: str, value: str) -> bool:
    folded = value.casefold()
    if method == "PUT" and name in _SWITCHES:
        return folded in _SWITCHES[name]
    if name in _STOPPING_VALUES:
        return folded in _STOPPING_VALUES[name]
    is_losing = name in _LOSING_PARAMETERS or not _LOSING_WORDS.isdisjoint(re.split("[-_]", name))
    return is_losing and folded not in _UNSET


def disclosure(endpoint: Endpoint, parameters: Mapping[str, Any]) -> str:
    """Return a sentence on hosts that it contacts, or folders that it opens; empty if none."""
    if hosts := sorted(_HOSTS & parameters.keys()):
        return f"The cluster contacts what {', '.join(hosts)} names."
    request = f"{endpoint.method} {endpoint.path}"
    if _CONTACTING.fullmatch(request):
        return "The cluster contacts another host for it."
    for pattern, names in _FOLDERS.items():
        if re.fullmatch(pattern, request) and (folders := sorted(names & parameters.keys())):
            return f"Guests may get files of nodes: those in the folders of {', '.join(folders)}."
    devices = ["map"] if _DEVICES.fullmatch(request) and "map" in parameters else []
    if _NEW_GUEST.fullmatch(request):
        devices = sorted({*bound_devices(parameters), *mapped_devices(parameters)})
    if devices:
        named = ", ".join(devices)
        return f"Guests may get devices of nodes, which these then lose: those of {named}."
    return ""


def moves_guests(endpoint: Endpoint) -> bool:
    """Return whether the request moves guests to another node, which restarts containers."""
    return _MOVING.fullmatch(f"{endpoint.method} {endpoint.path}") is not None


def storages_of(
    endpoint: Endpoint, values: Mapping[str, Any], storages: Iterable[StorageResource]
) -> list[StorageResource]:
    """Return the storages whose volumes a request may erase or make unreachable.

    Which storage is on a disk is not known: any may be that is not shared with other nodes.
    """
    request = f"{endpoint.method} {endpoint.path}"
    if request.endswith(" /storage/{storage}"):
        return [row for row in storages if row.storage == values["storage"]]
    if _ON_DISKS.fullmatch(request):
        return [row for row in storages if row.node == values["node"] and not row.shared]
    if _ON_CEPH.fullmatch(request):
        return [row for row in storages if row.plugin_type in _CEPH]
    return []


def is_of_many_guests(endpoint: Endpoint) -> bool:
    """Return whether the request acts on each of the guests that it names, or of its node."""
    request = f"{endpoint.method} {endpoint.path}"
    return any(re.fullmatch(pattern, request) for pattern in (*_BULK, _OF_NODE))


def is_of_node(endpoint: Endpoint) -> bool:
    """Return whether the request acts on a node, and so on the guests that run there."""
    return re.fullmatch(_OF_NODE, f"{endpoint.method} {endpoint.path}") is not None
