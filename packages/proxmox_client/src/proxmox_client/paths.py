"""API paths: building them from encoded segments, and reading the node from them."""

from typing import NamedTuple
from urllib.parse import quote

from proxmox_client.errors import BadParameters


def join(*segments: str | int) -> str:
    """Join segments to a path, each percent-encoded so that it stays one segment.

    Raises BadParameters for a segment that is empty, dotted or not printable.
    """
    return "/" + "/".join(_encode(str(segment)) for segment in segments)


def node_of(path: str) -> str:
    """Return the node that a path addresses, or `""`."""
    parts = path.split("/", 3)
    return parts[2] if len(parts) > 2 and parts[1] == "nodes" else ""


class FailureDomain(NamedTuple):
    """Part of a cluster that can hang on its own: a node's guests, or one storage on a node."""

    node: str
    part: str  # pve1/qemu, pve1/storage/nfs
    is_storage: bool


def failure_domain(path: str) -> FailureDomain | None:
    """Return the failure domain that a path addresses; None for the cluster as a whole."""
    parts = path.split("/")
    if len(parts) < 3 or parts[1] != "nodes":
        return None
    is_storage = len(parts) > 4 and parts[3] == "storage"
    return FailureDomain(parts[2], "/".join(parts[2 : 5 if is_storage else 4]), is_storage)


def _encode(segment: str) -> str:
    # an empty or dotted segment would address another resource once the path is normalized
    if segment in ("", ".", "..") or not segment.isprintable():
        message = f"{segment!r} cannot be part of a path"
        raise BadParameters(400, "", message, {"path": message})
    return quote(segment, safe="")
