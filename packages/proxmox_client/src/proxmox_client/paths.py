"""API paths, built from encoded segments."""

from urllib.parse import quote

from proxmox_client.errors import BadParameters


def join(*segments: str | int) -> str:
    """Join segments to a path, each percent-encoded so that it stays one segment.

    Raise BadParameters for a segment that is empty, dotted or not printable.
    """
    return "/" + "/".join(_encode(str(segment)) for segment in segments)


def _encode(segment: str) -> str:
    # an empty or dotted segment would address another resource once the path is normalized
    if segment in ("", ".", "..") or not segment.isprintable():
        message = f"{segment!r} cannot be part of a path"
        raise BadParameters(400, "", message, {"path": message})
    return quote(segment, safe="")
