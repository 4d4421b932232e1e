"""Keys: creation and changes."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from pvemcp_server.access import Access
from pvemcp_server.errors import BadArgument, UnknownName
from pvemcp_server.store import Store

pytestmark = pytest.mark.anyio


async def test_only_a_keyed_hash_of_the_secret_is_stored(store: Store, access: Access):
    key, secret = await access.keys.create("laptop")
    async with store.database.reading() as connection:
        [row] = (await connection.execute(text("SELECT * FROM keys"))).mappings()
    assert secret not in repr(dict(row))
    assert secret.split("_")[2] not in repr(dict(row))
    assert len(key.digest) == 32


async def test_the_repr_of_a_key_does_not_contain_its_digest(access: Access):
    key, _ = await access.keys.create("laptop")
    assert "digest" not in repr(key)


async def test_changing_a_key_keeps_its_other_fields(access: Access):
    key, _ = await access.keys.create("laptop", clusters=["lab", "prod"], allow_from=["::1"])
    changed = await access.keys.change("laptop", name="desk", role="Operator")
    assert (changed.id, changed.name) == (key.id, "desk")
    assert (changed.clusters, changed.allow_from) == (["lab", "prod"], ["::1/128"])
    assert (await access.keys.get("desk")).role_id == changed.role_id != key.role_id


async def test_the_id_of_another_is_no_name(access: Access):
    """Refuse it: the id would name two of them."""
    key, _ = await access.keys.create("laptop")
    with pytest.raises(BadArgument, match="id of a key"):
        await access.keys.create(key.id)
    await access.keys.create("other")
    with pytest.raises(BadArgument, match="id of a key"):
        await access.keys.change("other", name=key.id)
    token, _ = await access.service_tokens.create("backup", ["keys:read"], by="ada")
    with pytest.raises(BadArgument, match="id of a service token"):
        await access.service_tokens.create(token.id, ["keys:read"], by="ada")


async def test_a_name_can_be_used_only_once(access: Access):
    await access.keys.create("laptop")
    with pytest.raises(BadArgument, match="already"):
        await access.keys.create("laptop")


@pytest.mark.parametrize(
    ("values", "argument"),
    [
        ({"name": ""}, "name"),
        ({"name": " laptop"}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"clusters": []}, "clusters"),
        ({"tools": []}, "tools"),
        ({"allow_from": ["somewhere"]}, "allow_from"),
        ({"output_format": "Yaml"}, "output_format"),
        ({"expires": datetime(2027, 1, 1)}, "expires"),  # noqa: DTZ001 - what is refused
        ({"digest": b""}, "digest"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_an_invalid_field_of_a_key_is_named(access: Access, values: dict, argument: str):
    key, _ = await access.keys.create("laptop")
    with pytest.raises(BadArgument) as refused:
        await access.keys.change(key.id, **values)
    assert refused.value.argument == argument
    assert await access.keys.get(key.id) == key


async def test_an_unknown_role_or_key_is_named_with_similar_names(access: Access):
    await access.keys.create("laptop")
    with pytest.raises(UnknownName, match="Did you mean Operator"):
        await access.keys.create("other", role="Operater")
    with pytest.raises(UnknownName, match="Did you mean laptop"):
        await access.keys.remove("labtop")


async def test_a_list_with_all_is_stored_as_all(access: Access):
    key, _ = await access.keys.create("laptop", clusters=["lab", "*"])
    assert key.clusters == ["*"]


async def test_an_expiry_keeps_its_microseconds(access: Access):
    until = datetime(2031, 7, 1, 12, 30, 15, 123456, tzinfo=UTC)
    await access.keys.create("laptop", expires=until)
    assert (await access.keys.get("laptop")).expires == until


async def test_a_key_can_be_disabled_and_enabled(access: Access):
    await access.keys.create("laptop")
    assert not (await access.keys.change("laptop", enabled=False)).enabled
    assert (await access.keys.change("laptop", enabled=True)).enabled
    assert [key.name for key in await access.keys.all()] == ["laptop"]
