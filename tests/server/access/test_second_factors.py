"""Second factors: codes and recovery codes count once, and wrong ones count as wrong passwords."""

import json
from contextlib import suppress
from datetime import timedelta

import anyio
import pytest
from pyotp import TOTP
from sqlalchemy import text, update
from tests.server.clock import Clock

from pvemcp_server.access import sign_in_limits
from pvemcp_server.access.admins import FAILURES_PER_MINUTE, Admins
from pvemcp_server.access.external import ExternalAdmins
from pvemcp_server.access.passkeys import (
    Assertion,
    RelyingParty,
    verify_assertion,
    verify_creation,
)
from pvemcp_server.access.sealed_state import SealedStates
from pvemcp_server.access.second_factors import (
    MOST_FACTORS,
    RECOVERY_CODES,
    Code,
    SecondFactors,
    new_totp_secret,
)
from pvemcp_server.access.sessions import Sessions
from pvemcp_server.access.sign_in_limits import FIRST_LOCK, FREE_FAILURES
from pvemcp_server.errors import (
    AccessDenied,
    AccountChanged,
    BadArgument,
    SecondFactorNeeded,
    TooManyFailures,
)
from pvemcp_server.store import Store, records
from pvemcp_server.store.records import AdminRecord, FactorKind

pytestmark = pytest.mark.anyio

PASSWORD = "correct horse battery"
HERE = "192.0.2.200"
MINUTE = timedelta(minutes=1)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def factors(store: Store, clock: Clock) -> SecondFactors:
    return SecondFactors(store, clock=clock.now)


@pytest.fixture
def admins(store: Store, clock: Clock, factors: SecondFactors) -> Admins:
    monotonic = lambda: clock.time.timestamp()  # noqa: E731 - the time moves
    return Admins(store, None, factors, clock=clock.now, monotonic=monotonic)


@pytest.fixture
async def ada(admins: Admins) -> AdminRecord:
    return await admins.create("ada", PASSWORD, must_change=False)


@pytest.fixture
async def app(ada: AdminRecord, factors: SecondFactors, clock: Clock) -> TOTP:
    """Give ada an authenticator app, and return it."""
    return await enrolled(factors, ada, clock)


async def enrolled(factors: SecondFactors, admin: AdminRecord, clock: Clock) -> TOTP:
    totp = TOTP(new_totp_secret())
    await factors.add_totp(admin, "phone", totp.secret, totp.at(clock.time))
    clock.time += MINUTE
    return totp


async def refused(factors: SecondFactors, admin: AdminRecord, code: str) -> bool:
    try:
        await factors.verify(admin, Code(code))
    except AccessDenied:
        return True
    return False


async def test_a_code_counts_once_in_every_process(
    store: Store,
    other_store: Store,
    factors: SecondFactors,
    ada: AdminRecord,
    app: TOTP,
    clock: Clock,
):
    accepted: list[str] = []

    async def use(opened: Store) -> None:
        code = Code(app.at(clock.time))
        with suppress(AccessDenied):
            accepted.append(await SecondFactors(opened, clock=clock.now).verify(ada, code))

    async with anyio.create_task_group() as tasks:
        for opened in (store, other_store, store, other_store):
            tasks.start_soon(use, opened)
    assert accepted == ["totp"]


async def test_an_earlier_code_is_refused_after_a_later_one(
    factors: SecondFactors, ada: AdminRecord, app: TOTP, clock: Clock
):
    later = app.at(clock.time + timedelta(seconds=30))
    assert await factors.verify(ada, Code(f"{later[:3]} {later[3:]}")) == "totp"
    assert await refused(factors, ada, app.at(clock.time))


async def test_the_code_of_the_enrolment_does_not_sign_in(
    factors: SecondFactors, ada: AdminRecord, app: TOTP, clock: Clock
):
    assert await refused(factors, ada, app.at(clock.time - MINUTE))
    clock.time -= MINUTE
    assert await refused(factors, ada, app.at(clock.time))


