"""Every way to sign in to the emulator of each flavour, and an account that may too little."""

import pytest

from proxmox_client import ApiToken, Forbidden, NotFound, Password, Unauthenticated
from proxmox_client.session import RENEW_AFTER

pytestmark = pytest.mark.anyio


async def test_every_account_reads_and_writes(account, signed_in):
    """Quirks 7, 8, 9 and 12."""
    client = signed_in(account)
    guest = await client.guest(103)
    assert (await guest.status()).status == "stopped"
    assert (await (await guest.power("start")).wait()).ok
    assert (await guest.status()).status == "running"


async def test_a_ticket_is_renewed_under_way(signed_in, with_totp, lab):
    """Quirk 7: with itself, so that no new code is needed."""
    client = signed_in(with_totp)
    session = client.transport._session
    await client.version()
    first = session._ticket
    session._since -= RENEW_AFTER + 1
    await client.version()
    assert session._ticket.ticket != first.ticket or session._ticket is not first


async def test_a_session_that_ends_under_way_goes_on_with_a_new_one(signed_in, lab):
    client = signed_in(Password(*lab.password))
    await client.version()
    lab.expire_sessions()
    assert (await client.version()).release


async def test_a_wrong_secret_is_refused(signed_in, lab):
    """Quirk 1: three seconds later, which is no timeout of ours."""
    token_id, _ = lab.token
    user, _ = lab.password
    for wrong in (ApiToken(token_id, "wrong"), Password(user, "wrong")):
        with pytest.raises(Unauthenticated):
            await signed_in(wrong).version()


async def test_who_may_too_little_sees_empty_lists_and_named_privileges(signed_in, powerless):
    """Quirks 10 and 34."""
    client = signed_in(powerless)
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


async def test_two_accounts_on_one_line_see_what_each_may(client, powerless):
    other = client.signed_in_as(powerless)
    assert len((await client.cluster.resources()).guests) == 12
    assert (await other.cluster.resources()).guests == []
    assert len((await client.cluster.resources()).guests) == 12
