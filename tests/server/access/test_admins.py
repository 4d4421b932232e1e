"""Administrators: passwords, lock-out, sessions."""

from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from types import SimpleNamespace
from unittest.mock import AsyncMock

import anyio
import pytest
from pwdlib import PasswordHash
from pyotp import TOTP
from sqlalchemy import text
from tests.server.clock import Clock

from pvemcp_server.access import Access, ExternalAdmins, passwords
from pvemcp_server.access.admins import FAILURES_PER_MINUTE, Admins
from pvemcp_server.access.limits import MOST_WAITING
from pvemcp_server.access.passkeys import Assertion, NewPasskey, RelyingParty
from pvemcp_server.access.passwords import Passwords
from pvemcp_server.access.second_factors import new_totp_secret
from pvemcp_server.access.sessions import ABSOLUTE, IDLE, SEEN_EVERY, Sessions
from pvemcp_server.access.sign_in_limits import (
    DEVICE_LIFE,
    FIRST_LOCK,
    FREE_FAILURES,
    LONGEST_LOCK,
    MOST_LOCKS,
    FailureLocks,
)
from pvemcp_server.admin import admins as administrators
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.permission import COMMAND_LINE
from pvemcp_server.admin.service_tokens import ServiceTokenFields, create_token
from pvemcp_server.errors import (
    AccessDenied,
    AccountChanged,
    BadArgument,
    ConfigError,
    NotPermitted,
    TooManyFailures,
    UnknownName,
)
from pvemcp_server.store import Store
from pvemcp_server.store.records import AdminRole

pytestmark = pytest.mark.anyio

PASSWORD = "correct horse battery"
HERE = "192.0.2.200"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def admins(store: Store, clock: Clock) -> Admins:
    return Admins(store, clock=clock.now, monotonic=lambda: clock.time.timestamp())


@pytest.fixture
def sessions(store: Store, clock: Clock) -> Sessions:
    return Sessions(store, clock=clock.now)


async def reason(
    admins: Admins, name: str, password: str, address: str = "", device: str = ""
) -> str:
    with pytest.raises(AccessDenied) as denied:
        await admins.sign_in(name, password, address=address, device=device)
    return denied.value.reason


async def test_the_first_administrator_must_change_the_generated_password(admins: Admins):
    _, password = await admins.first("admin")
    assert (await admins.sign_in("admin", password)).must_change
    assert await admins.first("admin") == (False, None)
    await admins.set_password(await admins.get("admin"), PASSWORD)
    assert not (await admins.sign_in("admin", PASSWORD)).must_change
    assert await reason(admins, "admin", password) == "wrong password"


async def test_a_configured_first_password_is_not_returned(admins: Admins):
    assert await admins.first("admin", PASSWORD) == (True, None)
    assert not (await admins.sign_in("admin", PASSWORD)).must_change


async def test_passwords_are_stored_as_argon2id(
    admins: Admins, store: Store, real_hasher: PasswordHash, monkeypatch: pytest.MonkeyPatch
):
    admin = await admins.create("ada", PASSWORD)
    assert admin.password_hash.startswith("$argon2id$")
    assert "argon2" not in repr(admin)
    monkeypatch.setattr(passwords, "_hasher", real_hasher)
    bob = await Admins(store).create("bob", PASSWORD)
    assert bob.password_hash.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert (await Admins(store).sign_in("bob", PASSWORD)).name == "bob"
    async with store.database.reading() as connection:
        rows = (await connection.execute(text("SELECT * FROM admins"))).all()
    assert PASSWORD not in repr(rows)


@pytest.mark.parametrize(
    "password", ["short", "x" * 2000, "administrator"], ids=["short", "long", "the name"]
)
async def test_a_weak_password_is_refused(admins: Admins, password: str):
    with pytest.raises(BadArgument, match="12 to 1024 characters"):
        await admins.create("administrator", password)


