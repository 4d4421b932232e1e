"""Access control as a whole: opening, housekeeping, closing."""

import pytest

from pvemcp_server.access import Access, open_access
from pvemcp_server.errors import BadArgument, Conflict
from pvemcp_server.store import Store

pytestmark = pytest.mark.anyio


async def refuse(store: Store) -> None:
    async with open_access(store):
        raise BadArgument("name", "is wrong.")


async def test_an_error_of_the_body_keeps_its_type(store: Store):
    with pytest.raises(BadArgument, match="is wrong"):
        await refuse(store)


async def test_closing_logs_uses_that_could_not_be_stored(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def unreachable():
        raise ConnectionError("connection refused")

    async with open_access(store) as access:
        _, secret = await access.keys.create("laptop")
        await access.authenticator.authenticate(secret, "::1")
        monkeypatch.setattr(store.database, "writing", unreachable)
    assert "Uses of keys and failed sign-ins could not be stored" in caplog.text


async def test_a_key_never_refers_to_a_missing_role(access: Access, store: Store):
    key, _ = await access.keys.create("laptop")
    with pytest.raises(Conflict):
        await store.keys.change(key.id, role_id=999)
    with pytest.raises(Conflict):
        await store.roles.remove(key.role_id)
    assert (await access.keys.get("laptop")).role_id == key.role_id
