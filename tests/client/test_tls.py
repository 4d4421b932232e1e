"""Trust in certificates; nothing is sent over an untrusted connection."""

import ssl

import anyio
import pytest

from proxmox_client import PlainPort, Tls, TlsError, Unreachable, fetch_fingerprint, tls_reason
from proxmox_client.tls import normalize_fingerprint

pytestmark = pytest.mark.anyio

OTHER = ":".join(["AB"] * 32)


async def test_a_pinned_certificate_is_trusted_with_any_issuer(
    socket_client, pveproxy, certificate
):
    # Quirk 6: the pin is the SHA-256 of the leaf, colon-hex.
    proxy = await pveproxy()
    client = socket_client(
        proxy.host, tls=Tls(fingerprints={OTHER, certificate.fingerprint.lower()})
    )
    assert (await client.version()).release == "9.2"


async def test_nothing_is_sent_to_an_unpinned_certificate(socket_client, pveproxy, certificate):
    proxy = await pveproxy()
    client = socket_client(proxy.host, tls=Tls(fingerprints={OTHER}))
    with pytest.raises(TlsError, match=f"{certificate.fingerprint}, which is not pinned"):
        await client.version()
    with pytest.raises(TlsError):
        await client.transport.post("/nodes/pve1/qemu/100/status/start")
    assert proxy.requests == []


async def test_an_untrusted_certificate_is_not_retried(socket_client, pveproxy):
    proxy = await pveproxy()
    with pytest.raises(TlsError):
        await socket_client(proxy.host, tls=Tls(fingerprints={OTHER})).version()
    assert proxy.connections <= 1


async def test_an_untrusted_host_is_replaced_by_the_next_host(
    socket_client, pveproxy, plain_host, certificate
):
    proxy = await pveproxy()
    client = socket_client(plain_host, proxy.host)
    assert (await client.version()).release == "9.2"


async def test_a_port_without_tls_is_named_without_the_codes_of_openssl(socket_client, plain_host):
    for ask in (socket_client(plain_host).version, lambda: fetch_fingerprint(plain_host)):
        with pytest.raises(PlainPort) as raised:
            await ask()
        assert str(raised.value) == f"{plain_host}: the port does not speak TLS"


def test_no_reason_of_tls_has_the_codes_of_openssl():
    refused = ssl.SSLCertVerificationError(1, "[SSL] certificate verify failed (_ssl.c:992)")
    refused.verify_message = "self-signed certificate"
    alert = ssl.SSLError(1, "[SSL: TLSV1_ALERT_PROTOCOL_VERSION] tlsv1 alert (_ssl.c:992)")
    alert.reason = "TLSV1_ALERT_PROTOCOL_VERSION"
    unknown = ssl.SSLError("unknown error (_ssl.c:3134)")
    assert [tls_reason(each) for each in (refused, alert, unknown)] == [
        "the certificate is not trusted: self-signed certificate",
        "the TLS handshake failed: tlsv1 alert protocol version",
        "the TLS handshake failed: unknown",
    ]


async def test_the_pin_is_checked_on_every_connection(socket_client, pveproxy, certificate):
    proxy = await pveproxy("answer and close")
    client = socket_client(proxy.host)
    await client.version()
    await client.version()
    assert proxy.connections == 2


async def test_a_configured_ca_without_key_usage_is_trusted(
    socket_client, pveproxy, certificate, tmp_path
):
    # Quirk 5: Python 3.13 rejects such a CA by default.
    ca_file = tmp_path / "pve-root-ca.pem"
    ca_file.write_text(certificate.ca_pem)
    proxy = await pveproxy()
    for tls in (Tls(ca_pem=certificate.ca_pem), Tls(ca_file=ca_file)):
        assert not tls.context().verify_flags & ssl.VERIFY_X509_STRICT
        assert (await socket_client(proxy.host, tls=tls).version()).release == "9.2"


async def test_an_unknown_ca_is_not_trusted(socket_client, pveproxy):
    proxy = await pveproxy()
    with pytest.raises(TlsError, match="unable to get local issuer certificate"):
        await socket_client(proxy.host, tls=Tls()).version()
    assert proxy.requests == []


async def test_a_configured_ca_still_checks_the_host_name(socket_client, pveproxy, certificate):
    proxy = await pveproxy()
    other_name = proxy.host.replace("127.0.0.1", "localhost")
    client = socket_client(other_name, tls=Tls(ca_pem=certificate.ca_pem))
    with pytest.raises(TlsError, match="Hostname mismatch"):
        await client.version()
    assert proxy.requests == []


async def test_insecure_trusts_every_certificate(socket_client, pveproxy):
    proxy = await pveproxy()
    assert (await socket_client(proxy.host, tls=Tls(insecure=True)).version()).release == "9.2"


async def test_a_fingerprint_is_fetched_without_sending_anything(pveproxy, certificate):
    proxy = await pveproxy()
    with anyio.fail_after(5):
        assert await fetch_fingerprint(proxy.host) == certificate.fingerprint
        await proxy.disconnected.wait()
    assert proxy.requests == []


async def test_fetching_a_fingerprint_from_a_closed_port_is_unreachable(closed_host):
    with pytest.raises(Unreachable) as caught:
        await fetch_fingerprint(closed_host)
    assert str(caught.value) == f"{closed_host}: Connection refused"


@pytest.mark.parametrize("text", ["", "AB", "zz" * 32, "AB" * 31])
def test_a_malformed_fingerprint_is_rejected(text):
    with pytest.raises(ValueError, match="SHA-256"):
        Tls(fingerprints={text})


def test_a_fingerprint_may_omit_the_colons():
    assert normalize_fingerprint("ab" * 32) == OTHER


def test_the_default_context_is_shared():
    assert Tls().context() is Tls().context()
