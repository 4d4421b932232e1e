"""Which `pveum` line grants a privilege to an account without taking another one away.

In Proxmox (PVE/AccessControl.pm, `sub roles`) the roles on a path replace those inherited from
above, and a user's own roles on a path replace those of its groups there. A token with privilege
separation has what both it and its user have; one without has the rights of its user. So a line
names the inherited roles as well as the new one, and there is no line when they are not visible.
"""

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from shlex import quote

from proxmox_client import Client, ProxmoxError, deadline
from proxmox_client.api.access import AclEntry, Permissions, Token, User

_SECONDS = 5  # for reading the ACL, on behalf of a sentence
_ROOT = "root@pam"
_BAN = "NoAccess"
_PATH = re.compile(r"/[\w./-]*", re.ASCII)
_KINDS = {
    "vms": ("VM.", "Permissions."),
    "storage": ("Datastore.", "Permissions."),
    "nodes": ("Sys.", "Permissions."),
    "pool": ("Pool.", "VM.", "Datastore.", "Permissions."),
}
_EVERYTHING = {"VM.Audit", "Datastore.Audit", "Sys.Audit"}

Roles = Mapping[str, bool]
"""Roles by name, and whether each one reaches below its path."""


@dataclass(frozen=True, slots=True)
class Advice:
    """How an account gets a privilege: a line to run on a node, or a question to ask first."""

    line: str = ""
    question: str = ""

    def after(self, fact: str) -> str:
        """Append the advice to a sentence that has no full stop yet."""
        return f"{fact}: run `{self.line}`." if self.line else f"{fact}. {self.question}"


@dataclass(frozen=True, slots=True)
class _Holder:
    """A user or token that is granted roles, and the groups whose roles it has as well."""

    kind: str
    name: str
    groups: frozenset[str] = frozenset()

    @property
    def option(self) -> str:
        quoted = "'" + self.name.replace("'", "'\"'\"'") + "'"
        return f"--{self.kind}s {quoted}"


class _NoLineError(Exception):
    """No line is certain to help without harm; the text is the question, empty for the usual."""


@dataclass(frozen=True)
class Grants:
    """What an account can see of the roles that it and its user have."""

    account: str
    held: Permissions = field(default_factory=dict)
    roles: Mapping[str, frozenset[str]] = field(default_factory=dict)
    built_in: frozenset[str] = frozenset()
    entries: tuple[AclEntry, ...] | None = None  # the whole ACL, or nothing
    groups: frozenset[str] = frozenset()
    separated: bool = True

    @property
    def user(self) -> str:
        return self.account.partition("!")[0]

    def advice(self, path: str, privileges: Iterable[str]) -> Advice:
        """Return the line that grants all these privileges on the path, if there is a safe one."""
        wanted = frozenset(privileges)
        try:
            return Advice(line=self._line(path, wanted))
        except _NoLineError as reason:
            return Advice(question=str(reason) or question(self.account, path, wanted))

    def _line(self, path: str, wanted: frozenset[str]) -> str:
        everything = self.roles.get("Administrator", frozenset())
        if not wanted <= everything or not _PATH.fullmatch(path) or "," in self.account:
            raise _NoLineError
        role, make = self._role(path, wanted)
        lines = [
            f"pveum acl modify {path} {holder.option} --roles {','.join([*kept, role])}"
            for holder, kept in self._lacking(path, wanted)
        ]
        if not lines:
            raise _NoLineError
        return " && ".join([*make, *lines])

    def _lacking(self, path: str, wanted: frozenset[str]) -> list[tuple[_Holder, Sequence[str]]]:
        """Return who lacks the privileges there, with the roles that the line has to repeat."""
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
            if not wanted <= self._privileges(holder, path)
        ]

    def _blind_token(self, path: str) -> _Holder:
        """Return the token of root, which lacks only its own roles, when none can be replaced."""
        above = self.held.keys() & set(_prefixes(path))
        if self.user != _ROOT or self.account == _ROOT or any(self.held[one] for one in above):
            raise _NoLineError
        return _Holder("token", self.account)

    def _repeated(self, holder: _Holder, path: str) -> Sequence[str]:
        """Return the roles that a new one on this path would replace, there and below."""
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
                raise _NoLineError  # below, roles from further up are in force
            return ()
        if not all(effective.values()):
            raise _NoLineError  # roles of groups that differ on the path and below
        return sorted(effective)

    def _banned_by_pool(self, holder: _Holder) -> bool:
        """Whether the pool of a guest or storage might deny what its own path grants."""
        return any(
            one.role_id == _BAN and (one.path == "/" or one.path.startswith("/pool"))
            for one in self._entries_of(holder)
        )

    def _privileges(self, holder: _Holder, path: str) -> frozenset[str]:
        """Return what the holder has on the path and below it."""
        _, effective = self._on(holder, path)
        if _BAN in effective:
            return frozenset()
        parts = (self.roles.get(role, frozenset()) for role, below in effective.items() if below)
        return frozenset().union(*parts)

    def _on(self, holder: _Holder, path: str) -> tuple[Roles, Roles]:
        """Return the holder's own roles set on this very path, and those in force there."""
        effective: Roles = {}
        for prefix in _prefixes(path):
            here = [one for one in self._entries_of(holder) if one.path == prefix]
            if prefix != path:
                here = [one for one in here if one.propagate]
            own = [one for one in here if one.type != "group"]
            if level := own or here:
                effective = _roles(level)
        at_path = [one for one in self._entries_of(holder) if one.path == path]
        return _roles(one for one in at_path if one.type != "group"), effective

    def _entries_of(self, holder: _Holder) -> Iterable[AclEntry]:
        return (
            one
            for one in self.entries or ()
            if (one.type, one.ugid) == (holder.kind, holder.name)
            or (one.type == "group" and one.ugid in holder.groups)
        )

    def _role(self, path: str, wanted: frozenset[str]) -> tuple[str, Sequence[str]]:
        """Return the smallest role that grants this, and the commands that make it if need be.

        A built-in role fits when all that it adds on such a path is to look.
        """
        fitting = [
            (len(extra), name)
            for name in self.built_in
            if wanted <= self.roles[name]
            for extra in [_matter(path, self.roles[name]) - wanted]
            if not extra or (_only_audits(extra) and (path != "/" or wanted >= _EVERYTHING))
        ]
        if fitting:
            return min(fitting)[1], ()
        base = name = f"MCP-{'-'.join(sorted(wanted))}"
        number = 1
        while self.roles.get(name, wanted) != wanted:  # taken for something else
            number += 1
            name = f"{base}-{number}"
        if name in self.roles:
            return name, ()
        privileges = ",".join(sorted(wanted))
        options = f"{name} --privs {privileges}"
        # `role add` fails when the role exists, and the line has to work a second time
        make = f"pveum role add {options} 2>/dev/null || pveum role modify {options} --append 1"
        return name, (make,)


