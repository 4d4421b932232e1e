"""Authentication by key, and how soon a change applies in every process."""

from datetime import UTC, datetime, timedelta

import pytest
from tests.server.clock import Clock

from pvemcp_server.access import Access, Grant, Resources, open_access
from pvemcp_server.access.authentication import KeyAuthenticator
from pvemcp_server.errors import AccessDenied, StateUnavailable
from pvemcp_server.store import Store
from pvemcp_server.store.database import DatabaseFailed
from pvemcp_server.store.key_format import new_secret
from pvemcp_server.store.watch import POLL_SECONDS

pytestmark = pytest.mark.anyio

HERE = "192.0.2.7"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authenticator(store: Store, access: Access, clock: Clock) -> KeyAuthenticator:
    """Create the authenticator of one process with a test clock; `access` adds the roles."""
    store.watch._clock = clock.monotonic
    return KeyAuthenticator(store, clock=clock.now)


@pytest.fixture
def other_authenticator(other_store: Store, clock: Clock) -> KeyAuthenticator:
    """Create the authenticator of another process."""
    other_store.watch._clock = clock.monotonic
    return KeyAuthenticator(other_store, clock=clock.now)


async def reason(authenticator: KeyAuthenticator, secret: str, address: str = HERE) -> str:
    with pytest.raises(AccessDenied) as denied:
        await authenticator.authenticate(secret, address)
    return denied.value.reason


async def test_a_valid_key_returns_its_caller(authenticator: KeyAuthenticator, access: Access):
    key, secret = await access.keys.create(
        "laptop",
        role="Operator",
        clusters=["lab"],
        tools=["ListVms"],
        toolsets=["api"],
        output_format="Toon",
    )
    caller = await authenticator.authenticate(secret, HERE)
    assert (caller.key_id, caller.key_name, caller.role.name) == (key.id, "laptop", "Operator")
    assert (caller.clusters, caller.tools, caller.toolsets) == ({"lab"}, {"ListVms"}, {"api"})
    assert (caller.output_format, caller.address) == ("Toon", HERE)


async def test_a_key_without_a_role_is_read_only(authenticator: KeyAuthenticator, access: Access):
    _, secret = await access.keys.create("laptop")
    assert (await authenticator.authenticate(secret, HERE)).role.name == "Read-only"


async def test_an_invalid_key_is_refused_with_a_reason(
    authenticator: KeyAuthenticator, access: Access
):
    key, secret = await access.keys.create("laptop")
    assert await reason(authenticator, "") == "no key"
    assert await reason(authenticator, secret[:-1]) == "malformed key"
    assert await reason(authenticator, new_secret("unknown1")) == "unknown key"
    assert await reason(authenticator, new_secret(key.id)) == "wrong secret"
    await authenticator.authenticate(secret, HERE)
    assert await reason(authenticator, new_secret(key.id)) == "wrong secret"
    assert await reason(authenticator, secret[:-1]) == "wrong secret"


async def test_a_refusal_never_contains_the_secret(authenticator: KeyAuthenticator, access: Access):
    key, _ = await access.keys.create("laptop")
    forged = new_secret(key.id)
    with pytest.raises(AccessDenied) as denied:
        await authenticator.authenticate(forged, HERE)
    assert forged not in f"{denied.value!r} {denied.value}"
    assert denied.value.key_id == key.id


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"enabled": False}, "disabled key"),
        ({"expires": datetime(2026, 1, 1, tzinfo=UTC)}, "expired key"),
        ({"allow_from": ["198.51.100.0/24"]}, "address not allowed"),
    ],
    ids=["disabled", "expired", "moved"],
)
async def test_a_change_applies_in_every_process_within_one_poll(
    authenticator: KeyAuthenticator,
    other_authenticator: KeyAuthenticator,
    access: Access,
    clock: Clock,
    change,
    expected,
):
    key, secret = await access.keys.create("laptop")
    for each in (authenticator, other_authenticator):
        clock.time += timedelta(seconds=POLL_SECONDS)
        await each.authenticate(secret, HERE)
    await access.keys.change(key.id, **change)
    clock.time += timedelta(seconds=POLL_SECONDS)
    for each in (authenticator, other_authenticator):
        assert await reason(each, secret) == expected


