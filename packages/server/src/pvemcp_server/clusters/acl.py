"""The ACL of a cluster, and the `pveum` line that grants an account a missing privilege.

The line must not take a privilege away. In Proxmox (PVE/AccessControl.pm, `sub roles`) the roles
on a path replace those inherited from above, and a user's own roles on a path replace those of its
groups there. A token with privilege separation has the privileges that both it and its user have;
a token without has those of its user. So a line repeats the inherited roles beside the new one,
and there is no line when they are not visible.
"""

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from shlex import quote
from typing import Final

from proxmox_client import Client, ProxmoxError, deadline
from proxmox_client.api.access import AclEntry, Permissions, Token, User

OWN_TOKEN_PREFIX: Final = "pvemcp-"  # noqa: S105 - of the tokens of connections, no secret
_OWN_TOKEN: Final = re.compile(rf"!{OWN_TOKEN_PREFIX}[0-9A-Za-z]{{8}}\Z")
_FEW = 2000  # entries and roles; more take a thread, as each advice looks at all of them
_SECONDS = 5  # timeout for reading the ACL, which only improves an error message
_ROOT = "root@pam"
_BAN = "NoAccess"
_PATH = re.compile(r"/[\w./-]*", re.ASCII)
_ROLE_ID = re.compile(r"[\w.][\w.-]*", re.ASCII)  # a shell reads it as one word, and no option
_KINDS = {
    "vms": ("VM.", "Permissions."),
    "storage": ("Datastore.", "Permissions."),
    "nodes": ("Sys.", "Permissions."),
    "pool": ("Pool.", "VM.", "Datastore.", "Permissions."),
}
_ALL_AUDITS = {"VM.Audit", "Datastore.Audit", "Sys.Audit"}

Roles = Mapping[str, bool]
"""Roles by name, and whether each one propagates below its path."""


@dataclass(frozen=True, slots=True)
class Advice:
    """How an account gets a privilege: a line to run on a node, or a question to ask."""

    line: str = ""
    question: str = ""

    def after(self, fact: str) -> str:
        """Append the advice to a sentence that has no full stop yet."""
        return f"{fact}: run `{self.line}`." if self.line else f"{fact}. {self.question}"


@dataclass(frozen=True, slots=True)
class _Holder:
    """A user or token that holds roles, and the groups whose roles apply to it."""

    kind: str
    name: str
    groups: frozenset[str] = frozenset()

    @property
    def option(self) -> str:
        """The option of `pveum acl modify` for this holder."""
        quoted = "'" + self.name.replace("'", "'\"'\"'") + "'"
        return f"--{self.kind}s {quoted}"


class _NoLineError(Exception):
    """No line is safe to run; the message is the question for an administrator, or empty."""