async def test_each_wrong_password_locks_its_source_for_longer(
    admins: Admins, store: Store, clock: Clock
):
    await admins.create("ada", PASSWORD)
    for _ in range(FREE_FAILURES):
        assert await reason(admins, "ada", "something wrong") == "wrong password"
    assert await reason(admins, "ada", PASSWORD) == "locked after failed sign-ins"
    clock.time += FIRST_LOCK
    assert await reason(admins, "ada", "something wrong") == "wrong password"
    clock.time += FIRST_LOCK
    assert await reason(admins, "ada", PASSWORD) == "locked after failed sign-ins"
    clock.time += FIRST_LOCK
    assert (await admins.sign_in("ada", PASSWORD)).failures == 0
    [notice] = await store.notices.open()
    assert (notice.kind, notice.subject, notice.count) == ("sign-in-failed", "ada", 2)


async def test_a_wrong_password_writes_nothing_before_its_answer(
    admins: Admins, store: Store, monkeypatch: pytest.MonkeyPatch
):
    # a write would take longer for names that exist
    await admins.create("ada", PASSWORD)
    writing = store.database.writing
    monkeypatch.setattr(store.database, "writing", None)
    for name in ("ada", "missing"):
        await reason(admins, name, "something wrong")
    monkeypatch.setattr(store.database, "writing", writing)
    await admins.flush()
    assert (await admins.get("ada")).failures == 1


async def test_a_lock_does_not_reveal_whether_the_name_exists(admins: Admins):
    await admins.create("ada", PASSWORD)
    for name in ("ada", "missing"):
        for _ in range(FREE_FAILURES):
            await reason(admins, name, "something wrong", f"192.0.2.{len(name)}")
        locked = await reason(admins, name, PASSWORD, f"192.0.2.{len(name)}")
        assert locked == "locked after failed sign-ins"


async def test_failures_of_strangers_lock_only_their_own_addresses(admins: Admins):
    await admins.create("ada", PASSWORD)
    for number in range(20):
        for _ in range(FREE_FAILURES + 1):
            await reason(admins, "ada", "something wrong", f"192.0.2.{number}")
    assert await admins.sign_in("ada", PASSWORD, address="198.51.100.1")


async def test_a_known_device_is_not_locked_by_strangers_at_its_address(admins: Admins):
    await admins.create("ada", PASSWORD)
    device = admins.devices.issue("ada")
    for number in range(FAILURES_PER_MINUTE + 5):
        await reason(admins, ("ada", f"guess {number}")[number % 2], "something wrong", HERE)
    with pytest.raises(TooManyFailures):
        await admins.sign_in("ada", PASSWORD, address=HERE)
    assert await admins.sign_in("ada", PASSWORD, address=HERE, device=device)


async def test_a_known_device_that_fails_too_often_is_a_stranger(admins: Admins):
    await admins.create("ada", PASSWORD)
    device = admins.devices.issue("ada")
    for _ in range(FREE_FAILURES):
        await reason(admins, "ada", "something wrong", HERE, device)
    assert await admins.sign_in("ada", PASSWORD, address="198.51.100.1", device=device)
    for _ in range(FREE_FAILURES):
        await reason(admins, "ada", "something wrong", HERE, device)
    assert await reason(admins, "ada", PASSWORD, HERE, device) == "locked after failed sign-ins"


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "ü.1.2"])
async def test_a_forged_device_is_unknown(admins: Admins, clock: Clock, token: str):
    issued = admins.devices.issue("ada")
    device, expires, mac = issued.split(".")
    assert admins.devices.find("ada", issued) == device
    assert admins.devices.find("ada", token) is None
    assert admins.devices.find("bob", issued) is None
    assert admins.devices.find("ada", f"{device}.{int(expires) + 1}.{mac}") is None
    clock.time += DEVICE_LIFE
    assert admins.devices.find("ada", issued) is None