async def test_a_removed_or_regenerated_key_is_refused_in_every_process(
    authenticator: KeyAuthenticator,
    other_authenticator: KeyAuthenticator,
    access: Access,
    clock: Clock,
):
    removed, first = await access.keys.create("removed")
    again, old = await access.keys.create("again")
    for each in (authenticator, other_authenticator):
        await each.authenticate(first, HERE)
        await each.authenticate(old, HERE)
    await access.keys.remove(removed.id)
    renewed, new = await access.keys.regenerate(again.id)
    clock.time += timedelta(seconds=POLL_SECONDS)
    for each in (authenticator, other_authenticator):
        assert await reason(each, first) == "unknown key"
        assert await reason(each, old) == "wrong secret"
        assert (await each.authenticate(new, HERE)).key_id == again.id
    assert (renewed.name, renewed.created) == (again.name, again.created)


async def test_a_changed_role_applies_to_cached_callers(
    authenticator: KeyAuthenticator,
    other_authenticator: KeyAuthenticator,
    access: Access,
    clock: Clock,
):
    await access.roles.create("night shift", [Grant(frozenset({"ListVms", "BackupVm"}))])
    _, secret = await access.keys.create("laptop", role="night shift")
    before = [
        await each.authenticate(secret, HERE) for each in (authenticator, other_authenticator)
    ]
    assert before[0].version == before[1].version
    narrowed = Grant(frozenset({"ListVms"}), resources=Resources(pools=frozenset({"web"})))
    await access.roles.change("night shift", grants=[narrowed])
    clock.time += timedelta(seconds=POLL_SECONDS)
    after = [await each.authenticate(secret, HERE) for each in (authenticator, other_authenticator)]
    assert [caller.role.grants for caller in after] == [(narrowed,)] * 2
    assert after[0].version == after[1].version != before[0].version


async def test_a_key_read_before_a_change_is_not_cached_after_it(
    authenticator: KeyAuthenticator, access: Access, store: Store, monkeypatch: pytest.MonkeyPatch
):
    key, secret = await access.keys.create("laptop")
    await store.watch.poll()
    of_caller = store.bindings.of_caller

    async def of_caller_and_then_disable(key_id: str, role_id: int) -> dict[str, int]:
        identities = await of_caller(key_id, role_id)
        monkeypatch.setattr(store.bindings, "of_caller", of_caller)
        await access.keys.change(key.id, enabled=False)
        await store.watch.poll()
        return identities

    monkeypatch.setattr(store.bindings, "of_caller", of_caller_and_then_disable)
    await authenticator.authenticate(secret, HERE)
    assert await reason(authenticator, secret) == "disabled key"


async def test_a_cached_key_expires(authenticator: KeyAuthenticator, access: Access, clock: Clock):
    _, secret = await access.keys.create("laptop", expires=clock.now() + timedelta(seconds=60))
    await authenticator.authenticate(secret, HERE)
    clock.time += timedelta(seconds=60)
    assert await reason(authenticator, secret) == "expired key"


@pytest.mark.parametrize(
    ("allowed", "address", "is_in"),
    [
        ("192.0.2.0/24", "192.0.2.9", True),
        ("192.0.2.0/24", "192.0.3.9", False),
        ("192.0.2.9", "192.0.2.9", True),
        ("2001:db8::/32", "2001:db8:1::5", True),
        ("2001:db8::/32", "2001:db9::5", False),
        ("192.0.2.0/24", "::ffff:192.0.2.9", True),
        ("192.0.2.0/24", "2001:db8::5", False),
        ("::/0", "192.0.2.9", False),
        ("0.0.0.0/0", "unix", False),
    ],
)
async def test_the_allow_list_accepts_ipv4_and_ipv6_networks(
    authenticator: KeyAuthenticator, access: Access, allowed: str, address: str, is_in: bool
):
    _, secret = await access.keys.create("laptop", allow_from=[allowed])
    if is_in:
        assert (await authenticator.authenticate(secret, address)).address == address
    else:
        assert await reason(authenticator, secret, address) == "address not allowed"


