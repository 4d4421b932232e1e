"""Hosts of a request: its accepted Host and Origin, and the client's address behind proxies.

The first two protect from DNS rebinding and foreign pages; forwarded headers count as far as their
proxies are trusted.
"""

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from ipaddress import ip_address, ip_network
from typing import Any, Final, Self
from urllib.parse import urlsplit

from pvemcp_server.config import Config
from pvemcp_server.http.errors import Refused
from pvemcp_server.http.path_prefix import PathPrefix

# A name or an address, and a port: what else a URL can hold must not reach one that is made of it
_HOST: Final = re.compile(r"(?:[^\s/?#@:\[\]\\%]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?", re.IGNORECASE)

_LONGEST_HOST: Final = 260  # characters of a name with its port

Networks = tuple[Any, ...]
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hosts:
    """Names of this server, and origins whose pages may call it."""

    names: frozenset[str]
    origins: frozenset[str]
    public: str | None = None  # the origin of the public URL
    proxies: Networks = ()  # whose X-Forwarded-Proto is trusted
    prefix: PathPrefix = field(default_factory=PathPrefix)  # of the public URL

    @classmethod
    def of(cls, config: Config) -> Self:
        """Return the hosts and origins that are configured."""
        public = urlsplit(config.public_url or "")
        names = {"localhost", config.host, public.netloc, *config.allowed_hosts}
        return cls(
            _lower(names),
            _lower(config.allowed_origins),
            f"{public.scheme}://{public.netloc}".lower() if public.netloc else None,
            networks(config.trusted_proxies),
            PathPrefix(config.path_prefix),
        )

    def origin_of(self, scope: Mapping[str, Any]) -> str:
        """Return the origin of the page that a request asks for, as its browser names it."""
        headers, client = dict(scope["headers"]), scope.get("client")
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if self.public and self.public.partition("://")[2] == host:
            return self.public  # a proxy in front of it ends TLS, so its own scheme counts
        scheme = headers.get(b"x-forwarded-proto", b"").decode("latin-1").lower()
        trusted = client and is_within(client[0], self.proxies)
        if not trusted or scheme not in ("http", "https"):
            scheme = scope.get("scheme", "http")
        return f"{scheme}://{host}"

    def base_of(self, scope: Mapping[str, Any]) -> str:
        """Return the URL that OAuth's addresses of a request are below: the public one if any.

        Without a public URL the server has several names, and clients compare these addresses with
        the one that they were given.
        """
        return f"{self.public or self.origin_of(scope)}{self.prefix.text}"

    def refusal(
        self, scope: Mapping[str, Any], *, to_transport: bool, any_origin: bool = False
    ) -> Refused | None:
        """Return the refusal of a foreign Host or Origin; None when they are accepted.

        Pages of the configured origins may call a transport, which needs a key; all else, as the
        admin pages, is for our own pages. What is for clients of OAuth is for `any_origin`.
        """
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if len(host) > _LONGEST_HOST or not is_known(host.lower(), self.names):
            message = f"This server is not known as {host[:100]!r}: see PVEMCP_ALLOWED_HOSTS."
            return Refused(421, message)
        if b"origin" in headers and not any_origin:
            allowed = {self.origin_of(scope), *(self.origins if to_transport else ())}
            if headers[b"origin"].decode("latin-1").lower() not in allowed:
                message = "Pages of this origin may not call here: see PVEMCP_ALLOWED_ORIGINS."
                return Refused(403, message)
        return None


@lru_cache(1024)  # the same few clients call again and again
def is_known(host: str, names: frozenset[str]) -> bool:
    """Return whether a Host is one of the names with any port, or an IP address.

    Addresses are safe: only names can be rebound by DNS.
    """
    if not _HOST.fullmatch(host):
        return False
    try:
        parts = urlsplit(f"//{host}")
        name, _ = parts.hostname, parts.port  # which raises beyond 65535
    except ValueError:
        return False
    return name is not None and (host in names or name in names or _is_address(name))


def _lower(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name.lower() for name in names if name)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


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
