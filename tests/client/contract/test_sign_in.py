"""Sign-in with every kind of account, and accounts with few privileges."""

import pytest

from proxmox_client import ApiToken, Forbidden, NotFound, Password, Unauthenticated
from proxmox_client.session import RENEW_AFTER

pytestmark = pytest.mark.anyio


async def test_every_account_reads_and_writes(account, client_as):
    # Quirks 7, 8, 9 and 12.
    client = client_as(account)
    guest = await client.guest(103)
    assert (await guest.status()).status == "stopped"
    assert (await (await guest.power("start")).wait()).ok
    assert (await guest.status()).status == "running"


async def test_a_ticket_is_renewed_between_calls(client_as, with_totp, lab):
    # Quirk 7: with itself, so no new code is needed.
    client = client_as(with_totp)
    session = client.transport._session
    await client.version()
    first = session._ticket
    session._issued_at -= RENEW_AFTER + 1
    await client.version()
    assert session._ticket.ticket != first.ticket or session._ticket is not first


async def test_an_expired_session_is_replaced(client_as, lab):
    client = client_as(Password(*lab.password))
    await client.version()
    lab.expire_sessions()
    assert (await client.version()).release


async def test_a_wrong_secret_is_unauthenticated(client_as, lab):
    # Quirk 1: after three seconds, which is below the read timeout.
    token_id, _ = lab.token
    user, _ = lab.password
    for wrong in (ApiToken(token_id, "wrong"), Password(user, "wrong")):
        with pytest.raises(Unauthenticated):
            await client_as(wrong).version()


async def test_an_unprivileged_account_gets_empty_lists_and_named_privileges(
    client_as, unprivileged
):
    # Quirks 10 and 34.
    client = client_as(unprivileged)
    resources = await client.cluster.resources()
    assert (resources.guests, resources.storages) == ([], [])
    assert await client.access.permissions() == {}
    with pytest.raises(Forbidden) as caught:
        await client.node("pve1").status()
    assert (caught.value.path, caught.value.privileges) == ("/nodes/pve1", ("Sys.Audit",))
    with pytest.raises(Forbidden) as caught:
        await client.qemu("pve1", 100).power("stop")
    assert (caught.value.path, caught.value.privileges) == ("/vms/100", ("VM.PowerMgmt",))
    with pytest.raises(NotFound):
        await client.guest(100)


async def test_two_accounts_of_one_client_see_their_own_resources(client, unprivileged):
    other = client.signed_in_as(unprivileged)
    assert len((await client.cluster.resources()).guests) == 12
    assert (await other.cluster.resources()).guests == []
    assert len((await client.cluster.resources()).guests) == 12
