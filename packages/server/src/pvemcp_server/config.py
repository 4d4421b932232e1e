"""Start-up configuration: environment variables, credentials and options, read once."""

import os
import re
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from pvemcp_server.errors import ConfigError, value_fact

DRIVERS: Mapping[str, str] = {
    "sqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
}

RESERVED: Final = frozenset(
    {
        *("admin", "connections", "mcp", "oauth", "sse", "api-key"),
        *("authorize", "register", "token", "healthz", "icon.svg", "readyz", "version"),
    }
)
"""First segments of this server's own paths. No path prefix begins with one, so that each path has
one reading, whether a reverse proxy has removed the prefix or not."""
_PORTS: Final = {"http": ":80", "https": ":443"}  # which browsers leave out
_PREFIX: Final = re.compile(r"(?:/[\w~-][\w.~-]*)*", re.ASCII)


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _network(text: str) -> str:
    try:
        return str(ip_network(text, strict=False))
    except ValueError:
        raise ValueError("must be networks like 10.0.0.0/8, separated by commas") from None


def _origin(text: str) -> str:
    """Require a scheme and a host and nothing else."""
    origin, rest = _split_url(text)
    if rest:
        raise ValueError("must end with the host or its port, like https://mcp.example")
    return origin


def _public_url(text: str) -> str:
    """Require a scheme and a host, and at most a path that every proxy reads in the same way."""
    origin, rest = _split_url(text)
    if not _PREFIX.fullmatch(rest):
        raise ValueError(
            "must end with the host, its port or a plain path, like https://tools.example/pve"
        )
    if (first := rest.lstrip("/").partition("/")[0]) in RESERVED:
        raise ValueError(f"must have another path: this server has a /{first} of its own")
    return f"{origin}{rest}"


def _split_url(text: str) -> tuple[str, str]:
    """Return the origin of a URL, and what follows it without a slash at the end.

    The origin is as browsers and clients send it: in lower case, without the port of its scheme.
    """
    url = urlsplit(text)
    if url.scheme not in _PORTS or not url.hostname or "@" in url.netloc:
        raise ValueError("must begin with http:// or https://, like https://mcp.example")
    host = url.netloc.lower().removesuffix(_PORTS[url.scheme]).removesuffix(":")
    rest = url.geturl().removeprefix(f"{url.scheme}://{url.netloc}")
    return f"{url.scheme}://{host}", rest.rstrip("/")


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Networks = Annotated[
    tuple[Annotated[str, AfterValidator(_network)], ...], NoDecode, BeforeValidator(_split)
]
Origins = Annotated[
    tuple[Annotated[str, AfterValidator(_origin)], ...], NoDecode, BeforeValidator(_split)
]
PublicUrl = Annotated[str, AfterValidator(_public_url)]


def default_state_dir() -> Path:
    """Return `var` in the checkout that runs, or else `pvemcp` in the user's folder of states.

    The working directory does not matter: every command of an installation uses the same state.
    """
    checkout = Path(__file__).parents[4]
    if (checkout / "packages" / "server" / "pyproject.toml").is_file():
        return checkout / "var"
    states = Path(os.environ.get("XDG_STATE_HOME") or "")
    return (states if states.is_absolute() else Path.home() / ".local" / "state") / "pvemcp"