@pytest.mark.parametrize(("steps", "accepted"), [(-2, False), (-1, True), (1, True), (2, False)])
async def test_a_clock_may_be_wrong_by_one_step(
    factors: SecondFactors, ada: AdminRecord, app: TOTP, clock: Clock, steps: int, accepted: bool
):
    clock.time += MINUTE
    code = app.at(clock.time + steps * timedelta(seconds=30))
    assert await refused(factors, ada, code) is not accepted


async def test_an_app_is_added_only_with_its_right_code(
    factors: SecondFactors, ada: AdminRecord, clock: Clock
):
    with pytest.raises(BadArgument, match="present code"):
        await factors.add_totp(ada, "phone", new_totp_secret(), "000000x")
    assert await factors.of(ada) == []


async def test_a_recovery_code_is_used_once_by_its_owner_only(
    store: Store, other_store: Store, admins: Admins, ada: AdminRecord, factors: SecondFactors
):
    first, second, *rest = await factors.new_recovery_codes(ada)
    assert len(rest) == RECOVERY_CODES - 2
    bob = await admins.create("bob", PASSWORD)
    assert await refused(factors, bob, first)
    assert await SecondFactors(other_store).verify(ada, Code(first)) == "recovery code"
    assert await refused(factors, ada, first)
    assert await factors.verify(ada, Code(second.upper().replace("-", " "))) == "recovery code"
    assert await factors.recovery_codes_left(ada) == len(rest)
    async with store.database.reading() as connection:
        rows = (await connection.execute(text("SELECT * FROM recovery_codes"))).all()
    assert not [code for code in rest if code in repr(rows) or code.replace("-", "") in repr(rows)]
    await factors.new_recovery_codes(ada)
    assert await refused(factors, ada, rest[0])


async def test_the_last_factor_takes_the_recovery_codes_with_it(
    factors: SecondFactors, ada: AdminRecord, app: TOTP, clock: Clock
):
    await enrolled(factors, ada, clock)
    code, *_ = await factors.new_recovery_codes(ada)
    one, other = await factors.of(ada)
    await factors.remove(ada, one.id)
    assert await factors.recovery_codes_left(ada) == RECOVERY_CODES
    await factors.remove(ada, other.id)
    assert await refused(factors, ada, code)


async def test_no_order_of_removals_leaves_recovery_codes(
    factors: SecondFactors, other_store: Store, ada: AdminRecord, app: TOTP, clock: Clock
):
    await enrolled(factors, ada, clock)
    await factors.new_recovery_codes(ada)
    first, second = await factors.of(ada)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(factors.remove, ada, first.id)
        tasks.start_soon(SecondFactors(other_store).remove, ada, second.id)
    assert (await factors.of(ada), await factors.recovery_codes_left(ada)) == ([], 0)


async def test_the_number_of_factors_is_limited(
    factors: SecondFactors, ada: AdminRecord, clock: Clock
):
    for _ in range(MOST_FACTORS):
        await enrolled(factors, ada, clock)
    with pytest.raises(BadArgument, match="remove one"):
        await enrolled(factors, ada, clock)


async def test_the_password_alone_signs_in_only_without_second_factors(
    admins: Admins, ada: AdminRecord, factors: SecondFactors, clock: Clock
):
    assert await admins.sign_in("ada", PASSWORD)
    totp = await enrolled(factors, ada, clock)
    with pytest.raises(SecondFactorNeeded) as needed:
        await admins.sign_in("ada", PASSWORD)
    assert needed.value.admin_id == ada.id
    present = await admins.get("ada")
    assert await admins.check_second_factor(present, Code(totp.at(clock.time))) == "totp"
    assert await admins.finish_sign_in(present)