async def test_the_queue_of_sign_ins_is_bounded_and_apart_from_known_devices(
    admins: Admins, monkeypatch: pytest.MonkeyPatch
):
    """Send 40 wrong sign-ins from 40 addresses; the right one of a known device does not wait."""
    await admins.create("ada", PASSWORD)
    verify, release = Passwords.verify, anyio.Event()
    passkey = Assertion(RelyingParty("localhost", "http://localhost"), "challenge", "{}")

    async def slow(self: Passwords, password: str, stored: str | None) -> bool:
        if password != PASSWORD:
            await release.wait()
        return await verify(self, password, stored)

    monkeypatch.setattr(Passwords, "verify", slow)
    reasons: list[str] = []

    async def guess(number: int) -> None:
        reasons.append(await reason(admins, "ada", "something wrong", f"192.0.2.{number}"))

    async with anyio.create_task_group() as tasks:
        for number in range(40):
            tasks.start_soon(guess, number)
        with anyio.fail_after(10):
            while len(reasons) < 40 - MOST_WAITING - 1:  # noqa: ASYNC110 - there is no event for it
                await anyio.sleep(0.01)
            device = admins.devices.issue("ada")
            assert await admins.sign_in("ada", PASSWORD, address="192.0.2.1", device=device)
            with pytest.raises(AccessDenied, match="unknown passkey"):  # does not wait either
                await admins.sign_in_passkey(passkey, address="198.51.100.1")
        release.set()
    assert reasons.count("too many sign-ins at once") == 40 - MOST_WAITING - 1
    assert reasons.count("wrong password") == MOST_WAITING + 1
    assert await admins.sign_in("ada", PASSWORD, address="192.0.2.39")  # was not counted


async def test_failures_from_one_address_are_limited_across_names(admins: Admins, clock: Clock):
    await admins.create("ada", PASSWORD)
    for number in range(FAILURES_PER_MINUTE):
        with pytest.raises(AccessDenied, match="unknown administrator"):
            await admins.sign_in(f"guess {number}", PASSWORD, address="2001:db8::1")
    with pytest.raises(TooManyFailures):
        await admins.sign_in("ada", PASSWORD, address="2001:db8::2")
    assert await admins.sign_in("ada", PASSWORD, address="192.0.2.1")
    clock.time += timedelta(minutes=1)
    assert await admins.sign_in("ada", PASSWORD, address="2001:db8::1")


async def test_concurrent_wrong_passwords_lock_the_account(admins: Admins, clock: Clock):
    await admins.create("ada", PASSWORD)
    reasons: list[str] = []

    async def guess(number: int) -> None:
        with pytest.raises(AccessDenied) as denied:
            await admins.sign_in("ada", "something wrong", address=HERE)
        reasons.append(denied.value.reason)

    async with anyio.create_task_group() as tasks:
        for number in range(FREE_FAILURES + 3):
            tasks.start_soon(guess, number)
    assert sorted(reasons) == ["locked after failed sign-ins"] * 3 + ["wrong password"] * (
        FREE_FAILURES
    )


async def test_successful_sign_ins_do_not_count_as_failures(admins: Admins):
    await admins.create("ada", PASSWORD)
    for _ in range(FAILURES_PER_MINUTE + 2):
        assert await admins.sign_in("ada", PASSWORD, address="192.0.2.1")


async def test_concurrent_starts_create_one_first_administrator(store: Store, other_store: Store):
    generated: list[str | None] = []

    async def start(opened: Store) -> None:
        generated.append((await Admins(opened).first("admin"))[1])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(start, store)
        tasks.start_soon(start, other_store)
    [password] = [value for value in generated if value]
    assert (await Admins(store).sign_in("admin", password)).must_change


async def test_a_lock_lasts_at_most_fifteen_minutes(clock: Clock):
    locks = FailureLocks(clock.now)
    for _ in range(50):
        await locks.begin("ada", HERE)
        clock.time += LONGEST_LOCK
    await locks.begin("ada", HERE)
    with pytest.raises(TooManyFailures) as locked:
        await locks.begin("ada", HERE)
    assert locked.value.seconds == LONGEST_LOCK.total_seconds()


async def test_the_number_of_locks_is_limited(clock: Clock):
    locks = FailureLocks(clock.now)
    for number in range(MOST_LOCKS + 50):
        await locks.begin(f"guess {number}", HERE)
    assert len(locks._failures) == MOST_LOCKS


async def test_a_clock_that_is_set_back_makes_no_lock_longer(clock: Clock):
    locks = FailureLocks(clock.now)
    for _ in range(FREE_FAILURES):
        await locks.begin("ada", HERE)
    assert await locks.is_locked("ada", HERE)
    clock.time -= timedelta(days=365)
    assert not await locks.is_locked("ada", HERE)