class Config(BaseSettings):
    """The configuration; each field is the environment variable PVEMCP_<NAME>.

    Lists are separated by commas.
    """

    model_config = SettingsConfigDict(
        env_prefix="PVEMCP_", env_ignore_empty=True, extra="ignore", frozen=True
    )

    host: str = Field(
        default="127.0.0.1",
        description="Address to listen on; 0.0.0.0 is all of IPv4, :: all of IPv6 and IPv4",
    )
    port: int = Field(default=8811, ge=0, le=65535, description="Port to listen on; 0 picks one")
    state_dir: Path = Field(
        default_factory=lambda: default_state_dir(),
        description="Folder of the database, the master key and the backups; by default `var` in "
        "the checkout that runs, and for an installed package `pvemcp` in XDG_STATE_HOME "
        "(`~/.local/state`)",
    )
    database_url: SecretStr | None = Field(
        default=None, description="sqlite:/// or postgresql:// URL; by default SQLite in state_dir"
    )
    master_key: SecretStr | None = Field(
        default=None, description="Master key as 64 hex digits, instead of a file"
    )
    master_key_file: Path | None = Field(
        default=None, description="File of the master key; by default state_dir/master.key"
    )
    public_url: PublicUrl | None = Field(
        default=None,
        description="URL under which clients reach the server; behind a reverse proxy with "
        "a path prefix, with that path",
    )
    allowed_hosts: Words = Field(default=(), description="Additional Host headers to accept")
    allowed_origins: Origins = Field(
        default=(), description="Additional origins whose web pages may use the endpoint (CORS)"
    )
    trusted_proxies: Networks = Field(
        default=(), description="Networks whose X-Forwarded-For header is trusted"
    )
    admin_user: str = Field(default="admin", description="Name of the first administrator")
    admin_password: SecretStr | None = Field(
        default=None, description="Password of the first administrator; generated by default"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Lowest level of log lines to write"
    )
    log_format: Literal["text", "json"] = Field(default="text", description="Format of log lines")
    metrics_host: str = Field(
        default="127.0.0.1",
        description="Address to listen on for /metrics, which needs no key: keep it private",
    )
    metrics_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Port of its own for /metrics, in the format of Prometheus; none by default. "
        "0 picks one; of several workers, each has the next one",
    )
    oidc_issuer: str | None = Field(default=None, description="OpenID Connect issuer URL")
    oidc_client_id: str | None = Field(default=None, description="OpenID Connect client id")
    oidc_client_secret: SecretStr | None = Field(
        default=None, description="OpenID Connect client secret"
    )
    oidc_admins: Words = Field(
        default=(),
        description="Administrators who sign in with OpenID Connect: an e-mail address or "
        "claim:value, each with =owner (the default), =key-issuer or =auditor",
    )

    @classmethod
    def load(cls, **options: Any) -> Self:
        """Read the configuration; options override the environment, it overrides credentials.

        Raise ConfigError that names each wrong variable, without its value.
        """
        folder = os.environ.get("CREDENTIALS_DIRECTORY")
        try:
            return cls(**{"_secrets_dir": folder, **options})
        except ValidationError as invalid:
            raise ConfigError(_explain(invalid)) from None

    @property
    def database(self) -> str:
        """The database URL with our driver; it may contain a password, so never log it."""
        if self.database_url is None:
            return f"sqlite+aiosqlite:///{self.database_file}"
        scheme, separator, rest = self.database_url.get_secret_value().partition("://")
        name = scheme.partition("+")[0]
        if not separator or name not in DRIVERS:
            raise ConfigError("PVEMCP_DATABASE_URL must begin with sqlite:/// or postgresql://.")
        return f"{DRIVERS[name]}://{rest}"

    @property
    def database_file(self) -> Path:
        """The file of the SQLite database that is used when no database URL is given."""
        return self.state_dir.absolute() / "pvemcp.sqlite3"

    @property
    def base_url(self) -> str:
        """The URL under which users and clients reach this server."""
        if self.public_url:
            return self.public_url
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104 - compared, not bound
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def path_prefix(self) -> str:
        """The path of the public URL, such as /pve; empty without one."""
        return urlsplit(self.public_url or "").path

    @property
    def serves_https(self) -> bool:
        """Whether users reach this server over https, through a proxy."""
        return self.base_url.startswith("https:")


def _explain(invalid: ValidationError) -> str:
    """Name each wrong variable without its value, which may be a secret."""
    facts = (
        f"PVEMCP_{str(error['loc'][0]).upper()}: {value_fact(error).removesuffix('.')}"
        for error in invalid.errors(include_input=False, include_url=False)
    )
    return "; ".join(facts)