async def test_a_right_password_forgets_no_wrong_codes(
    admins: Admins, ada: AdminRecord, app: TOTP, store: Store
):
    """Guess codes with the password before each: the guesses are counted as if there were none."""
    reasons = []
    for _ in range(FREE_FAILURES + 1):
        with pytest.raises(SecondFactorNeeded):
            await admins.sign_in("ada", PASSWORD, address=HERE)
        with pytest.raises(AccessDenied) as denied:
            await admins.check_second_factor(ada, Code("000001"), address=HERE)
        reasons.append(denied.value.reason)
    assert reasons == ["wrong second factor"] * FREE_FAILURES + ["locked after failed sign-ins"]
    await admins.flush()
    [notice] = await store.notices.open()
    assert (notice.kind, notice.subject) == ("sign-in-failed", "ada")


async def test_wrong_codes_of_unknown_browsers_are_counted_together(
    admins: Admins, ada: AdminRecord, app: TOTP, clock: Clock
):
    device = admins.devices.issue("ada")
    for number in range(FREE_FAILURES):
        with pytest.raises(AccessDenied, match="wrong second factor"):
            await admins.check_second_factor(ada, Code("000 001"), address=f"192.0.2.{number}")
    right = Code(app.at(clock.time))
    with pytest.raises(TooManyFailures):
        await admins.check_second_factor(ada, right, address="198.51.100.1")
    assert await admins.check_second_factor(ada, right, address="198.51.100.1", device=device)
    clock.time += FIRST_LOCK
    assert await admins.check_second_factor(ada, Code(app.at(clock.time)), address="198.51.100.1")


async def test_wrong_codes_of_strangers_lock_no_recovery_code_and_no_passkey(
    admins: Admins, factors: SecondFactors, ada: AdminRecord, app: TOTP
):
    recovery, *_ = await factors.new_recovery_codes(ada)
    for number in range(FREE_FAILURES):
        with pytest.raises(AccessDenied):
            await admins.check_second_factor(ada, Code("000001"), address=f"192.0.2.{number}")
    with pytest.raises(TooManyFailures):
        await admins.check_second_factor(ada, Code("000001"), address="198.51.100.1")
    assertion = Assertion(RelyingParty("localhost", "http://localhost"), "challenge", "{}")
    with pytest.raises(AccessDenied, match="wrong passkey"):
        await admins.check_second_factor(ada, assertion, address="198.51.100.1")
    assert await admins.check_second_factor(ada, Code(recovery), address="198.51.100.1")


async def test_strangers_without_the_password_end_no_lock_of_codes(
    admins: Admins, ada: AdminRecord, app: TOTP, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sign_in_limits, "MOST_LOCKS", 10)
    for number in range(FREE_FAILURES):
        with pytest.raises(AccessDenied):
            await admins.check_second_factor(ada, Code("000001"), address=f"192.0.2.{number}")
    for number in range(20):
        with pytest.raises(AccessDenied):
            await admins.sign_in(f"guess {number}", PASSWORD, address=f"203.0.113.{number}")
    with pytest.raises(TooManyFailures, match="locked"):
        await admins.check_second_factor(ada, Code("000001"), address="198.51.100.1")


async def test_wrong_codes_take_from_the_limit_of_their_address(
    admins: Admins, ada: AdminRecord, app: TOTP
):
    for number in range(FAILURES_PER_MINUTE):
        with pytest.raises(AccessDenied):
            await admins.check_second_factor(ada, Code(str(number)), address=HERE)
    with pytest.raises(TooManyFailures, match="from this address"):
        await admins.sign_in("another", PASSWORD, address=HERE)


async def test_passkeys_of_strangers_do_not_wait_in_the_queue_of_known_devices(admins: Admins):
    assertion = Assertion(RelyingParty("localhost", "http://localhost"), "challenge", "{}")
    async with admins._known_queue.turn("another"):
        with anyio.fail_after(10), pytest.raises(AccessDenied, match="unknown passkey"):
            await admins.sign_in_passkey(assertion, address=HERE)


