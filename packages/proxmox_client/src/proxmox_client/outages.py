"""Responses of a host that cannot serve requests: it is as unavailable as one that refuses them.

pveproxy may answer while the services behind it do not: pmxcfs is stopped, pvedaemon restarts, or
the node asked about cannot be reached. A proxy in front of Proxmox may answer instead of it.
"""

import re
from typing import NamedTuple

# refused before the request was dispatched, so certainly not carried out (PVE/HTTPServer.pm)
_NOT_DISPATCHED = re.compile(r"RPCEnvironment init request failed")
# the cluster file system of the host does not answer (PVE/IPCC.xs), or its mount is dead
_FILE_SYSTEM = re.compile(
    r"ipcc_send_rec\[\d+\] failed|/etc/pve\b.*Transport endpoint is not connected"
)
_GATEWAY = {502, 503, 504}
_NOT_CONNECTED = 595  # of the statuses 595 to 599, the only one before anything was sent


class Response(NamedTuple):
    """A response before decoding; `reason` is the text of the status line."""

    status: int
    reason: str
    body: bytes


class Outage(NamedTuple):
    """What a response says about its host, or about the node behind it.

    `certain` is false if the response may also be an error of the request itself; `undone` is
    true if a write was certainly not carried out.
    """

    reason: str
    certain: bool
    undone: bool = False


def outage_of(response: Response) -> Outage | None:
    """Return the outage that a response reports; None for an answer of Proxmox."""
    status, reason, body = response
    text = f"{reason} {body[:1000].decode(errors='replace')}" if status >= 300 else ""
    if _NOT_DISPATCHED.search(text):
        return Outage(f"its cluster file system is down: {reason}", certain=True, undone=True)
    if _FILE_SYSTEM.search(text):
        return Outage(f"its cluster file system is down: {reason}", certain=True)
    trimmed = body.strip()
    if trimmed[:1] == b"<":
        return Outage(f"a web page answers, not Proxmox (status {status})", certain=True)
    if status in _GATEWAY:
        return Outage(f"status {status} {reason}".strip(), certain=True)
    # every answer is a JSON object
    if status < 300 and not (trimmed[:1] == b"{" and trimmed[-1:] == b"}"):
        return Outage("its answer is incomplete, or no JSON", certain=True)
    if 595 <= status <= 599:
        return Outage(f"{status} {reason}", certain=False, undone=status == _NOT_CONNECTED)
    if status == 500 and not trimmed:
        return Outage(f"{status} {reason}", certain=False)
    return None