def question(account: str, path: str, privileges: Iterable[str]) -> str:
    """Return what to ask an administrator where no line is certain to take nothing away."""
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
    """The grants of one account, read once when something needs them."""

    def __init__(self, pve: Client, account: str) -> None:
        self._pve, self._account = pve, account
        self._lock = asyncio.Lock()
        self._grants: Grants | None = None

    async def grants(self) -> Grants:
        """Return what the account sees of its roles; nothing when Proxmox does not answer."""
        async with self._lock:
            if self._grants is None:
                self._grants = await _read(self._pve, self._account)
        return self._grants

    async def advice(self, path: str, privileges: Iterable[str]) -> Advice:
        """Return how the account gets these privileges on the path."""
        return (await self.grants()).advice(path, privileges)


async def _read(pve: Client, account: str) -> Grants:
    blind = Grants(account)
    try:
        with deadline(_SECONDS):
            held = await pve.access.permissions()
            roles = await pve.access.roles()
            blind = Grants(
                account,
                held,
                {one.role_id: frozenset(one.privileges) for one in roles},
                frozenset(one.role_id for one in roles if one.special),
            )
            if "Sys.Audit" not in held.get("/access", {}):
                return blind  # Proxmox would show a part of the ACL
            acl, user = await asyncio.gather(pve.access.acl(), pve.access.user(blind.user))
    except (ProxmoxError, TimeoutError):
        return blind
    return _whole(blind, acl, user)


def _whole(blind: Grants, acl: Sequence[AclEntry], user: User) -> Grants:
    name = blind.account.partition("!")[2]
    tokens: Mapping[str, Token] = user.tokens if isinstance(user.tokens, dict) else {}
    if name and name not in tokens:
        return blind
    groups = user.groups.split(",") if isinstance(user.groups, str) else user.groups or ()
    return Grants(
        blind.account,
        blind.held,
        blind.roles,
        blind.built_in,
        tuple(one for one in acl if one.role_id in blind.roles),
        frozenset(groups),
        tokens[name].privsep if name else False,
    )


def _roles(entries: Iterable[AclEntry]) -> Roles:
    found: dict[str, bool] = {}
    for one in entries:
        found[one.role_id] = found.get(one.role_id, True) and one.propagate
    return found


def _matter(path: str, privileges: frozenset[str]) -> frozenset[str]:
    """Return the privileges that mean something on such a path."""
    kinds = _KINDS.get(path.split("/")[1])
    return frozenset(one for one in privileges if kinds is None or one.startswith(kinds))


def _only_audits(privileges: Iterable[str]) -> bool:
    return all(one.endswith(".Audit") for one in privileges)


def _prefixes(path: str) -> list[str]:
    """Return the path and everything above it, from the top."""
    parts = [part for part in path.split("/") if part]
    return ["/", *("/" + "/".join(parts[: number + 1]) for number in range(len(parts)))]
