"""API paths, built from segments that are encoded one by one."""

from typing import NamedTuple
from urllib.parse import quote

from proxmox_client.errors import BadParameters


def join(*segments: str | int) -> str:
    """The path of these segments; what is inside one cannot reach into another."""
    return "/" + "/".join(_encoded(str(segment)) for segment in segments)


def node_of(path: str) -> str:
    """The node a path goes to, or `""`."""
    parts = path.split("/", 3)
    return parts[2] if len(parts) > 2 and parts[1] == "nodes" else ""


class Place(NamedTuple):
    """What may hang on its own: a node, and the part of it that a path goes to."""

    node: str
    part: str  # pve1/qemu, pve1/storage/nfs
    is_storage: bool


def place_of(path: str) -> Place | None:
    """Where on a node a path goes to; None when it goes to the cluster as a whole."""
    parts = path.split("/")
    if len(parts) < 3 or parts[1] != "nodes":
        return None
    is_storage = len(parts) > 4 and parts[3] == "storage"
    return Place(parts[2], "/".join(parts[2 : 5 if is_storage else 4]), is_storage)


def _encoded(segment: str) -> str:
    # an empty or dotted segment would name another resource once the path is normalised
    if segment in ("", ".", "..") or not segment.isprintable():
        message = f"{segment!r} cannot be part of a path"
        raise BadParameters(400, "", message, {"path": message})
    return quote(segment, safe="")