@dataclass(frozen=True)
class Grants:
    """The roles of an account and its user, as far as the account can read them."""

    account: str
    held: Permissions = field(default_factory=dict)
    roles: Mapping[str, frozenset[str]] = field(default_factory=dict)
    built_in: frozenset[str] = frozenset()
    entries: tuple[AclEntry, ...] | None = None  # the whole ACL; None when not readable
    groups: frozenset[str] = frozenset()
    separated: bool = True

    @property
    def user(self) -> str:
        """The user of the account, without the token."""
        return self.account.partition("!")[0]

    def advice(self, path: str, privileges: Iterable[str]) -> Advice:
        """Return the line that grants the privileges on the path, or a question."""
        missing = frozenset(privileges)
        try:
            return Advice(line=self._line(path, missing))
        except _NoLineError as reason:
            return Advice(question=str(reason) or question(self.account, path, missing))

    def _line(self, path: str, missing: frozenset[str]) -> str:
        known_privileges = self.roles.get("Administrator", frozenset())
        if not missing <= known_privileges or not _PATH.fullmatch(path) or "," in self.account:
            raise _NoLineError
        role, commands = self._role(path, missing)
        lines = [
            f"pveum acl modify {path} {holder.option} --roles {','.join([*kept, role])}"
            for holder, kept in self._holders_without(path, missing)
        ]
        if not lines:
            raise _NoLineError
        return " && ".join([*commands, *lines])

    def _holders_without(
        self, path: str, privileges: frozenset[str]
    ) -> list[tuple[_Holder, Sequence[str]]]:
        """Return the holders without the privileges, and the roles that the line has to repeat."""
        if self.entries is None:
            return [(self._blind_token(path), ())]
        holders = []
        if self.user != _ROOT:
            holders.append(_Holder("user", self.user, self.groups))
        if self.account != self.user and self.separated:
            holders.append(_Holder("token", self.account))
        return [
            (holder, self._repeated(holder, path))
            for holder in holders
            if not privileges <= self._privileges(holder, path)
        ]

    def _blind_token(self, path: str) -> _Holder:
        """Return root's token, if it has no roles that a line could replace; else raise."""
        above = self.held.keys() & set(_prefixes(path))
        if (
            self.user != _ROOT
            or self.account == _ROOT
            or any(self.held[prefix] for prefix in above)
        ):
            raise _NoLineError
        return _Holder("token", self.account)

    def _repeated(self, holder: _Holder, path: str) -> Sequence[str]:
        """Return the roles that a new one on this path would replace, on it and below."""
        own, effective = self._on(holder, path)
        names = set(own) | set(effective)
        pooled = re.fullmatch(r"/(vms|storage)/[^/]+", path) and self._banned_by_pool(holder)
        if _BAN in names or pooled:
            raise _NoLineError(
                f"The role {_BAN} is in force there for {holder.name}: ask an administrator "
                "whether that is intended."
            )
        if own:
            if not any(own.values()):
                raise _NoLineError  # below the path, roles from above it are in force
            return ()
        if not all(effective.values()):
            raise _NoLineError  # the roles of groups differ on the path and below it
        return sorted(effective)

    def _banned_by_pool(self, holder: _Holder) -> bool:
        """Return whether the pool of a guest or storage might deny what its own path grants."""
        return any(
            entry.role_id == _BAN and (entry.path == "/" or entry.path.startswith("/pool"))
            for entry in self._entries_of(holder)
        )

    def _privileges(self, holder: _Holder, path: str) -> frozenset[str]:
        """Return the privileges of the holder on the path and below it."""
        _, effective = self._on(holder, path)
        if _BAN in effective:
            return frozenset()
        privileges = (
            self.roles.get(role, frozenset())
            for role, propagates in effective.items()
            if propagates
        )
        return frozenset().union(*privileges)

    def _on(self, holder: _Holder, path: str) -> tuple[Roles, Roles]:
        """Return the holder's own roles on exactly this path, and the effective ones there."""
        effective: Roles = {}
        for prefix in _prefixes(path):
            entries = [entry for entry in self._entries_of(holder) if entry.path == prefix]
            if prefix != path:
                entries = [entry for entry in entries if entry.propagate]
            own = [entry for entry in entries if entry.type != "group"]
            if level := own or entries:
                effective = _roles(level)
        on_path = [entry for entry in self._entries_of(holder) if entry.path == path]
        return _roles(entry for entry in on_path if entry.type != "group"), effective

    def _entries_of(self, holder: _Holder) -> Iterable[AclEntry]:
        return (
            entry
            for entry in self.entries or ()
            if (entry.type, entry.ugid) == (holder.kind, holder.name)
            or (entry.type == "group" and entry.ugid in holder.groups)
        )

    def _role(self, path: str, missing: frozenset[str]) -> tuple[str, Sequence[str]]:
        """Return the smallest role with the privileges, and the commands that create it if needed.

        A built-in role fits when it adds only audit privileges on such a path.
        """
        fitting = [
            (len(extra), name)
            for name in self.built_in
            if missing <= self.roles[name]
            for extra in [_relevant(path, self.roles[name]) - missing]
            if not extra or (_only_audits(extra) and (path != "/" or missing >= _ALL_AUDITS))
        ]
        if fitting:
            return min(fitting)[1], ()
        base = name = f"MCP-{'-'.join(sorted(missing))}"
        number = 1
        while self.roles.get(name, missing) != missing:  # the name has other privileges
            number += 1
            name = f"{base}-{number}"
        if name in self.roles:
            return name, ()
        privileges = ",".join(sorted(missing))
        options = f"{name} --privs {privileges}"
        # `role add` fails when the role exists, but the line has to work a second time
        command = f"pveum role add {options} 2>/dev/null || pveum role modify {options} --append 1"
        return name, (command,)


