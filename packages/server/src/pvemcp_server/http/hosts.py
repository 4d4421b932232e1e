"""Accepted Host and Origin headers: the protection against DNS rebinding and foreign pages."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Self
from urllib.parse import urlsplit

from pvemcp_server.config import Config


@dataclass(frozen=True, slots=True)
class Hosts:
    """Names of this server, and origins whose pages may call it."""

    names: frozenset[str]
    origins: frozenset[str]

    @classmethod
    def of(cls, config: Config) -> Self:
        """Return the hosts and origins that are configured."""
        public = urlsplit(config.public_url or "").netloc
        names = {"localhost", config.host, public, *config.allowed_hosts}
        return cls(_lower(names), _lower(config.allowed_origins))

    def knows_host(self, host: str) -> bool:
        """Return whether it is a known name with any port, or an IP address.

        Addresses are safe: only names can be rebound by DNS.
        """
        host = host.lower()
        name = _name(host)
        return bool(name) and (host in self.names or name in self.names or _is_address(name))

    def allows_origin(self, origin: str, host: str) -> bool:
        """Return whether the page is our own (same host and port) or of a configured origin."""
        origin = origin.lower()
        return origin in self.origins or _authority(origin) == host.lower()

    def refuses(self, host: str, origin: str | None) -> tuple[int, str] | None:
        """Return status and message to refuse these headers with; None when they are accepted."""
        if not self.knows_host(host):
            return 421, f"This server is not known as {host[:100]!r}: see PVEMCP_ALLOWED_HOSTS."
        if origin is not None and not self.allows_origin(origin, host):
            return 403, "Pages of this origin may not call here: see PVEMCP_ALLOWED_ORIGINS."
        return None


def _lower(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name.lower() for name in names if name)


def _name(host: str) -> str:
    """Return the host without its port and brackets."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _authority(origin: str) -> str:
    """Return host and port of the origin; empty, which no Host header is, when it is no URL."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
