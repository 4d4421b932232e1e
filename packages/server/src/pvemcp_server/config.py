"""What the process is told when it starts: environment, files and options, read once."""

import os
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from pvemcp_server.errors import ConfigError

DRIVERS: Mapping[str, str] = {
    "sqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
}


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _network(text: str) -> str:
    try:
        return str(ip_network(text, strict=False))
    except ValueError:
        raise ValueError("networks like 10.0.0.0/8, separated by commas") from None


def _site(text: str) -> str:
    """Without it, a missing scheme would show as cookies and hosts that are quietly wrong."""
    place = urlsplit(text)
    if place.scheme not in ("http", "https") or not place.hostname:
        raise ValueError("begins with http:// or https://, like https://mcp.example")
    return text.rstrip("/")


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Networks = Annotated[
    tuple[Annotated[str, AfterValidator(_network)], ...], NoDecode, BeforeValidator(_split)
]
Site = Annotated[str, AfterValidator(_site)]
Sites = Annotated[tuple[Site, ...], NoDecode, BeforeValidator(_split)]


class Config(BaseSettings):
    """Every field is also the environment variable PVEMCP_<NAME>; lists are comma-separated."""

    model_config = SettingsConfigDict(
        env_prefix="PVEMCP_", env_ignore_empty=True, extra="ignore", frozen=True
    )

    host: str = Field(default="127.0.0.1", description="Address to listen on")
    port: int = Field(default=8811, ge=0, le=65535, description="Port to listen on; 0 picks one")
    state_dir: Path = Field(default=Path("var"), description="Folder of database, key and backups")
    database_url: SecretStr | None = Field(
        default=None, description="sqlite:/// or postgresql:// URL; SQLite in state_dir when absent"
    )
    master_key: SecretStr | None = Field(
        default=None, description="Master key as 64 hex digits, in place of a file"
    )
    master_key_file: Path | None = Field(
        default=None, description="File of the master key; state_dir/master.key when absent"
    )
    public_url: Site | None = Field(default=None, description="URL under which clients reach us")
    allowed_hosts: Words = Field(default=(), description="Host headers accepted beyond our own")
    allowed_origins: Sites = Field(
        default=(), description="Origins whose web pages may use the endpoint, beside its own"
    )
    trusted_proxies: Networks = Field(
        default=(), description="Networks whose X-Forwarded-For is believed"
    )
    admin_user: str = Field(default="admin", description="Name of the first administrator")
    admin_password: SecretStr | None = Field(
        default=None, description="Password of the first administrator; made up when absent"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe log lines to write"
    )
    log_format: Literal["text", "json"] = Field(default="text", description="Shape of log lines")
    oidc_issuer: str | None = Field(default=None, description="OpenID Connect issuer URL")
    oidc_client_id: str | None = Field(default=None, description="Our client id at the issuer")
    oidc_client_secret: SecretStr | None = Field(default=None, description="Its secret")
    oidc_admins: Words = Field(
        default=(), description="E-mail addresses let in as administrators over OpenID Connect"
    )

    @classmethod
    def load(cls, **options: Any) -> Self:
        """Options win over the environment, the environment over systemd credentials."""
        folder = os.environ.get("CREDENTIALS_DIRECTORY")
        try:
            return cls(**{"_secrets_dir": folder, **options})
        except ValidationError as invalid:
            raise ConfigError(_explain(invalid)) from None

    @property
    def database(self) -> str:
        """The database URL with the driver we use; it may hold a password, so never log it."""
        if self.database_url is None:
            return f"sqlite+aiosqlite:///{self.state_dir.absolute() / 'pvemcp.sqlite3'}"
        scheme, separator, rest = self.database_url.get_secret_value().partition("://")
        name = scheme.partition("+")[0]
        if not separator or name not in DRIVERS:
            raise ConfigError("PVEMCP_DATABASE_URL must begin with sqlite:/// or postgresql://.")
        return f"{DRIVERS[name]}://{rest}"

    @property
    def base_url(self) -> str:
        """The address under which people and programs find this server."""
        if self.public_url:
            return self.public_url
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104 - compared, not bound
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"


def _explain(invalid: ValidationError) -> str:
    """Names each wrong variable without repeating its value, which may be a secret."""
    facts = (
        f"PVEMCP_{str(error['loc'][0]).upper()}: {error['msg'].removeprefix('Value error, ')}"
        for error in invalid.errors(include_input=False, include_url=False)
    )
    return "; ".join(facts)
