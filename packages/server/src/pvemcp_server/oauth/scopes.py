"""The scopes of access tokens, and what a tool needs."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from pvemcp_server.access.model import Effect


class Scope(StrEnum):
    """What an access token is for, the least first; each includes the ones before it."""

    READ = "pve:read"
    WRITE = "pve:write"
    DESTROY = "pve:destroy"

    @property
    def description(self) -> str:
        """What it permits, in plain words for the user who consents."""
        return DESCRIPTIONS[self]


ALL_SCOPES: Final = " ".join(Scope)
OFFLINE_ACCESS: Final = "offline_access"  # clients ask for it to get a refresh token; all do
DESCRIPTIONS: Final = {
    Scope.READ: "Look: list and read guests, nodes, storages, backups, tasks and logs",
    Scope.WRITE: "Change: start, stop, create and configure guests, back up and restore",
    Scope.DESTROY: "Delete: remove guests, disks, snapshots and backups, with their data",
}
NEEDED: Final = {
    Effect.READ: Scope.READ,
    Effect.WRITE: Scope.WRITE,
    Effect.DESTROY: Scope.DESTROY,
}


def scopes_in(text: str) -> list[Scope]:
    """Return the known scopes of a request, the least first, each with those that it includes.

    Unknown ones are ignored (RFC 6749, 3.3); the token's response names those that are granted.
    """
    return included(text.split())


def included(scopes: Iterable[str]) -> list[Scope]:
    """Return these scopes and those that they include, the least first."""
    known = [scope for scope in Scope if scope in set(scopes)]
    return list(Scope)[: list(Scope).index(known[-1]) + 1] if known else []


def is_sufficient(granted: Iterable[str], needed: Scope) -> bool:
    """Return whether the scopes of an access token permit it."""
    return needed in included(granted)