async def test_a_password_reset_unlocks_and_ends_sessions(admins: Admins, sessions: Sessions):
    admin = await admins.create("ada", PASSWORD)
    token = await sessions.open(admin, address="::1", agent="")
    for _ in range(FREE_FAILURES):
        await reason(admins, "ada", "something wrong")
    password = await admins.reset_password("ada")
    assert (await admins.sign_in("ada", password)).must_change
    assert await sessions.find(token) is None


ENDS = {
    "reset password": lambda access: access.admins.reset_password("ada"),
    "new password": lambda access: _set_password(access),
    "disabled": lambda access: access.admins.set_enabled("ada", enabled=False),
    "all sessions ended": lambda access: _end_sessions(access),
    "first second factor": lambda access: _add_app(access),
    "second factors removed": lambda access: _remove_second_factors(access),
    "removed": lambda access: access.admins.remove("ada"),
}


@pytest.mark.parametrize("end", ENDS)
async def test_a_password_change_that_began_before_sessions_end_is_refused(
    access: Access, end: str
):
    await access.admins.create("bob", PASSWORD)
    ada = await access.admins.create("ada", PASSWORD)
    await ENDS[end](access)
    with pytest.raises(AccountChanged):
        await access.admins.set_password(ada, f"another {PASSWORD}")


@pytest.mark.parametrize("end", ENDS)
async def test_a_change_of_factors_that_began_before_sessions_end_is_refused(
    access: Access, end: str
):
    # an owner who removes the factors after a theft must not lose to the thief's enrolment
    await access.admins.create("bob", PASSWORD)
    ada, factors = await access.admins.create("ada", PASSWORD), access.second_factors
    secret = new_totp_secret()
    await factors.add_totp(ada, "phone", secret, TOTP(secret).now())
    [factor] = await factors.of(ada)
    party, passkey = RelyingParty("localhost", "http://localhost"), NewPasskey("id", "key", 0)
    code = TOTP(secret).now()
    changes = {
        "an app": lambda: factors.add_totp(ada, "thief", secret, code, session_id="x"),
        "a passkey": lambda: factors.add_passkey(ada, "thief", party, passkey, session_id="x"),
        "recovery codes": lambda: factors.new_recovery_codes(ada),
        "a removal": lambda: factors.remove(ada, factor.id),
    }
    await ENDS[end](access)
    before = await factors.of(ada), await factors.recovery_codes_left(ada)
    for name, change in changes.items():
        with pytest.raises(AccountChanged):
            await change()
        assert (await factors.of(ada), await factors.recovery_codes_left(ada)) == before, name


@pytest.mark.parametrize("end", ENDS)
async def test_no_service_token_is_created_by_a_session_that_has_ended(access: Access, end: str):
    await access.admins.create("bob", PASSWORD)
    ada = await access.admins.create("ada", PASSWORD)
    await access.sessions.open(ada, address="::1", agent="")
    [session] = await access.sessions.of(ada)
    await ENDS[end](access)
    new = ServiceTokenFields(name="robot", scopes=["keys:read"])
    with pytest.raises(NotPermitted, match="sign in again"):
        await create_token(replace(_context(access), session_id=session.digest), new)
    assert await access.service_tokens.all() == []


@pytest.mark.parametrize("end", ENDS)
async def test_a_sign_in_that_began_before_sessions_end_opens_none(access: Access, end: str):
    await access.admins.create("bob", PASSWORD)
    ada = await access.admins.create("ada", PASSWORD)
    kept = await access.admins.get("ada")
    await ENDS[end](access)
    with pytest.raises(AccountChanged):
        await access.admins.finish_sign_in(ada)
    with pytest.raises(AccountChanged):
        await access.sessions.open(kept, address="::1", agent="")


async def test_a_password_that_is_verified_while_it_is_reset_opens_no_session(
    admins: Admins, monkeypatch: pytest.MonkeyPatch
):
    await admins.create("ada", PASSWORD)
    verify = admins._passwords.verify

    async def verify_slowly(password: str, stored: str | None) -> bool:
        right = await verify(password, stored)
        await admins.reset_password("ada")
        return right

    monkeypatch.setattr(admins._passwords, "verify", verify_slowly)
    with pytest.raises(AccountChanged):
        await admins.sign_in("ada", PASSWORD)


def _context(access: Access) -> AdminContext:
    """Return a context whose changes are not recorded: the test has no audit."""
    services = SimpleNamespace(access=access)
    context = AdminContext(services, "ada", authority=COMMAND_LINE)
    object.__setattr__(context, "changed", AsyncMock())
    return context


