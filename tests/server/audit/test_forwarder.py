"""Forwarding of the audit: to a real syslog server over UDP, TCP and TLS, and to a file."""

import json
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest

from proxmox_client.emulator.certificates import Certificate, CertificateAuthority
from pvemcp_server.audit import Audit, Event, Forwarder, Outcome, progress_of, syslog
from pvemcp_server.audit import forwarder as forwarder_module
from pvemcp_server.audit.json_lines import JsonLinesFile
from pvemcp_server.audit.syslog import LONGEST_DATAGRAM, TIMEOUT_SECONDS, SyslogReceiver
from pvemcp_server.store import Store
from pvemcp_server.store.background import housekeeping
from pvemcp_server.store.key_format import new_secret

from .syslog_server import MESSAGE, SyslogServer

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
FORGED = 'a"]\r\n<0>1 - - forged - - - \x00\x1b[31m\x7f\x85\u2028é'


@dataclass
class Clock:
    """A clock that tests set."""

    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def certificate() -> Certificate:
    return CertificateAuthority("test").issue("logs", "127.0.0.1")


@pytest.fixture(params=["udp", "tcp", "tls"])
def server(request: pytest.FixtureRequest, certificate: Certificate) -> Iterator[SyslogServer]:
    server = SyslogServer(request.param, certificate.context if request.param == "tls" else None)
    yield server
    server.stop()


@pytest.fixture
def tcp_server() -> Iterator[SyslogServer]:
    server = SyslogServer("tcp", None)
    yield server
    server.stop()


@dataclass
class BrokenReceiver:
    """A receiver that takes everything, or fails."""

    address: str = "tcp://logs.example:601"
    broken: bool = False
    rows: list[int] = field(default_factory=list)

    def send(self, rows) -> None:
        if self.broken:
            raise ConnectionRefusedError("refused")
        self.rows += [row["seq"] for row in rows]


def forwarder_to(store: Store, receiver, clock: Clock, name: str = "syslog") -> Forwarder:
    return Forwarder(store, lambda: {name: receiver}, clock=clock)


async def record(store: Store, *tools: str) -> None:
    audit = Audit(store)
    for tool in tools:
        await audit.intent(Event(tool=tool))


async def test_rows_reach_a_syslog_server_that_goes_away_and_comes_back(
    store: Store, server: SyslogServer, certificate: Certificate, clock: Clock
):
    receiver = SyslogReceiver(server.address, certificate.fingerprint)
    forwarder = forwarder_to(store, receiver, clock)
    await record(store, "ListVms", "BackupVm")
    assert await forwarder.forward("syslog")
    server.stop()
    await record(store, "DeleteVm")
    assert not await forwarder.forward("syslog")
    [progress] = await progress_of(store, {"syslog": receiver})
    assert progress.waiting == 1
    assert progress.error
    server.start()
    assert not await forwarder.forward("syslog")  # not before the backoff has passed
    clock.pass_(1)
    assert await forwarder.forward("syslog")
    server.stop()
    assert [row["tool"] for row in server.rows] == ["ListVms", "BackupVm", "DeleteVm"]
    assert [row["seq"] for row in server.rows] == [1, 2, 3]
    [progress] = await progress_of(store, {"syslog": receiver})
    assert (progress.waiting, progress.error, progress.delivered) == (0, None, clock.now)


def test_a_receiver_that_keeps_sending_ends_after_the_timeout(monkeypatch: pytest.MonkeyPatch):
    times = iter([0.0, 1.0, TIMEOUT_SECONDS + 1.0])
    monkeypatch.setattr(syslog, "monotonic", lambda: next(times))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(bytes(2 * 4096))
        with pytest.raises(TimeoutError, match="does not close"):
            syslog._read_to_end(ours)


async def test_rows_that_a_receiver_has_not_read_are_sent_again(
    store: Store, tcp_server: SyslogServer, clock: Clock
):
    await record(store, "ListVms")
    tcp_server.resets = True  # takes the connection, and ends without reading
    forwarder = forwarder_to(store, SyslogReceiver(tcp_server.address), clock)
    assert not await forwarder.forward("syslog")
    tcp_server.resets = False
    clock.pass_(1)
    assert await forwarder.forward("syslog")
    tcp_server.stop()
    assert [row["tool"] for row in tcp_server.rows] == ["ListVms"]


