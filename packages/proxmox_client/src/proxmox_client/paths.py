"""API paths, built from segments that are encoded one by one."""

from urllib.parse import quote

from proxmox_client.errors import BadParameters


def join(*segments: str | int) -> str:
    """The path of these segments; what is inside one cannot reach into another."""
    return "/" + "/".join(_encoded(str(segment)) for segment in segments)


def node_of(path: str) -> str:
    """The node a path goes to, or `""`."""
    parts = path.split("/", 3)
    return parts[2] if len(parts) > 2 and parts[1] == "nodes" else ""


def place_of(path: str) -> str:
    """The part of a node a path goes to, `pve1/qemu` or `pve1/storage/nfs`, or `""`."""
    parts = path.split("/")
    if len(parts) < 3 or parts[1] != "nodes":
        return ""
    return "/".join(parts[2 : 5 if parts[3:4] == ["storage"] else 4])


def _encoded(segment: str) -> str:
    # an empty or dotted segment would name another resource once the path is normalised
    if segment in ("", ".", "..") or not segment.isprintable():
        message = f"{segment!r} cannot be part of a path"
        raise BadParameters(400, "", message, {"path": message})
    return quote(segment, safe="")
