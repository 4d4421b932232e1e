"""The client's address, also behind trusted proxies."""

import logging
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from ipaddress import ip_address, ip_network
from typing import Any

Networks = tuple[Any, ...]
log = logging.getLogger(__name__)


def networks(texts: Iterable[str]) -> Networks:
    """Parse networks such as 10.0.0.0/8."""
    return tuple(ip_network(text) for text in texts)


def client_address(scope: Mapping[str, Any], trusted: Networks) -> str:
    """Return the nearest address that is not a trusted proxy's.

    X-Forwarded-For is read from its end, and only as far as the proxies are trusted: a client
    can invent everything beyond. The header of an untrusted peer is ignored, with a warning: it is
    a client's invention, or a proxy that PVEMCP_TRUSTED_PROXIES lacks.
    """
    client = scope.get("client")
    peer = _host(str(client[0])) if client else ""
    values = [v.decode("latin-1") for name, v in scope["headers"] if name == b"x-forwarded-for"]
    if not trusted or not is_within(peer, trusted):
        if values:
            _warn_of_untrusted_proxy()
        return peer
    hops = [hop.strip() for value in values for hop in value.split(",") if hop.strip()]
    nearest = peer
    for hop in reversed(hops):  # only as far as they count: a client can send thousands
        nearest = _host(hop)
        if not is_within(nearest, trusted):
            break
    return nearest


@cache  # once per process: every request through such a proxy would repeat it
def _warn_of_untrusted_proxy() -> None:
    log.warning(
        "X-Forwarded-For was sent by a peer that is not trusted, and was ignored. If it is your "
        "reverse proxy, set PVEMCP_TRUSTED_PROXIES: until then all its clients share its address "
        "in limits, allow-lists and the audit."
    )


@lru_cache(1024)  # the same few clients call again and again
def _host(hop: str) -> str:
    """Return the address without a port, and an IPv4-mapped IPv6 address as IPv4."""
    host = hop.partition(":")[0] if hop.count(":") == 1 else hop
    if hop.startswith("["):
        host = hop[1:].partition("]")[0]
    try:
        parsed = ip_address(host)
    except ValueError:
        return hop
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


@lru_cache(1024)
def is_within(address: str, known: Networks) -> bool:
    """Return whether the address is in one of the networks."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in known)
