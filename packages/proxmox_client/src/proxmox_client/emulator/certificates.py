"""The certificate authority of a cluster and the certificates of its nodes."""

import ipaddress
import ssl
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_YEARS = timedelta(days=3650)


@dataclass(frozen=True)
class Certificate:
    """A node's certificate and its private key, both as PEM."""

    pem: str
    private_key: str
    fingerprint: str
    expires: int

    @cached_property
    def context(self) -> ssl.SSLContext:
        """The TLS context of a server with this certificate, loaded at its first connection."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # The ssl module loads keys from files only
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "node.pem"
            path.touch(mode=0o600)
            path.write_text(self.pem + self.private_key)
            context.load_cert_chain(path)
        return context


class CertificateAuthority:
    """The authority of one cluster; like Proxmox's own CA it has no intermediate certificate."""

    def __init__(self, cluster: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("Proxmox VE emulator", cluster)
        usage = _usage(key_cert_sign=True, crl_sign=True)
        identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        self._certificate = (
            _builder(self._name, self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(identifier, critical=False)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def pem(self) -> str:
        """The authority's own certificate as PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM).decode()

    def issue(self, node: str, address: str) -> Certificate:
        """Issue a certificate for a node's name, its address and loopback."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [
            *(x509.IPAddress(ipaddress.ip_address(ip)) for ip in ("127.0.0.1", "::1", address)),
            x509.DNSName("localhost"),
            x509.DNSName(node),
        ]
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = (
            _builder(_name(node, "PVE Cluster Node"), self._name, key)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(authority, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return _certificate(certificate, key)


def _certificate(issued: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Certificate:
    digest = issued.fingerprint(hashes.SHA256()).hex().upper()
    private_key = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return Certificate(
        pem=issued.public_bytes(serialization.Encoding.PEM).decode(),
        private_key=private_key.decode(),
        fingerprint=":".join(digest[start : start + 2] for start in range(0, 64, 2)),
        expires=int(issued.not_valid_after_utc.timestamp()),
    )


def _name(common: str, unit: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit),
        ]
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + _YEARS)
    )


def _usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
