"""The audit as syslog messages (RFC 5424), over UDP (RFC 5426), TCP (RFC 6587) or TLS (RFC 5425).

A message is printable ASCII: its text is JSON, in which every other character is escaped, so text
of a client cannot begin a message of its own.
"""

import json
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from time import monotonic
from typing import Any, Final
from urllib.parse import urlsplit

from proxmox_client.tls import fingerprint_of
from pvemcp_server.audit.json_lines import Row, to_json
from pvemcp_server.link_local import is_link_local

PORTS: Final[Mapping[str, int]] = {"udp": 514, "tcp": 601, "tls": 6514}
TIMEOUT_SECONDS: Final = 5
REFUSAL_SECONDS: Final = 0.2  # within which a host answers that nothing listens on the port
AUDIT_FACILITY: Final = 13  # "log audit"
INFO, WARNING, ALERT = 6, 4, 1
SEVERITIES: Final[Mapping[str, int]] = {"break": ALERT, "refused": WARNING}
LAST_SEQUENCE_ID: Final = 2**31 - 1
LONGEST_DATAGRAM: Final = 8192
SHORTENED: Final = (2000, 500, 100)  # characters of each text of a row too long for a datagram


@dataclass(frozen=True, slots=True)
class SyslogReceiver:
    """A syslog server: `udp://host:514`, `tcp://host:601` or `tls://host:6514`.

    With `fingerprint` (SHA-256) only that certificate is accepted, whatever its issuer.
    """

    address: str
    fingerprint: str = ""

    def send(self, rows: Sequence[Row]) -> None:
        """Send the rows; raise OSError when some may not have been received.

        UDP has no confirmation. Over TCP and TLS each batch is a connection of its own: the
        receiver closes it after it has read everything, and what it has not read ends in a reset.
        """
        url = urlsplit(self.address)
        scheme, host, port = url.scheme, url.hostname or "", url.port or PORTS[url.scheme]
        if scheme == "udp":
            with _datagrams(host, port) as datagrams:
                for row in rows:
                    datagrams.send(_datagram(row))
                _check_refused(datagrams)
            return
        with _connection(host, port) as connection:
            if scheme == "tcp":
                _send_all(connection, rows)
                connection.shutdown(socket.SHUT_WR)
                _read_to_end(connection)
                return
            with self._context().wrap_socket(connection, server_hostname=host) as encrypted:
                self._check(encrypted)
                _send_all(encrypted, rows)
                _end_tls(encrypted)

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if self.fingerprint:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE  # `_check` compares the fingerprint
        return context

    def _check(self, encrypted: ssl.SSLSocket) -> None:
        """Raise OSError, before a byte is sent, unless the certificate is the expected one."""
        shown = fingerprint_of(encrypted.getpeercert(binary_form=True) or b"")
        if self.fingerprint and shown != self.fingerprint:
            raise ssl.SSLCertVerificationError(f"the certificate's fingerprint is {shown}")


def to_message(row: Row) -> str:
    """Return the row as a message of RFC 5424."""
    severity = SEVERITIES.get(row["kind"], WARNING if row.get("outcome") == "error" else INFO)
    at: datetime = row["at"]
    moment = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    sequence = (row["seq"] - 1) % LAST_SEQUENCE_ID + 1
    return (
        f"<{AUDIT_FACILITY * 8 + severity}>1 {moment} {_host_name()} pvemcp - {row['kind']}"
        f' [meta sequenceId="{sequence}"] {to_json(row)}'
    )


def _host_name() -> str:
    """Return the name of this machine as a header field: printable ASCII without blanks."""
    name = "".join(letter for letter in socket.gethostname() if "!" <= letter <= "~")
    return name[:255] or "-"


def _datagram(row: Row) -> bytes:
    """Return the message for UDP: a row that is too long for a datagram has shortened texts."""
    message = to_message(row).encode()
    for longest in SHORTENED:
        if len(message) <= LONGEST_DATAGRAM:
            break
        message = to_message(_shortened(row, longest)).encode()
    return message


def _shortened(row: Row, longest: int) -> dict[str, Any]:
    texts = {
        name: value[: longest - 1] + "…"
        for name, value in row.items()
        if isinstance(value, str) and len(value) > longest
    }
    if "arguments" in texts:
        texts["arguments"] = json.dumps({"cut": texts["arguments"]})
    return {**row, **texts}


def _send_all(connection: socket.socket, rows: Sequence[Row]) -> None:
    for row in rows:
        message = to_message(row).encode()
        connection.sendall(b"%d %s" % (len(message), message))


def _connection(host: str, port: int) -> socket.socket:
    """Connect to the first address of the host that accepts it."""
    failure = OSError("the host has no address")
    for address in _addresses(host, port, socket.SOCK_STREAM):
        try:
            return socket.create_connection(address[:2], TIMEOUT_SECONDS)
        except OSError as error:
            failure = error
    raise failure


def _addresses(host: str, port: int, kind: socket.SocketKind) -> list[tuple[Any, ...]]:
    """Resolve a host; raise OSError for a link-local or metadata address, which gets nothing.

    Connect to one of these: the name was checked when it was set, and may lead elsewhere by now.
    """
    addresses = [found[4] for found in socket.getaddrinfo(host, port, type=kind)]
    if any(is_link_local(ip_address(str(each[0]).partition("%")[0])) for each in addresses):
        raise PermissionError(f"{host} is a link-local or metadata address; not contacted")
    return addresses


@contextmanager
def _datagrams(host: str, port: int) -> Iterator[socket.socket]:
    """Open a connected UDP socket, which learns of refused datagrams."""
    address = _addresses(host, port, socket.SOCK_DGRAM)[0]
    family = socket.AF_INET6 if len(address) > 2 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as datagrams:
        datagrams.settimeout(TIMEOUT_SECONDS)
        datagrams.connect(address)
        yield datagrams


def _check_refused(datagrams: socket.socket) -> None:
    """Raise ConnectionRefusedError when the receiver's host refuses the datagrams."""
    datagrams.settimeout(REFUSAL_SECONDS)
    with suppress(TimeoutError):
        datagrams.recv(1)


def _end_tls(encrypted: ssl.SSLSocket) -> None:
    """Send close_notify and wait for the receiver's, or for the end of the connection."""
    try:
        encrypted.unwrap()
    except OSError as error:
        # some receivers close without an alert of their own, after they have read everything
        if not isinstance(error, ssl.SSLEOFError) and error.errno != 0:
            raise


def _read_to_end(connection: socket.socket) -> None:
    """Wait until the receiver has closed the connection, also one that sends byte after byte."""
    end = monotonic() + TIMEOUT_SECONDS
    while connection.recv(4096):
        if monotonic() > end:
            raise TimeoutError("the receiver does not close the connection")