async def _set_password(access: Access) -> None:
    await access.admins.set_password(await access.admins.get("ada"), f"new {PASSWORD}")


async def _end_sessions(access: Access) -> None:
    await administrators.end_sessions(_context(access), "ada")


async def _add_app(access: Access) -> None:
    ada = await access.admins.get("ada")
    factors, secret = access.second_factors, new_totp_secret()
    await factors.add_totp(ada, "phone", secret, TOTP(secret).now(), session_id="another")


async def _remove_second_factors(access: Access) -> None:
    await administrators.remove_second_factors(_context(access), "ada")


async def test_unknown_and_disabled_administrators_are_refused(admins: Admins):
    await admins.create("ada", PASSWORD)
    await admins.create("bob", PASSWORD)
    assert await reason(admins, "eve", PASSWORD) == "unknown administrator"
    await admins.set_enabled("bob", enabled=False)
    assert await reason(admins, "bob", PASSWORD) == "disabled administrator"
    assert await reason(admins, "ada", "x" * 5000) == "wrong password"
    with pytest.raises(UnknownName):
        await admins.remove("eve")


async def test_the_last_administrator_cannot_be_removed_or_disabled(admins: Admins):
    await admins.create("ada", PASSWORD)
    await admins.create("bob", PASSWORD)
    await admins.set_enabled("bob", enabled=False)
    with pytest.raises(BadArgument, match="only owner"):
        await admins.remove("ada")
    with pytest.raises(BadArgument, match="only owner"):
        await admins.set_enabled("ada", enabled=False)
    await admins.remove("bob")
    assert [admin.name for admin in await admins.all()] == ["ada"]


async def test_an_openid_subject_is_one_administrator_without_a_password(admins: Admins):
    ada = await admins.sign_in_external("https://issuer#42", "ada@example.org")
    again = await admins.sign_in_external("https://issuer#42", "renamed@example.org")
    assert (again.id, again.name) == (ada.id, "renamed@example.org")
    await admins.create("bob", PASSWORD)
    with pytest.raises(BadArgument, match="already among"):
        await admins.sign_in_external("https://issuer#42", "BOB")
    await admins.sign_in_external("https://issuer#42", "ada@example.org")
    assert await reason(admins, "ada@example.org", "") == "wrong password"
    await admins.set_enabled("ada@example.org", enabled=False)
    with pytest.raises(AccessDenied, match="disabled"):
        await admins.sign_in_external("https://issuer#42", "ada@example.org")


async def test_names_differ_by_more_than_the_case_of_letters(admins: Admins):
    await admins.sign_in_external("https://issuer 42", "boss@example.org")
    with pytest.raises(BadArgument, match="already among the admins"):
        await admins.sign_in_external("https://issuer 43", "BOSS@EXAMPLE.org")
    with pytest.raises(BadArgument, match="already among the admins"):
        await admins.create("Boss@example.org", PASSWORD)


async def test_an_account_of_an_issuer_gets_no_password(admins: Admins, store: Store):
    ada = await admins.sign_in_external("https://issuer 42", "ada@example.org")
    with pytest.raises(BadArgument, match="OpenID Connect"):
        await admins.reset_password("ada@example.org")
    bob = await admins.create("bob", PASSWORD)
    await store.admins.change(ada.id, password_hash=bob.password_hash)  # left by an old version
    assert await reason(admins, "ada@example.org", PASSWORD) == "wrong password"


ISSUER, EMAIL = "https://issuer", "ada@example.org"


@pytest.mark.parametrize(
    ("external", "valid"),
    [
        (ExternalAdmins(ISSUER, ["ADA@example.org"]), True),
        (ExternalAdmins(ISSUER, ["grace@example.org"]), False),
        (ExternalAdmins("https://issue", [EMAIL]), False),
        (ExternalAdmins(), False),
        (None, False),
    ],
    ids=["listed", "not listed", "another issuer", "not configured", "not given"],
)
async def test_an_external_administrator_ends_with_the_configuration(
    store: Store, external: ExternalAdmins | None, valid: bool
):
    admins, sessions = Admins(store, external), Sessions(store, external)
    admin = await admins.sign_in_external(f"{ISSUER} 42", EMAIL)
    await admins.create("bob", PASSWORD)
    token = await sessions.open(admin, address="::1", agent="")
    assert (await sessions.find(token) is not None) is valid
    if valid:
        await admins.set_enabled("bob", enabled=False)
    else:  # bob is the last one that can sign in
        with pytest.raises(BadArgument, match="only owner"):
            await admins.set_enabled("bob", enabled=False)
        with pytest.raises(BadArgument, match="only owner"):
            await admins.remove("bob")


