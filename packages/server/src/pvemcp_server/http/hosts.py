"""Accepted Host and Origin headers: the protection against DNS rebinding and foreign pages."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final, Self
from urllib.parse import urlsplit

from pvemcp_server.config import Config
from pvemcp_server.http.client_address import Networks, is_within, networks
from pvemcp_server.http.errors import Refused

# A name or an address, and a port: what else a URL can hold must not reach one that is made of it
_HOST: Final = re.compile(r"(?:[^\s/?#@:\[\]\\%]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Hosts:
    """Names of this server, and origins whose pages may call it."""

    names: frozenset[str]
    origins: frozenset[str]
    public: str | None = None  # the origin of the public URL
    proxies: Networks = ()  # whose X-Forwarded-Proto is trusted

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
        )

    def knows_host(self, host: str) -> bool:
        """Return whether it is a known name with any port, or an IP address.

        Addresses are safe: only names can be rebound by DNS.
        """
        host = host.lower()
        if not _HOST.fullmatch(host):
            return False
        try:
            parts = urlsplit(f"//{host}")
            name, _ = parts.hostname, parts.port  # which raises beyond 65535
        except ValueError:
            return False
        return name is not None and (host in self.names or name in self.names or _is_address(name))

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

    def refusal(self, scope: Mapping[str, Any], *, to_transport: bool) -> Refused | None:
        """Return the refusal of a foreign Host or Origin; None when they are accepted.

        Pages of the configured origins may call a transport, which needs a key; all else, as the
        admin pages, is for our own pages.
        """
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if not self.knows_host(host):
            message = f"This server is not known as {host[:100]!r}: see PVEMCP_ALLOWED_HOSTS."
            return Refused(421, message)
        if b"origin" in headers:
            allowed = {self.origin_of(scope), *(self.origins if to_transport else ())}
            if headers[b"origin"].decode("latin-1").lower() not in allowed:
                message = "Pages of this origin may not call here: see PVEMCP_ALLOWED_ORIGINS."
                return Refused(403, message)
        return None


def _lower(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name.lower() for name in names if name)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
