"""Administrators of an OpenID Connect issuer, and whether others may sign in beside them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Self

from pvemcp_server.config import Config
from pvemcp_server.errors import ConfigError
from pvemcp_server.store.records import AdminRecord, AdminRole

EMAIL: Final = "email"


class ExternalAdmins:
    """The configured issuer, and which of its users are administrators with which role.

    An entry is a verified e-mail address, or `claim:value` for any other claim of the ID token,
    each with `=role`; without a role it is the owner's. An account of the issuer is valid only as
    long as its entry is listed: what the database keeps of it gives no access by itself. While an
    issuer is configured, the accounts of this server can be switched off with the setting
    `local_sign_in`.
    """

    def __init__(self, issuer: str | None = None, entries: Iterable[str] = ()) -> None:
        self._issuer = issuer
        self._roles: dict[str, AdminRole] = {}
        for entry in entries:
            listed, role = _parsed(entry)
            self._roles.setdefault(listed, role)
        self._local_sign_in: Callable[[], bool] = lambda: True

    @classmethod
    def configured(cls, config: Config) -> Self:
        """Return those of the configuration; none while OpenID Connect is not configured."""
        if not config.oidc_issuer or not config.oidc_client_id:
            return cls()
        return cls(config.oidc_issuer, config.oidc_admins)

    def follow(self, local_sign_in: Callable[[], bool]) -> None:
        """Ask this function from now on whether the setting admits the accounts of this server."""
        self._local_sign_in = local_sign_in

    @property
    def is_configured(self) -> bool:
        """Whether there is an issuer to sign in with."""
        return self._issuer is not None

    @property
    def admits_local(self) -> bool:
        """Whether the accounts of this server may sign in; always without an issuer."""
        return not self.is_configured or self._local_sign_in()

    def admits(self, admin: AdminRecord) -> bool:
        """Return whether the account may be used: see `admits_local`, or listed by the issuer."""
        return self.admits_local if admin.subject is None else self.role(admin) is not None

    def entry_of(self, email: str, claims: Mapping[str, Any]) -> str | None:
        """Return the first entry of PVEMCP_OIDC_ADMINS that lists the user; None without one."""
        held = {f"{EMAIL}:{_folded(email)}"}
        for claim, value in claims.items():
            if claim != EMAIL:  # that one is compared above, and only when it is verified
                values = value if isinstance(value, list) else [value]
                held.update(f"{claim}:{each}" for each in values)
        return next((entry for entry in self._roles if entry in held), None)

    def role(self, admin: AdminRecord) -> AdminRole | None:
        """Return the role of an account; None for one of the issuer that is not listed any more."""
        if admin.subject is None:
            return admin.role
        of_issuer = self._issuer is not None and admin.subject.startswith(f"{self._issuer} ")
        return self._roles.get(admin.listed_as or "") if of_issuer else None


def _parsed(entry: str) -> tuple[str, AdminRole]:
    """Return what an entry lists, as `claim:value`, and its role; raise ConfigError."""
    listed, separator, role = entry.rpartition("=")
    if not separator:
        listed, role = entry, AdminRole.OWNER
    if role not in list(AdminRole):
        raise ConfigError(f"PVEMCP_OIDC_ADMINS: {role!r} is no role; use {', '.join(AdminRole)}.")
    if ":" not in listed:
        listed = f"{EMAIL}:{listed}"
    if listed.startswith(f"{EMAIL}:"):
        listed = _folded(listed)
    return listed, AdminRole(role)


def _folded(email: str) -> str:
    """Return an e-mail address without the case of its letters, where these are ASCII.

    Beyond ASCII, folding makes one of two addresses with different holders: `ß` becomes `ss`.
    """
    return email.lower() if email.isascii() else email