@pytest.mark.parametrize("change", ["demote", "disable", "remove"])
async def test_two_owners_cannot_take_each_other_in_two_processes(
    store: Store, other_store: Store, change: str
):
    refused = []
    await Admins(store).create("ada", PASSWORD)
    await Admins(store).create("bob", PASSWORD)

    async def take(admins: Admins, name: str) -> None:
        try:
            match change:
                case "demote":
                    await admins.set_role(name, AdminRole.AUDITOR)
                case "disable":
                    await admins.set_enabled(name, enabled=False)
                case _:
                    await admins.remove(name)
        except BadArgument:
            refused.append(name)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(take, Admins(store), "ada")
        tasks.start_soon(take, Admins(other_store), "bob")
    assert len(refused) == 1
    (kept,) = [admin for admin in await store.admins.all() if admin.name in refused]
    assert (kept.role, kept.enabled) == (AdminRole.OWNER, True)


async def test_a_claim_of_the_issuer_gives_a_role(store: Store):
    entries = ["groups:pve-admins=owner", "noc@example.org=auditor", "groups:noc=key-issuer"]
    external = ExternalAdmins(ISSUER, entries)
    admins, sessions = Admins(store, external), Sessions(store, external)
    for email, groups, role in (
        ("ada@example.org", ["pve-admins", "noc"], AdminRole.OWNER),
        ("noc@example.org", ["noc"], AdminRole.AUDITOR),
        ("bob@example.org", ["noc"], AdminRole.KEY_ISSUER),
        ("eve@example.org", "owner", None),
    ):
        claims = {"groups": groups, "email": "groups:pve-admins"}
        admin = await admins.sign_in_external(f"{ISSUER} {email}", email, claims)
        assert admins.role(admin) is role
        session = await sessions.find(await sessions.open(admin, address="::1", agent=""))
        assert (session and session.admin.role) is role
    moved = await admins.sign_in_external(f"{ISSUER} ada@example.org", "ada@example.org", {})
    assert admins.role(moved) is None
    with pytest.raises(BadArgument, match="PVEMCP_OIDC_ADMINS"):
        await admins.set_role("bob@example.org", AdminRole.OWNER)


def test_an_entry_with_an_unknown_role_is_refused():
    with pytest.raises(ConfigError, match="'boss' is no role"):
        ExternalAdmins(ISSUER, ["ada@example.org=boss"])


async def test_an_account_without_a_password_does_not_count_as_one_that_stays(admins: Admins):
    await admins.create("ada", PASSWORD)
    await admins.create("empty", None)
    with pytest.raises(BadArgument, match="only owner"):
        await admins.remove("ada")
    await admins.remove("empty")


async def test_a_token_is_spent_once_for_every_process(
    store: Store, other_store: Store, clock: Clock
):
    expires = clock.time + timedelta(minutes=10)
    assert await store.spent_tokens.spend("state", clock.time, expires)
    for opened in (store, other_store):
        assert not await opened.spent_tokens.spend("state", clock.time, expires)
    assert await other_store.spent_tokens.spend("another", clock.time, expires)
    assert await store.spent_tokens.spend("third", expires, expires)
    assert [spent.expires for spent in await store.spent_tokens.all()] == [expires]


async def test_a_session_is_found_by_its_token_only(
    admins: Admins, sessions: Sessions, store: Store
):
    admin = await admins.create("ada", PASSWORD)
    token = await sessions.open(admin, address="192.0.2.1", agent="Firefox")
    session = await sessions.find(token)
    assert session.admin == admin
    assert await sessions.find(session.id) is None
    assert await sessions.find("") is None
    async with store.database.reading() as connection:
        [row] = (await connection.execute(text("SELECT * FROM sessions"))).mappings()
    assert token not in repr(dict(row))
    assert token not in repr(session)
    await sessions.end(session.id)
    assert await sessions.find(token) is None


