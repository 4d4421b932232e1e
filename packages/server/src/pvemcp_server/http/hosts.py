"""Which Host and Origin headers are accepted: what keeps other people's web pages out."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Self
from urllib.parse import urlsplit

from pvemcp_server.config import Config


@dataclass(frozen=True, slots=True)
class Hosts:
    """Names under which we may be addressed, and origins whose pages may call us."""

    names: frozenset[str]
    origins: frozenset[str]

    @classmethod
    def of(cls, config: Config) -> Self:
        public = urlsplit(config.public_url or "").netloc
        names = {"localhost", config.host, public, *config.allowed_hosts}
        return cls(_lower(names), _lower(config.allowed_origins))

    def knows_host(self, host: str) -> bool:
        """A known name with any port, or an address: only names can be rebound by DNS."""
        host = host.lower()
        name = _name(host)
        return bool(name) and (host in self.names or name in self.names or _is_address(name))

    def allows_origin(self, origin: str, host: str) -> bool:
        """A page of our own (same host and port), or one of a configured origin."""
        origin = origin.lower()
        return origin in self.origins or _authority(origin) == host.lower()

    def refuses(self, host: str, origin: str | None) -> tuple[int, str] | None:
        """The status and the reason to refuse these headers with; None when they are fine."""
        if not self.knows_host(host):
            return 421, f"This server is not known as {host[:100]!r}: see PVEMCP_ALLOWED_HOSTS."
        if origin is not None and not self.allows_origin(origin, host):
            return 403, "Pages of this origin may not call here: see PVEMCP_ALLOWED_ORIGINS."
        return None


def _lower(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name.lower() for name in names if name)


def _name(host: str) -> str:
    """The host without its port and brackets."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _authority(origin: str) -> str:
    """Host and port of the origin; empty when it is no URL, which no Host header is."""
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
