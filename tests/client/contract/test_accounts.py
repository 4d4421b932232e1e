"""What needs no account, and how soon a change of rights is minded."""

import httpx2 as httpx
import pytest

from proxmox_client import ApiToken, Forbidden, Tls
from proxmox_client.emulator.state.user_config import AclEntry, Token

pytestmark = pytest.mark.anyio


async def test_only_the_realms_are_told_without_signing_in(lab):
    """Quirk 13: /version and the like need an account; the list of realms does not."""
    context = Tls(fingerprints=lab.fingerprints.values()).context()
    async with httpx.AsyncClient(verify=context, timeout=30) as stranger:
        base = f"https://{lab.hosts[0]}/api2/json"
        realms = await stranger.get(f"{base}/access/domains")
        refused = [await stranger.get(f"{base}{path}") for path in ("/version", "/nodes")]
    assert {row["realm"] for row in realms.json()["data"]} >= {"pam", "pve"}
    assert [answer.status_code for answer in refused] == [401, 401]


async def test_a_right_that_was_just_granted_holds_for_the_next_call_of_the_same_client(
    lab, signed_in
):
    """Quirk 35: a refusal is told at once and never remembered, so asking again is enough.

    Proxmox's workers learn of a new right within seconds. The client does not wait for that: most
    refusals stay what they are, and each would cost a second request.
    """
    lab.state.user_config.users["mcp@pve"].tokens["new"] = Token("new", "secret")
    client = signed_in(ApiToken("mcp@pve!new", "secret"))
    node = client.node(next(iter(lab.state.nodes)))
    with pytest.raises(Forbidden):
        await node.status()
    lab.state.user_config.acl.append(AclEntry("/", "token", "mcp@pve!new", "PVEAuditor"))
    assert (await node.status()).uptime
