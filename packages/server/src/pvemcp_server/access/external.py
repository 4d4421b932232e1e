"""Administrators of an OpenID Connect issuer, and whether others may sign in beside them."""

from collections.abc import Callable, Iterable
from typing import Self

from pvemcp_server.config import Config
from pvemcp_server.store.records import AdminRecord


class ExternalAdmins:
    """The configured issuer and the e-mail addresses of its users that are administrators.

    An account of the issuer is valid only as long as it is listed here: what the database keeps
    of it gives no access by itself. While an issuer is configured, the accounts of this server can
    be switched off with the setting `local_sign_in`.
    """

    def __init__(self, issuer: str | None = None, emails: Iterable[str] = ()) -> None:
        self._issuer = issuer
        self._emails = frozenset(email.casefold() for email in emails)
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

    def lists(self, email: str) -> bool:
        """Return whether PVEMCP_OIDC_ADMINS lists the e-mail address."""
        return email.casefold() in self._emails

    def admits(self, admin: AdminRecord) -> bool:
        """Return whether the account may be used: see `admits_local`, or listed by the issuer."""
        if admin.subject is None:
            return self.admits_local
        of_issuer = self._issuer is not None and admin.subject.startswith(f"{self._issuer} ")
        return of_issuer and self.lists(admin.name)
