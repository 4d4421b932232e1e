"""Access as a whole: opening, housekeeping, closing."""

import pytest
from sqlalchemy.exc import IntegrityError

from pvemcp_server.access import Access, open_access
from pvemcp_server.errors import BadArgument
from pvemcp_server.store import Store

pytestmark = pytest.mark.anyio


async def refuse(store: Store) -> None:
    async with open_access(store):
        raise BadArgument("name", "is wrong.")


async def test_an_error_in_the_body_stays_what_it_is(store: Store):
    with pytest.raises(BadArgument, match="is wrong"):
        await refuse(store)


async def test_closing_tells_when_uses_could_not_be_written_down(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def away():
        raise ConnectionError("the database is away")

    async with open_access(store) as access:
        _, secret = await access.keys.create("laptop")
        await access.authenticator.authenticate(secret, "::1")
        monkeypatch.setattr(store.database, "writing", away)
    assert "Could not write down the use of keys" in caplog.text


async def test_a_key_never_points_to_a_role_that_is_not_there(access: Access, store: Store):
    key, _ = await access.keys.create("laptop")
    with pytest.raises(IntegrityError):
        await store.keys.change(key.id, role_id=999)
    with pytest.raises(IntegrityError):
        await store.roles.remove(key.role_id)
    assert (await access.keys.get("laptop")).role_id == key.role_id