@pytest.mark.parametrize("change", ["password", "disabled", "removed", "local sign-in off"])
async def test_a_pending_sign_in_ends_with_a_change_of_the_account(
    store: Store, ada: AdminRecord, change: str
):
    external = ExternalAdmins("https://issuer", ["grace@example.org"])
    admins = Admins(store, external)
    await admins.create("bob", PASSWORD)
    assert await admins.pending(ada.id, ada.generation)
    match change:
        case "password":
            await admins.reset_password("ada")
        case "disabled":
            await admins.set_enabled("ada", enabled=False)
        case "removed":
            await admins.remove("ada")
        case _:
            external.follow(lambda: False)
    with pytest.raises(AccessDenied):
        await admins.pending(ada.id, ada.generation)


async def test_factors_written_to_the_database_do_not_sign_in(
    store: Store, admins: Admins, factors: SecondFactors, ada: AdminRecord, app: TOTP, clock: Clock
):
    """Move bob's factor to ada, as one who can write to the database would."""
    bob = await admins.create("bob", PASSWORD)
    his = await enrolled(factors, bob, clock)
    table = records.second_factors
    [row] = await factors.of(bob)
    async with store.database.writing() as connection:
        await connection.execute(update(table).where(table.c.id == row.id).values(admin_id=ada.id))
    assert await refused(factors, ada, his.at(clock.time))
    party = RelyingParty("localhost", "http://localhost")
    planted = {"kind": FactorKind.PASSKEY, "credential": "AAAA", "site": party.id}
    async with store.database.writing() as connection:
        await connection.execute(update(table).where(table.c.id == row.id).values(**planted))
    with pytest.raises(AccessDenied, match="changed in the database"):
        await admins.sign_in_passkey(Assertion(party, "challenge", '{"id": "AAAA"}'))


async def test_a_rotation_encrypts_the_secrets_of_apps_again(
    store: Store, factors: SecondFactors, ada: AdminRecord, app: TOTP, clock: Clock
):
    async def encrypted() -> bytes:
        async with store.database.reading() as connection:
            return (await connection.execute(text("SELECT secret FROM second_factors"))).scalar()

    before = await encrypted()
    assert app.secret.encode() not in before
    assert await store.vault.rotate() == 1
    assert (await encrypted())[:4] != before[:4]
    assert await factors.verify(ada, Code(app.at(clock.time))) == "totp"


async def test_recovery_codes_stay_valid_over_a_rotation(
    store: Store, other_store: Store, ada: AdminRecord, factors: SecondFactors
):
    first, second, *_ = await factors.new_recovery_codes(ada)
    await store.vault.rotate()
    assert await factors.verify(ada, Code(first)) == "recovery code"
    assert await SecondFactors(other_store).verify(ada, Code(second)) == "recovery code"


async def test_a_sealed_state_is_valid_for_its_purpose_place_and_time(store: Store, clock: Clock):
    states = SealedStates(store, clock.now)
    sealed = states.seal("sign-in", MINUTE, bound="here", admin=1)
    assert (await states.open("sign-in", sealed, bound="here")).values == {"admin": 1}
    forged = ["", "x", "ü", "A" * 5000, sealed[:-4], sealed[:9] + "AAAA" + sealed[13:]]
    wrong = [("enrolment", sealed, "here"), ("sign-in", sealed, "there")]
    for purpose, given, bound in [*wrong, *(("sign-in", each, "here") for each in forged)]:
        with pytest.raises(AccessDenied):
            await states.open(purpose, given, bound=bound)
    clock.time += MINUTE
    with pytest.raises(AccessDenied, match="too long"):
        await states.open("sign-in", sealed, bound="here")
    clock.time -= timedelta(hours=1)  # set back: its minute is no longer for that
    with pytest.raises(AccessDenied, match="too long"):
        await states.open("sign-in", sealed, bound="here")


async def test_a_sealed_state_is_used_once_in_every_process(store: Store, other_store: Store):
    states, others = SealedStates(store), SealedStates(other_store)
    sealed = states.seal("sign-in", MINUTE)
    await others.spend(await others.open("sign-in", sealed))
    with pytest.raises(AccessDenied, match="before"):
        await states.spend(await states.open("sign-in", sealed))