async def test_a_session_ends_when_the_clock_is_set_back(
    admins: Admins, sessions: Sessions, clock: Clock
):
    admin = await admins.create("ada", PASSWORD)
    token = await sessions.open(admin, address="", agent="")
    clock.time -= IDLE / 2
    assert await sessions.find(token)
    clock.time -= IDLE
    assert await sessions.find(token) is None


async def test_a_session_written_to_the_database_does_not_sign_in(
    admins: Admins, sessions: Sessions, store: Store, clock: Clock
):
    admin = await admins.create("ada", PASSWORD)
    planted = "A" * 43
    for digest in (planted, sha256(planted.encode()).hexdigest(), sha256(b"").hexdigest()):
        await store.sessions.add(
            digest=digest,
            admin_id=admin.id,
            address="",
            agent="",
            created=clock.time,
            last_seen=clock.time,
            expires=clock.time + ABSOLUTE,
            verified_at=clock.time,
        )
        assert await sessions.find(planted) is None
        assert await sessions.find("") is None


async def test_the_csrf_token_belongs_to_one_session(admins: Admins, sessions: Sessions):
    admin = await admins.create("ada", PASSWORD)
    one, other = [
        await sessions.find(await sessions.open(admin, address="::1", agent="")) for _ in range(2)
    ]
    one.check_csrf(one.csrf)
    for wrong in (other.csrf, "", "ü"):
        with pytest.raises(AccessDenied, match="CSRF"):
            one.check_csrf(wrong)


async def test_a_session_ends_when_idle_and_after_its_maximum(
    admins: Admins, sessions: Sessions, clock: Clock
):
    admin = await admins.create("ada", PASSWORD)
    idle = await sessions.open(admin, address="::1", agent="")
    busy = await sessions.open(admin, address="::1", agent="")
    clock.time += IDLE - SEEN_EVERY
    assert await sessions.find(busy)
    clock.time += SEEN_EVERY
    assert await sessions.find(idle) is None
    for _ in range(int(ABSOLUTE / IDLE) * 2 - 3):
        clock.time += IDLE / 2
        assert await sessions.find(busy)
    clock.time += IDLE / 2
    assert await sessions.find(busy) is None
    await sessions.remove_expired()
    assert await sessions.of(admin) == []


async def test_a_disabled_administrator_is_signed_out_at_once(admins: Admins, sessions: Sessions):
    await admins.create("ada", PASSWORD)
    bob = await admins.create("bob", PASSWORD)
    token = await sessions.open(bob, address="::1", agent="")
    await admins.set_enabled("bob", enabled=False)
    assert await sessions.find(token) is None


async def test_active_sessions_can_be_listed_and_ended(access: Access):
    ada = await access.admins.create("ada", PASSWORD)
    token = await access.sessions.open(ada, address="192.0.2.1", agent="Firefox")
    await access.sessions.open(ada, address="192.0.2.2", agent="Chromium")
    assert {session.agent for session in await access.sessions.of(ada)} == {"Firefox", "Chromium"}
    await access.sessions.end((await access.sessions.find(token)).id)
    assert [session.agent for session in await access.sessions.of(ada)] == ["Chromium"]


async def test_all_other_sessions_of_one_administrator_end(access: Access):
    ada = await access.admins.create("ada", PASSWORD)
    bob = await access.admins.create("bob", PASSWORD)
    mine, other, bobs = [
        await access.sessions.open(admin, address="::1", agent="") for admin in (ada, ada, bob)
    ]
    kept = await access.sessions.find(mine)
    assert await access.sessions.end_others(ada, kept.id) == 1
    assert await access.sessions.find(other) is None
    assert (await access.sessions.find(mine)).id == kept.id
    assert await access.sessions.find(bobs)
    assert await access.sessions.end_others(ada) == 1
    assert await access.sessions.find(mine) is None


async def test_concurrent_failures_are_all_counted(admins: Admins, store: Store):
    admin = await admins.create("ada", PASSWORD)
    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(store.admins.count_failures, admin.id, 1)
    assert (await admins.get("ada")).failures == 8