def holder_of(account: str) -> str:
    """Return the account that roles are given to.

    For the token that a user's connection has of its own that is the user: it has their rights.
    """
    return _OWN_TOKEN.sub("", account)


def question(account: str, path: str, privileges: Iterable[str]) -> str:
    """Return the question for an administrator, used where no safe line is known."""
    names = ", ".join(sorted(privileges))
    user, _, token = account.partition("!")
    holders = f"{user or 'its user'}, its groups" + (" and this token" if token else "")
    separation = (
        f", and whether the token has privilege separation (`pveum user token list {quote(user)}`)"
    )
    return (
        f"Ask an administrator which roles {holders} have on {path} and above it "
        f"(`pveum acl list`){separation if token else ''}. {names} has to be added to these "
        "roles, because a new role on a path replaces the inherited ones."
    )


class Acl:
    """The grants of one account, read once when needed."""

    def __init__(self, pve: Client, account: str) -> None:
        self._pve, self._account = pve, holder_of(account)
        self._lock = asyncio.Lock()
        self._grants: Grants | None = None

    async def grants(self) -> Grants:
        """Return the grants that the account can read; empty when Proxmox does not answer."""
        async with self._lock:
            if self._grants is None:
                self._grants = await _read(self._pve, self._account)
        return self._grants

    async def advice(self, path: str, privileges: Iterable[str]) -> Advice:
        """Return how the account gets these privileges on the path."""
        grants = await self.grants()
        if len(grants.entries or ()) + len(grants.roles) <= _FEW:
            return grants.advice(path, privileges)
        return await asyncio.to_thread(grants.advice, path, privileges)


async def _read(pve: Client, account: str) -> Grants:
    blind = Grants(account)
    try:
        with deadline(_SECONDS):
            held = await pve.access.permissions()
            answered = await pve.access.roles()
            roles = [role for role in answered if _ROLE_ID.fullmatch(role.role_id)]
            blind = Grants(
                account,
                held,
                {role.role_id: frozenset(role.privileges) for role in roles},
                frozenset(role.role_id for role in roles if role.special),
            )
            if "Sys.Audit" not in held.get("/access", {}):
                return blind  # Proxmox would return only a part of the ACL
            acl, user = await asyncio.gather(pve.access.acl(), pve.access.user(blind.user))
    except (ProxmoxError, TimeoutError):
        return blind
    return _with_acl(blind, acl, user)


def _with_acl(blind: Grants, acl: Sequence[AclEntry], user: User) -> Grants:
    name = blind.account.partition("!")[2]
    tokens: Mapping[str, Token] = user.tokens if isinstance(user.tokens, dict) else {}
    if name and name not in tokens:
        return blind
    if not all(_ROLE_ID.fullmatch(entry.role_id) for entry in acl):
        return blind  # such a role cannot be repeated in a line, and must not be left out
    return Grants(
        blind.account,
        blind.held,
        blind.roles,
        blind.built_in,
        tuple(entry for entry in acl if entry.role_id in blind.roles),
        frozenset(user.group_list),
        tokens[name].privsep if name else False,
    )


def _roles(entries: Iterable[AclEntry]) -> Roles:
    roles: dict[str, bool] = {}
    for entry in entries:
        roles[entry.role_id] = roles.get(entry.role_id, True) and entry.propagate
    return roles


def _relevant(path: str, privileges: frozenset[str]) -> frozenset[str]:
    """Return the privileges that have an effect on such a path."""
    kinds = _KINDS.get(path.split("/")[1])
    return frozenset(name for name in privileges if kinds is None or name.startswith(kinds))


def _only_audits(privileges: Iterable[str]) -> bool:
    return all(name.endswith(".Audit") for name in privileges)


def _prefixes(path: str) -> list[str]:
    """Return the path and its parents, starting with the root."""
    parts = [part for part in path.split("/") if part]
    return ["/", *("/" + "/".join(parts[: number + 1]) for number in range(len(parts)))]
