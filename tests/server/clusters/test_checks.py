"""A cluster is checked before it is saved; an error names the cause and the next step."""

import socket

import anyio
import pytest

from proxmox_client import Tls
from pvemcp_server.clusters import check
from pvemcp_server.clusters.acl import question
from pvemcp_server.errors import CallError, UnusableCluster

pytestmark = pytest.mark.anyio


def pinned(lab) -> Tls:
    return Tls(fingerprints=lab.fingerprints.values())


async def test_a_good_cluster_has_a_version_and_nodes(lab):
    result = await check(lab.hosts, *lab.token, pinned(lab))
    assert result.version.startswith("9.2")
    assert len(result.nodes) == 2
    assert result.missing == ()


async def test_the_clusters_own_ca_is_accepted(lab):
    assert (await check(lab.hosts, *lab.token, Tls(ca_pem=lab.ca_pem))).nodes


async def test_an_unknown_certificate_is_shown_for_pinning(lab):
    with pytest.raises(UnusableCluster) as refused:
        await check(lab.hosts, *lab.token, Tls())
    assert next(iter(lab.fingerprints.values())) in str(refused.value)
    assert refused.value.about == "fingerprints"
    assert "pin it" in refused.value.hint


async def test_a_wrong_fingerprint_is_refused_with_the_right_one(lab):
    with pytest.raises(CallError) as refused:
        await check(lab.hosts, *lab.token, Tls(fingerprints=[":".join(["AB"] * 32)]))
    assert lab.fingerprints[lab.hosts[0]] in str(refused.value)


async def test_a_wrong_secret_is_named(lab):
    token_id, _ = lab.token
    with anyio.fail_after(20), pytest.raises(CallError, match="token is wrong") as refused:
        await check(lab.hosts, token_id, "00000000-0000-0000-0000-000000000000", pinned(lab))
    assert "pveum user token list" in refused.value.hint


async def test_a_refused_connection_names_host_and_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{taken.getsockname()[1]}"
        with anyio.fail_after(20), pytest.raises(CallError, match=host) as refused:
            await check([host], "root@pam!x", "secret", Tls())
    assert "port" in refused.value.hint


async def test_missing_privileges_are_named_with_a_question(lab, new_token):
    token_id, secret = new_token("empty")
    result = await check(lab.hosts, token_id, secret, pinned(lab))
    assert result.missing == ("VM.Audit", "Datastore.Audit", "Sys.Audit")
    assert result.advice == ()
    assert result.question == question(token_id, "/", result.missing)


@pytest.mark.parametrize("host", ["https://pve1", "pve1:notaport", ""])
async def test_an_invalid_host_is_refused(host):
    with pytest.raises(CallError):
        await check([host], "root@pam!x", "secret", Tls())
