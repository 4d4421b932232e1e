"""Roles: the built-in ones, and those that administrators create."""

from collections.abc import Sequence
from typing import Any, Final

from pvemcp_server.access.grants import grants_from_json, grants_to_json
from pvemcp_server.access.model import ANY, READS, Grant, Role
from pvemcp_server.access.names import check_name
from pvemcp_server.errors import BadArgument, UnknownName
from pvemcp_server.store import Store
from pvemcp_server.store.records import RoleRecord

READ_ONLY: Final = "Read-only"
OPERATOR: Final = "Operator"
ADMINISTRATOR: Final = "Administrator"

OPERATOR_TOOLS: Final = frozenset(
    {
        READS,
        "ChangeVmState",
        "CreateVmSnapshot",
        "DeleteVmSnapshot",
        "RollbackVmSnapshot",
        "MigrateVm",
        "BackupVm",
        "CloneVm",
        "Undo",
        "StopTask",
        "UnlockVm",
    }
)

BUILT_IN: Final = (
    (READ_ONLY, "Reads everything and changes nothing.", Grant(frozenset({READS}))),
    (
        OPERATOR,
        "Reads all; runs, moves, clones, backs up, unlocks guests; handles snapshots; stops tasks.",
        Grant(OPERATOR_TOOLS),
    ),
    (ADMINISTRATOR, "Every tool on every cluster.", Grant(frozenset({ANY}))),
)


def role_of(record: RoleRecord) -> Role:
    """Return the role of a record."""
    grants = grants_from_json(record.grants)
    return Role(record.id, record.name, record.description, grants, record.built_in)


class Roles:
    """Roles in the store; a change reaches every caller within a second."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def prepare(self) -> None:
        """Update the built-in roles to this version of the program."""
        await self._store.roles.update_built_in(
            [
                {"name": name, "description": description, "grants": grants_to_json([grant])}
                for name, description, grant in BUILT_IN
            ]
        )

    async def all(self) -> list[Role]:
        """List all roles."""
        return [role_of(record) for record in await self._store.roles.all()]

    async def get(self, name: str) -> Role:
        """Return a role by its name; raise UnknownName if there is none."""
        record = await self._store.roles.find(name=name)
        if record is None:
            raise UnknownName("role", name, [role.name for role in await self._store.roles.all()])
        return role_of(record)

    async def create(self, name: str, grants: Sequence[Grant], *, description: str = "") -> Role:
        """Create a role; raise BadArgument for a wrong name or grant, or a name in use."""
        record = await self._store.roles.add(
            name=check_name(name),
            description=description,
            grants=_checked(grants),
            built_in=False,
        )
        return role_of(record)

    async def change(
        self,
        name: str,
        *,
        new_name: str | None = None,
        grants: Sequence[Grant] | None = None,
        description: str | None = None,
    ) -> Role:
        """Change the given fields; raise BadArgument for a built-in role."""
        role = await self._changeable(name)
        values = {
            "name": None if new_name is None else check_name(new_name),
            "grants": None if grants is None else _checked(grants),
            "description": description,
        }
        columns = {column: value for column, value in values.items() if value is not None}
        record = await self._store.roles.change(role.id, **columns)
        if record is None:
            raise UnknownName("role", name, [])
        return role_of(record)

    async def remove(self, name: str) -> None:
        """Remove a role; raise BadArgument while a key has it, or if it is built in."""
        role = await self._changeable(name)
        holders = [key.name for key in await self._store.keys.all(role_id=role.id)]
        if holders:
            raise BadArgument("role", f"{name!r} is the role of {', '.join(sorted(holders))}.")
        await self._store.roles.remove(role.id)

    async def _changeable(self, name: str) -> Role:
        role = await self.get(name)
        if role.built_in:
            raise BadArgument("role", f"{name!r} is built in; make a role of your own instead.")
        return role


def _checked(grants: Sequence[Grant]) -> list[dict[str, Any]]:
    """Return the grants as stored; raise BadArgument for those that could not be read back."""
    stored = grants_to_json(grants)
    grants_from_json(stored)
    return stored
