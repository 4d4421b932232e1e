"""References between records: one that another change has broken, or would break, is a conflict."""

from typing import Any

import pytest
from sqlalchemy import Boolean, Column, Enum, LargeBinary, String

from pvemcp_server.access import open_access
from pvemcp_server.access.model import READS, Grant
from pvemcp_server.errors import Conflict
from pvemcp_server.store import Store, records
from pvemcp_server.store.columns import JsonText, Moment, utc_now
from pvemcp_server.store.repository import Repository

pytestmark = pytest.mark.anyio

# written by the repository of the history, and by processes for each other
NO_REPOSITORY = {"history_readings", "cluster_writes", "inventories"}


def value_of(column: Column[Any]) -> Any:
    """Return a value that the column holds; a reference leads to no row."""
    match column.type:
        case Enum() as kind:
            return next(iter(kind.enum_class))
        case Moment():
            return utc_now()
        case JsonText():
            return []
        case String():
            return "missing"
        case Boolean():
            return False
        case LargeBinary():
            return b""
    return 10**6


async def test_a_row_that_refers_to_a_removed_one_is_a_conflict(store: Store):
    referring = {
        each.table.name: Repository(store.database, each.table, each._record)
        for each in vars(store).values()
        if isinstance(each, Repository) and each.table.foreign_keys
    }
    tables = records.metadata.tables.values()
    assert referring.keys() | NO_REPOSITORY == {
        table.name for table in tables if table.foreign_keys
    }
    for repository in referring.values():
        values = {column.name: value_of(column) for column in repository.table.columns}
        with pytest.raises(Conflict, match="at the same time; nothing was changed"):
            await repository.add(**values)
        assert await repository.all() == []


async def test_a_row_that_others_refer_to_is_not_removed(store: Store):
    async with open_access(store) as access:
        role = await access.roles.create("night shift", [Grant(frozenset({READS}))])
        key, _ = await access.keys.create("laptop", role="night shift")
        with pytest.raises(Conflict, match="at the same time; nothing was changed"):
            await store.roles.remove(role.id)
        assert await store.roles.find(id=role.id) is not None
        with pytest.raises(Conflict):
            await store.keys.change(key.id, role_id=10**6)
        assert (await store.keys.find(id=key.id)) == key


async def test_a_key_is_not_created_with_a_role_that_is_being_removed(store: Store, monkeypatch):
    async with open_access(store) as access:
        await access.roles.create("night shift", [Grant(frozenset({READS}))])
        columns = access.keys._columns

        async def columns_and_removal(values):
            found = await columns(values)
            await access.roles.remove("night shift")
            return found

        monkeypatch.setattr(access.keys, "_columns", columns_and_removal)
        with pytest.raises(Conflict):
            await access.keys.create("laptop", role="night shift")
        assert await access.keys.all() == []