@pytest.mark.parametrize("scheme", ["udp", "tcp", "tls"])
async def test_a_name_that_resolves_to_a_metadata_address_later_gets_no_row(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch, scheme: str
):
    await record(store, "ListVms")
    resolved = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 514))
        for address in ("127.0.0.1", "169.254.169.254")
    ]
    monkeypatch.setattr(syslog.socket, "getaddrinfo", lambda *_args, **_options: resolved)
    receiver = SyslogReceiver(f"{scheme}://logs.example:514")
    assert not await forwarder_to(store, receiver, clock).forward("syslog")
    [progress] = await progress_of(store, {"syslog": receiver})
    assert "link-local" in (progress.error or "")


async def test_rows_go_to_the_address_that_was_checked(
    store: Store, server: SyslogServer, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
):
    resolve, names = socket.getaddrinfo, []

    def getaddrinfo(name, *args, **options):
        names.append(name)
        return resolve("127.0.0.1" if name == "logs.example" else name, *args, **options)

    monkeypatch.setattr(syslog.socket, "getaddrinfo", getaddrinfo)
    address = server.address.replace("127.0.0.1", "logs.example")
    await record(store, "ListVms")
    receiver = SyslogReceiver(address, certificate.fingerprint)
    assert await forwarder_to(store, receiver, Clock()).forward("syslog")
    assert names.count("logs.example") == 1


async def test_another_certificate_gets_no_row(
    store: Store, certificate: Certificate, clock: Clock
):
    await record(store, "ListVms")
    server = SyslogServer("tls", certificate.context)
    for fingerprint in ("", "00:" * 31 + "00"):
        forwarder = forwarder_to(store, SyslogReceiver(server.address, fingerprint), clock)
        assert not await forwarder.forward("syslog")
        [target] = await store.audit_targets.all()
        assert "certificate" in target.error
    server.stop()
    assert server.messages == []


async def test_text_of_a_client_cannot_forge_a_message_or_a_line(
    store: Store, server: SyslogServer, certificate: Certificate, tmp_path: Path
):
    secret = new_secret("abcDEF12")
    texts = dict.fromkeys(("tool", "key_name", "client", "acting", "cluster", "reason"), FORGED)
    event = Event(**texts, arguments={FORGED: FORGED, "key": secret}, outcome=Outcome.REFUSED)
    audit = Audit(store)
    await audit.refused(event)
    await audit.flush()
    rows = await store.audit_log.rows_after(0, 10)
    SyslogReceiver(server.address, certificate.fingerprint).send(rows)
    server.stop()
    file = tmp_path / "audit.jsonl"
    JsonLinesFile(file).send(rows)
    [message] = server.messages
    assert MESSAGE.fullmatch(message)
    [line] = file.read_text("ascii").splitlines()
    assert json.loads(line) == server.rows[0]
    assert server.rows[0]["client"].isprintable()
    assert secret not in line + message


async def test_the_longest_row_fits_a_datagram(store: Store):
    long = "\U0001f642" * 1000
    event = Event(tool=long, client=long, reason=long, arguments={"text": long * 20})
    await Audit(store).intent(event)
    server = SyslogServer("udp", None)
    SyslogReceiver(server.address).send(await store.audit_log.rows_after(0, 10))
    server.stop()
    [message] = server.messages
    assert len(message) <= LONGEST_DATAGRAM
    assert server.rows[0]["arguments"]["cut"]


async def test_a_rotated_file_is_opened_again(store: Store, tmp_path: Path, clock: Clock):
    file = tmp_path / "audit.jsonl"
    forwarder = forwarder_to(store, JsonLinesFile(file), clock, "file")
    await record(store, "ListVms")
    assert await forwarder.forward("file")
    file.rename(tmp_path / "audit.jsonl.1")
    (tmp_path / "audit.jsonl").touch(mode=0o644)  # logrotate's "create"
    await record(store, "BackupVm")
    assert await forwarder.forward("file")
    for name, tool in (("audit.jsonl.1", "ListVms"), ("audit.jsonl", "BackupVm")):
        [line] = (tmp_path / name).read_text().splitlines()
        assert json.loads(line)["tool"] == tool
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


async def test_a_link_is_not_written_through(store: Store, tmp_path: Path, clock: Clock):
    target, file = tmp_path / "other", tmp_path / "audit.jsonl"
    target.touch()
    file.symlink_to(target)
    await record(store, "ListVms")
    assert not await forwarder_to(store, JsonLinesFile(file), clock, "file").forward("file")
    assert target.read_text() == ""


async def test_a_torn_line_is_ended_before_its_row_is_written_again(store: Store, tmp_path: Path):
    file = tmp_path / "audit.jsonl"
    file.write_text('{"seq":1,"ki')
    await record(store, "ListVms")
    JsonLinesFile(file).send(await store.audit_log.rows_after(0, 10))
    _torn, line = file.read_text().splitlines()
    assert json.loads(line)["seq"] == 1


