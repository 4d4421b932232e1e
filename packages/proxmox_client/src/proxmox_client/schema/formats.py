"""Named formats of text values.

A format that is not listed accepts every text: the published schema names formats only.
"""

import ipaddress
import re
from collections.abc import Callable
from typing import Final

_LABEL = r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)"
_SPLIT = re.compile(r"[,;\s\0]+")


def _matching(pattern: str, message: str) -> Callable[[str], str | None]:
    """Create a format whose values match a pattern; `{}` in the message is the value."""
    compiled = re.compile(pattern, re.ASCII)
    return lambda text: None if compiled.fullmatch(text) else message.format(text)


def _address(*versions: int) -> Callable[[str], str | None]:
    def check(text: str) -> str | None:
        try:
            valid = ipaddress.ip_address(text).version in versions
        except ValueError:
            valid = False
        return None if valid else "value does not look like a valid IP address"

    return check


def _network(*versions: int) -> Callable[[str], str | None]:
    def check(text: str) -> str | None:
        try:
            valid = "/" in text and ipaddress.ip_interface(text).version in versions
        except ValueError:
            valid = False
        return None if valid else "value does not look like a valid CIDR network"

    return check


def _calendar_event(text: str) -> str | None:
    # Proxmox has a grammar of its own; this accepts its named events and any text with a digit.
    if re.search(r"\d|\*", text) or text in _NAMED_EVENTS:
        return None
    return f"invalid calendar event '{text}' - unable to parse calendar event\n"


_NAMED_EVENTS: Final = frozenset(
    [
        *("minutely", "hourly", "daily", "weekly", "monthly", "quarterly"),
        *("semiannually", "semi-annually", "annually", "yearly"),
        *("mon", "tue", "wed", "thu", "fri", "sat", "sun"),
    ]
)

_USER = r"[^\s:/]+@[A-Za-z][A-Za-z0-9.\-_]+"
_STORAGE = r"[A-Za-z][A-Za-z0-9\-_.]*[A-Za-z0-9]"

_KEEP = r"keep-(?:all|last|hourly|daily|weekly|monthly|yearly)=\d+"

FORMATS: Final[dict[str, Callable[[str], str | None]]] = {
    "pve-vmid": _matching(r"[1-9]\d{2,8}", "value does not look like a valid VM ID"),
    "pve-configid": _matching(r"[A-Za-z][\w-]+", "invalid configuration ID '{}'"),
    "pve-storage-id": _matching(_STORAGE, "storage ID '{}' contains illegal characters"),
    "pve-node": _matching(_LABEL, "value does not look like a valid node name"),
    "pve-userid": _matching(_USER, "value '{}' does not look like a valid user name"),
    "pve-tokenid": _matching(
        _USER + r"![A-Za-z][A-Za-z0-9.\-_]+", "value '{}' does not look like a valid token ID"
    ),
    "pve-groupid": _matching(r"[A-Za-z0-9.\-_]+", "group name '{}' contains invalid characters"),
    "pve-roleid": _matching(r"[A-Za-z0-9.\-_]+", "role name '{}' contains invalid characters"),
    "pve-poolid": _matching(
        r"[A-Za-z0-9.\-_]+(?:/[A-Za-z0-9.\-_]+){0,2}", "pool name '{}' contains invalid characters"
    ),
    "pve-realm": _matching(r"[A-Za-z][A-Za-z0-9.\-_]+", "value does not look like a valid realm"),
    "pve-volume-id": _matching(_STORAGE + r":.+", "unable to parse volume ID '{}'"),
    "pve-volume-id-or-qm-path": _matching(
        r"(?:none|cdrom|/.+|" + _STORAGE + r":.+)", "unable to parse volume ID '{}'"
    ),
    "dns-name": _matching(rf"{_LABEL}(?:\.{_LABEL})*", "value does not look like a valid DNS name"),
    "mac-addr": _matching(
        r"[0-9A-Fa-f][02468aceACE](?::[0-9A-Fa-f]{2}){5}",
        "value does not look like a valid unicast MAC address",
    ),
    "disk-size": _matching(
        r"\d+(?:\.\d+)?[KMGT]?", "value does not look like a valid disk size: {}"
    ),
    "pve-iface": _matching(r"[A-Za-z][\w.:]{1,20}", "invalid network interface name '{}'"),
    "pve-bridge-id": _matching(r"[-_.\w]+", "invalid bridge ID '{}'"),
    "pve-ha-resource-id": _matching(
        r"(?:vm|ct):[1-9]\d{2,8}", "value does not look like a valid HA resource ID"
    ),
    "pve-ha-resource-or-vm-id": _matching(
        r"(?:(?:vm|ct):)?[1-9]\d{2,8}", "value does not look like a valid HA resource ID"
    ),
    "prune-backups": _matching(
        rf"{_KEEP}(?:,{_KEEP})*", "value does not look like a retention: {}"
    ),
    "pve-calendar-event": _calendar_event,
    "ip": _address(4, 6),
    "ipv4": _address(4),
    "ipv6": _address(6),
    "CIDR": _network(4, 6),
    "CIDRv4": _network(4),
    "CIDRv6": _network(6),
}


def format_error(name: str, text: str) -> str | None:
    """Check a text against a named format; return the message, or None if it is valid.

    A format that ends in `-list` is checked item by item.
    """
    if name in FORMATS:
        return FORMATS[name](text)
    single = FORMATS.get(name.removesuffix("-list")) if name.endswith("-list") else None
    if single is None:
        return None
    return next(filter(None, (single(item) for item in _SPLIT.split(text) if item)), None)