@pytest.mark.parametrize("cached", [True, False])
async def test_a_valid_key_does_not_depend_on_the_failures_of_others(
    authenticator: KeyAuthenticator, access: Access, cached: bool
):
    key, secret = await access.keys.create("laptop")
    if cached:
        await authenticator.authenticate(secret, HERE)
    for number in range(100):
        await reason(authenticator, new_secret(f"{number:08}"))
        await reason(authenticator, new_secret(key.id))
        await reason(authenticator, "")
    if not cached:
        await authenticator._clear()
    assert (await authenticator.authenticate(secret, HERE)).key_id == key.id


async def test_refused_keys_become_one_notice_with_a_count(
    authenticator: KeyAuthenticator, access: Access, store: Store
):
    key, _ = await access.keys.create("laptop")
    for _ in range(3):
        await reason(authenticator, new_secret(key.id))
    assert await store.notices.open() == []
    await authenticator.flush()
    [notice] = await store.notices.open()
    assert (notice.kind, notice.count) == ("key-refused", 3)
    assert notice.subject == "wrong secret"
    assert HERE in notice.message
    await store.notices.dismiss(notice.id)
    assert await store.notices.open() == []


async def test_a_request_without_a_key_creates_no_notice(
    authenticator: KeyAuthenticator, store: Store
):
    assert await reason(authenticator, "") == "no key"
    await authenticator.flush()
    assert await store.notices.open() == []


async def test_the_last_use_of_a_key_is_stored_by_a_flush(
    authenticator: KeyAuthenticator, access: Access, clock: Clock
):
    key, secret = await access.keys.create("laptop")
    await authenticator.authenticate(secret, HERE)
    assert (await access.keys.get(key.id)).last_used is None
    await authenticator.flush()
    used = await access.keys.get(key.id)
    assert (used.last_used, used.last_address) == (clock.now(), HERE)


async def test_closing_stores_the_last_uses(store: Store):
    async with open_access(store) as access:
        key, secret = await access.keys.create("laptop")
        await access.authenticator.authenticate(secret, HERE)
    assert (await store.keys.find(id=key.id)).last_address == HERE


async def test_every_key_is_refused_while_the_database_does_not_answer(
    authenticator: KeyAuthenticator,
    access: Access,
    store: Store,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
):
    _, secret = await access.keys.create("laptop")
    await authenticator.authenticate(secret, HERE)

    def unreachable():
        raise ConnectionError("connection refused")

    monkeypatch.setattr(store.database, "reading", unreachable)
    clock.time += timedelta(seconds=POLL_SECONDS)
    with pytest.raises(StateUnavailable):
        await authenticator.authenticate(secret, HERE)


async def test_a_key_that_cannot_be_read_since_the_poll_is_refused_as_unavailable(
    authenticator: KeyAuthenticator, access: Access, store: Store, monkeypatch: pytest.MonkeyPatch
):
    _, secret = await access.keys.create("laptop")
    await store.watch.poll()

    def failed():
        raise DatabaseFailed("the connection was closed")

    monkeypatch.setattr(store.database, "reading", failed)
    with pytest.raises(StateUnavailable):
        await authenticator.authenticate(secret, HERE)


async def test_a_preview_shows_the_caller_without_its_secret(
    authenticator: KeyAuthenticator, access: Access
):
    key, secret = await access.keys.create("laptop", role="Operator")
    assert await authenticator.caller(key.id, HERE) == await authenticator.authenticate(
        secret, HERE
    )
