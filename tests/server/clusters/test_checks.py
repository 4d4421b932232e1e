"""A cluster is tried before it is saved, and what is wrong is said with the way to fix it."""

import socket

import anyio
import pytest

from proxmox_client import Tls
from pvemcp_server.clusters import check
from pvemcp_server.clusters.acl import question
from pvemcp_server.errors import CallError

pytestmark = pytest.mark.anyio


def pinned(lab) -> Tls:
    return Tls(fingerprints=lab.fingerprints.values())


async def test_a_good_cluster_tells_version_and_nodes(lab):
    found = await check(lab.hosts, *lab.token, pinned(lab))
    assert found.version.startswith("9.2")
    assert len(found.nodes) == 2
    assert found.missing == ()


async def test_its_own_authority_is_as_good_as_a_pin(lab):
    assert (await check(lab.hosts, *lab.token, Tls(ca_pem=lab.ca_pem))).nodes


async def test_an_unknown_certificate_is_shown_for_pinning_and_no_secret_is_sent(lab):
    with pytest.raises(CallError) as refused:
        await check(lab.hosts, *lab.token, Tls())
    assert next(iter(lab.fingerprints.values())) in str(refused.value)
    assert "--fingerprint" in refused.value.hint


async def test_a_wrong_fingerprint_is_refused_with_the_right_one(lab):
    with pytest.raises(CallError) as refused:
        await check(lab.hosts, *lab.token, Tls(fingerprints=[":".join(["AB"] * 32)]))
    assert lab.fingerprints[lab.hosts[0]] in str(refused.value)


async def test_a_wrong_secret_is_called_that(lab):
    token_id, _ = lab.token
    with anyio.fail_after(20), pytest.raises(CallError, match="token is wrong") as refused:
        await check(lab.hosts, token_id, "00000000-0000-0000-0000-000000000000", pinned(lab))
    assert "pveum user token list" in refused.value.hint


async def test_nobody_listening_is_told_with_host_and_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{taken.getsockname()[1]}"
        with anyio.fail_after(20), pytest.raises(CallError, match=host) as refused:
            await check([host], "root@pam!x", "secret", Tls())
    assert "port" in refused.value.hint


async def test_a_token_without_rights_is_told_what_it_lacks_and_what_to_ask(lab, new_token):
    token_id, secret = new_token("empty")
    found = await check(lab.hosts, token_id, secret, pinned(lab))
    assert found.missing == ("VM.Audit", "Datastore.Audit", "Sys.Audit")
    assert found.advice == ()
    assert found.question == question(token_id, "/", found.missing)


@pytest.mark.parametrize("host", ["https://pve1", "pve1:notaport", ""])
async def test_a_host_that_is_none_is_refused_before_anything_is_asked(host):
    with pytest.raises(CallError):
        await check([host], "root@pam!x", "secret", Tls())
