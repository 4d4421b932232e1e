"""Which certificates are trusted, and that nothing is said to one that is not."""

import ssl

import anyio
import pytest

from proxmox_client import Tls, TlsError, Unreachable, fetch_fingerprint
from proxmox_client.tls import normalized

pytestmark = pytest.mark.anyio

OTHER = ":".join(["AB"] * 32)


async def test_a_pinned_certificate_is_trusted_whoever_signed_it(reaching, pveproxy, certificate):
    """Quirk 6: the pin is the SHA-256 of the leaf, colon-hex."""
    proxy = await pveproxy()
    client = reaching(proxy.host, tls=Tls(fingerprints={OTHER, certificate.fingerprint.lower()}))
    assert (await client.version()).release == "9.2"


async def test_nothing_is_sent_to_a_certificate_that_is_not_pinned(reaching, pveproxy, certificate):
    proxy = await pveproxy()
    client = reaching(proxy.host, tls=Tls(fingerprints={OTHER}))
    with pytest.raises(TlsError, match=certificate.fingerprint):
        await client.version()
    with pytest.raises(TlsError):
        await client.transport.post("/nodes/pve1/qemu/100/status/start")
    assert proxy.requests == []


async def test_a_certificate_that_is_not_trusted_is_not_tried_again(reaching, pveproxy):
    proxy = await pveproxy()
    with pytest.raises(TlsError):
        await reaching(proxy.host, tls=Tls(fingerprints={OTHER})).version()
    assert proxy.connections <= 1


async def test_a_host_that_is_trusted_stands_in_for_one_that_is_not(
    reaching, pveproxy, plain_host, certificate
):
    proxy = await pveproxy()
    client = reaching(plain_host, proxy.host)
    assert (await client.version()).release == "9.2"


async def test_a_host_that_speaks_no_tls_is_told_as_such(reaching, plain_host):
    with pytest.raises(TlsError, match=plain_host):
        await reaching(plain_host).version()


async def test_the_pin_is_checked_on_every_connection(reaching, pveproxy, certificate):
    proxy = await pveproxy("answer and close")
    client = reaching(proxy.host)
    await client.version()
    await client.version()
    assert proxy.connections == 2


async def test_a_private_ca_without_key_usage_is_trusted_when_named(
    reaching, pveproxy, certificate, tmp_path
):
    """Quirk 5: Python 3.13 would refuse such a CA by default."""
    ca_file = tmp_path / "pve-root-ca.pem"
    ca_file.write_text(certificate.ca_pem)
    proxy = await pveproxy()
    for tls in (Tls(ca_pem=certificate.ca_pem), Tls(ca_file=ca_file)):
        assert not tls.context().verify_flags & ssl.VERIFY_X509_STRICT
        assert (await reaching(proxy.host, tls=tls).version()).release == "9.2"


async def test_a_private_ca_is_not_trusted_unless_it_is_named(reaching, pveproxy):
    proxy = await pveproxy()
    with pytest.raises(TlsError, match="unable to get local issuer certificate"):
        await reaching(proxy.host, tls=Tls()).version()
    assert proxy.requests == []


async def test_a_named_ca_does_not_excuse_a_wrong_name(reaching, pveproxy, certificate):
    proxy = await pveproxy()
    elsewhere = proxy.host.replace("127.0.0.1", "localhost")
    client = reaching(elsewhere, tls=Tls(ca_pem=certificate.ca_pem))
    with pytest.raises(TlsError, match="Hostname mismatch"):
        await client.version()
    assert proxy.requests == []


async def test_anything_is_trusted_when_told_so(reaching, pveproxy):
    proxy = await pveproxy()
    assert (await reaching(proxy.host, tls=Tls(insecure=True)).version()).release == "9.2"


async def test_a_fingerprint_is_learnt_without_sending_anything(pveproxy, certificate):
    proxy = await pveproxy()
    with anyio.fail_after(5):
        assert await fetch_fingerprint(proxy.host) == certificate.fingerprint
        await proxy.gone.wait()
    assert proxy.requests == []


async def test_a_fingerprint_of_nobody_is_unreachable(closed_host):
    with pytest.raises(Unreachable) as caught:
        await fetch_fingerprint(closed_host)
    assert str(caught.value) == f"{closed_host}: Connection refused"


@pytest.mark.parametrize("text", ["", "AB", "zz" * 32, "AB" * 31])
def test_what_is_not_a_fingerprint_is_refused_at_once(text):
    with pytest.raises(ValueError, match="SHA-256"):
        Tls(fingerprints={text})


def test_a_fingerprint_may_be_written_without_colons():
    assert normalized("ab" * 32) == OTHER


def test_the_systems_store_is_loaded_once_for_all_clusters():
    assert Tls().context() is Tls().context()