async def test_one_of_two_processes_sends_until_its_lease_ends(
    store: Store, other_store: Store, clock: Clock
):
    receiver = BrokenReceiver()
    first = forwarder_to(store, receiver, clock)
    second = forwarder_to(other_store, receiver, clock)
    await record(store, "ListVms")
    assert await first.forward("syslog")
    await record(store, "BackupVm")
    assert not await second.forward("syslog")
    clock.pass_(60)
    assert await second.forward("syslog")
    await record(store, "DeleteVm")
    assert not await first.forward("syslog")
    assert receiver.rows == [1, 2]


async def test_a_clock_that_was_set_back_stops_no_receiver(
    store: Store, other_store: Store, clock: Clock
):
    receiver, broken = BrokenReceiver(), BrokenReceiver(broken=True)
    await record(store, "ListVms")
    held = forwarder_to(store, receiver, clock)
    failing = forwarder_to(other_store, broken, clock, "file")
    assert await held.forward("syslog")
    assert not await failing.forward("file")
    await record(store, "BackupVm")
    broken.broken = False
    clock.pass_(-3600)
    assert await forwarder_to(other_store, receiver, clock).forward("syslog")
    assert await failing.forward("file")
    assert receiver.rows == broken.rows == [1, 2]


async def test_a_batch_sent_while_the_lease_ended_does_not_move_the_position_back(
    store: Store, other_store: Store, clock: Clock
):
    receiver = BrokenReceiver()
    await record(store, "ListVms")
    lease = forwarder_module.LEASE
    assert await store.audit_targets.lease("syslog", "first", clock.now, lease)
    clock.pass_(60)
    await record(store, "BackupVm")
    assert await forwarder_to(other_store, receiver, clock).forward("syslog")
    assert not await store.audit_targets.advance("syslog", "first", 1, clock.now)
    assert await store.audit_targets.position("syslog") == 2


async def test_a_process_that_fails_lets_another_one_try(
    store: Store, other_store: Store, clock: Clock
):
    await record(store, "ListVms")
    broken, reachable = BrokenReceiver(broken=True), BrokenReceiver()
    assert not await forwarder_to(store, broken, clock).forward("syslog")
    assert await forwarder_to(other_store, reachable, clock).forward("syslog")


async def test_an_outage_is_reported_once_and_the_backoff_is_bounded(store: Store, clock: Clock):
    receiver = BrokenReceiver(broken=True)
    forwarder = forwarder_to(store, receiver, clock)
    await record(store, "ListVms")
    for _ in range(20):
        assert not await forwarder.forward("syslog")
        clock.pass_(60)
    [notice] = await store.notices.open()
    assert (notice.kind, notice.subject, notice.count) == ("audit-not-forwarded", "syslog", 1)
    assert "tcp://logs.example:601: refused" in notice.message
    receiver.broken = False
    assert await forwarder.forward("syslog")


async def test_a_server_forwards_in_batches_and_stops(
    store: Store, monkeypatch: pytest.MonkeyPatch, clock: Clock
):
    monkeypatch.setattr(forwarder_module, "BATCH", 2)
    receiver = BrokenReceiver()
    await record(store, *["ListVms"] * 5)
    async with housekeeping(forwarder_to(store, receiver, clock).run):
        with anyio.fail_after(5):
            while await store.audit_targets.position("syslog") < 5:  # noqa: ASYNC110 - a task sends
                await anyio.sleep(0.02)
    assert receiver.rows == [1, 2, 3, 4, 5]
    [target] = await store.audit_targets.all()
    assert target.holder is None


async def test_retention_says_which_rows_were_not_forwarded(store: Store, clock: Clock):
    clock.now = NOW - timedelta(days=200)
    audit = Audit(store, clock=clock)
    for _ in range(3):
        await audit.intent(Event(tool="old"))
    await store.audit_targets.add(name="file", forwarded=1)
    clock.now = NOW
    await audit.intent(Event(tool="new"))
    assert await audit.prune(180, ["file", "syslog"]) == 3
    [retention, _] = await audit.find()
    assert retention.reason == (
        "older than 180 days; not forwarded to file: 2 rows; not forwarded to syslog: 3 rows"
    )
    messages = [notice.message for notice in await store.notices.open()]
    assert "Retention deleted 2 rows of the audit not forwarded to file." in messages
    assert await audit.verify() == []
    receiver = BrokenReceiver()
    assert await forwarder_to(store, receiver, clock).forward("syslog")
    assert receiver.rows == [4, 5]
