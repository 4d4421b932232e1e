"""Calls without an account, and changes of permissions."""

import httpx2 as httpx
import pytest

from proxmox_client import ApiToken, Forbidden, Tls
from proxmox_client.emulator.state.people import Grant, Token

pytestmark = pytest.mark.anyio


async def test_only_the_realms_are_readable_without_an_account(lab):
    # Quirk 13: /version and the like need an account; the list of realms does not.
    context = Tls(fingerprints=lab.fingerprints.values()).context()
    async with httpx.AsyncClient(verify=context, timeout=30) as anonymous:
        base = f"https://{lab.hosts[0]}/api2/json"
        realms = await anonymous.get(f"{base}/access/domains")
        rejected = [await anonymous.get(f"{base}{path}") for path in ("/version", "/nodes")]
    assert {row["realm"] for row in realms.json()["data"]} >= {"pam", "pve"}
    assert [answer.status_code for answer in rejected] == [401, 401]


async def test_a_new_privilege_applies_to_the_next_call(lab, client_as):
    # Quirk 35: Forbidden is raised at once and never cached, so the next call succeeds.
    # Proxmox's workers apply a new privilege within seconds. The client does not retry for that:
    # most denials are permanent, and each would cost a second request.
    lab.state.people.users["mcp@pve"].tokens["new"] = Token("new", "secret")
    client = client_as(ApiToken("mcp@pve!new", "secret"))
    node = client.node(next(iter(lab.state.nodes)))
    with pytest.raises(Forbidden):
        await node.status()
    lab.state.people.grants.append(Grant("/", "token", "mcp@pve!new", "PVEAuditor"))
    assert (await node.status()).uptime