NAMED = {"id": "AAAA", "rawId": "AAAA", "type": "public-key"}
SHORT = {"clientDataJSON": "A", "authenticatorData": "A", "signature": "A", "userHandle": "A"}
EMPTY = {"clientDataJSON": "e30", "authenticatorData": "AA", "signature": "AA"}
MALFORMED = [
    *("", "x", "[]", "1", '{"id": 1}', "[" * 30_000, "{" + '"a":{' * 6_000, "ü" * 40_000),
    json.dumps({**NAMED, "response": {}}),
    json.dumps({**NAMED, "response": {**SHORT, "attestationObject": "A"}}),
    json.dumps({**NAMED, "response": {**EMPTY, "attestationObject": "oA"}}),
]


@pytest.mark.parametrize("answer", MALFORMED, ids=range(len(MALFORMED)))
def test_a_malformed_answer_of_a_browser_is_a_wrong_passkey(answer: str):
    party = RelyingParty("localhost", "http://localhost")
    assertion = Assertion(party, "challenge", answer)
    assert assertion.credential in ("", "1", "AAAA")
    with pytest.raises(AccessDenied, match="wrong passkey"):
        verify_assertion(assertion, "AAAA", 0, alone=True)
    with pytest.raises(AccessDenied, match="wrong passkey"):
        verify_creation(party, "challenge", answer)


ISSUER, EMAIL = "https://issuer", "grace@example.org"


async def test_local_sign_in_stays_until_an_administrator_came_by_the_issuer(
    store: Store, ada: AdminRecord
):
    with pytest.raises(BadArgument, match="not configured"):
        await Admins(store).check_external_sign_in()
    admins = Admins(store, ExternalAdmins(ISSUER, [EMAIL]))
    with pytest.raises(BadArgument, match="no owner has signed in"):
        await admins.check_external_sign_in()
    await admins.sign_in_external(f"{ISSUER} 1", EMAIL)
    await admins.check_external_sign_in()
    elsewhere = Admins(store, ExternalAdmins("https://another", [EMAIL]))
    with pytest.raises(BadArgument, match="no owner has signed in"):
        await elsewhere.check_external_sign_in()


async def test_without_local_sign_in_only_accounts_of_the_issuer_count(
    store: Store, ada: AdminRecord
):
    external = ExternalAdmins(ISSUER, [EMAIL])
    admins, sessions = Admins(store, external), Sessions(store, external)
    grace = await admins.sign_in_external(f"{ISSUER} 1", EMAIL)
    tokens = [await sessions.open(admin, address="::1", agent="") for admin in (ada, grace)]
    external.follow(lambda: False)
    assert [await sessions.find(token) is not None for token in tokens] == [False, True]
    assert [len(await sessions.of(admin)) for admin in (ada, grace)] == [0, 1]
    with pytest.raises(AccessDenied, match="switched off"):
        await admins.sign_in("ada", PASSWORD)
    with pytest.raises(BadArgument, match="only owner"):
        await admins.set_enabled(EMAIL, enabled=False)
    gone = ExternalAdmins()
    gone.follow(lambda: False)  # without an issuer the setting does not count
    assert await Admins(store, gone).sign_in("ada", PASSWORD)


async def test_no_enrolment_in_progress_survives_the_removal_of_all_factors(
    other_store: Store, factors: SecondFactors, ada: AdminRecord, clock: Clock
):
    app = await enrolled(factors, ada, clock)
    code, owner = app.at(clock.time), SecondFactors(other_store, clock=clock.now)
    outcomes = []

    async def finish() -> None:
        try:
            await factors.add_totp(ada, "thief", app.secret, code)
            outcomes.append("added")
        except AccountChanged:
            outcomes.append("refused")

    async with anyio.create_task_group() as tasks:  # in whichever order they come
        tasks.start_soon(finish)
        tasks.start_soon(owner.remove_all, ada)
        tasks.start_soon(finish)
    assert len(outcomes) == 2
    assert await factors.of(ada) == []
    assert await factors.recovery_codes_left(ada) == 0
