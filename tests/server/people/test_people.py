"""Sign-in of users with Proxmox accounts, and the tokens that their connections get."""

import asyncio
import re
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest

from proxmox_client import Client, Ticket, Unauthenticated
from proxmox_client.api.sign_in import SignIn as SignInCalls
from proxmox_client.emulator.auth import totp
from proxmox_client.emulator.state.user_config import AclEntry, Group, Token
from pvemcp_server.access.budgets import DestructiveBudgets
from pvemcp_server.access.model import ANY, READS
from pvemcp_server.audit import Audit
from pvemcp_server.clusters.connections import Connection
from pvemcp_server.errors import (
    AccessDenied,
    BadArgument,
    CallError,
    OAuthError,
    OverBudget,
    TooManyFailures,
)
from pvemcp_server.oauth import connections
from pvemcp_server.oauth.connections import MOST_OF_CLIENT, Choice, ClientName, Connections
from pvemcp_server.oauth.people import (
    AT_ONCE,
    FAILURES_PER_MINUTE,
    Origin,
    People,
    administrator,
)
from pvemcp_server.oauth.person import SESSION_LIFE, Account, Person, Place, SignIn
from pvemcp_server.oauth.rules import end_disallowed, role_choices
from pvemcp_server.oauth.scopes import Scope
from pvemcp_server.oauth.tokens import Tokens, challenge_of
from pvemcp_server.settings import Values
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.records import AdminRole, PersonKind
from pvemcp_server.tables.history import HistoryRecorder

from .conftest import PASSWORD, TOTP_SECRET

pytestmark = pytest.mark.anyio
HERE = Origin("192.0.2.1")
PERSON = Person("admin:1", "ada", utc_now())
CLIENT = ClientName("https://claude.example/client.json", "Claude", "Claude (claude.example)")


async def sign_in(server, user: str, realm: str = "pve", cluster: str = "prod", **options):
    """Sign in with the right password, as far as that goes."""
    choice = (await server.people.realms()).get(f"{cluster}/{realm}")
    password = options.get("password", PASSWORD)
    origin, to = options.get("origin", HERE), options.get("to", SignIn())
    return await server.people.sign_in(choice, user, password, origin, to)


async def choice(server, role: str = "Read-only", **values) -> Choice:
    """Return a consent for a day."""
    record = await server.store.roles.find(name=role)
    roles = await role_choices(server.store, PERSON, admin_role=AdminRole.OWNER)
    chosen = next((each.role for each in roles if each.role.name == record.name), roles[0].role)
    return Choice(chosen, ("pve:read",), utc_now() + timedelta(days=1), **values)


def tokens_of(users, cluster: str, userid: str) -> list[str]:
    return sorted(users[cluster].users[userid].tokens)


async def test_realms_are_read_from_each_cluster_and_kept_a_while(server, users):
    realms = await server.people.realms()
    assert {each.value for each in realms.choices} == {
        f"{cluster}/{realm}"
        for cluster in ("lab", "prod")
        for realm in ("pam", "pve", "corp", "sso")
    }
    corp = users["lab"].realms.pop("corp")
    assert await server.people.realms() == realms, "the cluster is not asked for each page"
    users["lab"].realms["corp"] = corp
    with pytest.raises(BadArgument, match="not among the realms"):
        realms.get("lab/none")


async def test_a_silent_cluster_is_named_and_the_others_are_there(server, access, store):
    await access.clusters.create("gone", ["127.0.0.1:1"], token_id="a@pve!server", secret="x")
    await store.watch.poll()
    realms = await server.people.realms()
    assert realms.problems == ("gone cannot be reached at present.",), "and none of its hosts"
    assert "lab/pve" in {each.value for each in realms.choices}


async def test_a_password_signs_in_and_names_the_account(server):
    signed = await sign_in(server, "alice")
    assert signed.person.subject.endswith(":alice@pve")
    assert signed.person.accounts["prod"].userid == "alice@pve"
    assert "PVE:" not in repr(signed)


async def test_wrong_passwords_are_refused_in_the_words_of_proxmox(server):
    for user, password in (("alice", "wrong"), ("mallory", PASSWORD)):
        with pytest.raises(CallError, match=r"refused the sign-in.*'authentication failure'"):
            await sign_in(server, user, password=password)
    for user, password in (("", PASSWORD), ("al\x00ice", PASSWORD), ("alice", "")):
        with pytest.raises(BadArgument):
            await sign_in(server, user, password=password)


async def test_guesses_lock_their_address_for_the_account_and_no_one_else(server):
    device = Origin("192.0.2.1", server.people.devices.issue("alice@pve"))
    for _ in range(5):
        with pytest.raises(CallError):
            await sign_in(server, "alice", password="wrong")
    with pytest.raises(TooManyFailures):
        await sign_in(server, "alice")
    assert (await sign_in(server, "bob")).person
    assert (await sign_in(server, "alice", origin=Origin("192.0.2.2"))).person
    assert (await sign_in(server, "alice", origin=device)).person


class Proxmox:
    """Counts wrong attempts by cluster, and holds them as Proxmox does while `release` is unset."""

    def __init__(self, monkeypatch):
        self.release, self.sent, self.in_flight, self.most = asyncio.Event(), 0, Counter(), 0
        self.arrived = asyncio.Semaphore(0)
        signs_in = SignInCalls.with_password

        async def with_password(calls, userid, password):
            if password == "wrong":
                await self.refuse(calls)
            return await signs_in(calls, userid, password)

        async def with_openid(calls, *_):
            await self.refuse(calls)

        monkeypatch.setattr(SignInCalls, "with_password", with_password)
        monkeypatch.setattr(SignInCalls, "with_openid", with_openid)

    async def refuse(self, calls):
        cluster = calls._transport.pool
        self.sent += 1
        self.arrived.release()
        self.in_flight[cluster] += 1
        self.most = max(self.most, self.in_flight[cluster])
        await self.release.wait()
        self.in_flight[cluster] -= 1
        raise Unauthenticated(401, "authentication failure", "authentication failure")


@pytest.fixture
async def proxmox(monkeypatch):
    return Proxmox(monkeypatch)


async def begun(proxmox, arrivals, *attempts) -> list[asyncio.Task]:
    """Start attempts, and return when so many have reached Proxmox and others their queue."""
    tasks = [asyncio.ensure_future(attempt) for attempt in attempts]
    for _ in range(arrivals):
        await asyncio.wait_for(proxmox.arrived.acquire(), 30)
    for _ in range(200):
        await asyncio.sleep(0)
    return tasks


def openid_at(server, step, address):
    return server.people.finish_openid(step, "bogus", Origin(address))


@pytest.mark.parametrize("by_openid", [False, True], ids=["password", "openid"])
async def test_one_address_never_holds_up_the_first_sign_in_of_others(server, proxmox, by_openid):
    choices = await server.people.realms()
    step = await server.people.begin_openid(choices.get("prod/sso"), "http://x", HERE, SignIn())
    other = Origin("192.0.2.9")
    tasks = await begun(
        proxmox,
        1,
        *(
            openid_at(server, step, other.address)
            if by_openid
            else sign_in(server, f"guess{number}", password="wrong", origin=other)
            for number in range(FAILURES_PER_MINUTE)
        ),
    )
    assert (await sign_in(server, "alice")).person, "while the others are not answered"
    assert proxmox.most == 1
    proxmox.release.set()
    assert all(isinstance(each, CallError | TooManyFailures) for each in await ended(tasks))


async def ended(tasks):
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_users_with_many_known_browsers_do_not_hold_up_those_of_others(server, proxmox):
    issue = server.people.devices.issue
    tasks = await begun(
        proxmox,
        1,
        *(
            sign_in(server, "bob", password="wrong", origin=Origin("192.0.2.9", issue("bob@pve")))
            for _ in range(FAILURES_PER_MINUTE)
        ),
    )
    known = Origin("192.0.2.1", issue("alice@pve"))
    assert (await sign_in(server, "alice", origin=known)).person
    assert proxmox.most == 1
    proxmox.release.set()
    await ended(tasks)


async def test_failures_count_whatever_the_source_or_way_of_a_sign_in(server, proxmox):
    proxmox.release.set()
    choices = await server.people.realms()
    step = await server.people.begin_openid(choices.get("prod/sso"), "http://x", HERE, SignIn())
    issue = server.people.devices.issue
    ways = {
        "passwords": (1, lambda number: sign_in(server, f"guess{number}", password="wrong")),
        "openid": (1, lambda _: openid_at(server, step, "192.0.2.2")),
        "known": (  # then as one that is not known
            2,
            lambda _: sign_in(
                server, "bob", password="wrong", origin=Origin("192.0.2.3", issue("bob@pve"))
            ),
        ),
    }
    for way, (times, attempt) in ways.items():
        before = proxmox.sent
        for number in range(3 * FAILURES_PER_MINUTE):
            with pytest.raises((CallError, TooManyFailures)):
                await attempt(number)
        assert proxmox.sent - before <= times * FAILURES_PER_MINUTE, way


async def test_a_shared_realm_takes_a_turn_at_each_cluster(server, proxmox):
    server.values = Values(shared_realms=("corp",))
    tasks = await begun(
        proxmox,
        2 * AT_ONCE,
        *(
            sign_in(
                server,
                f"guess{number}",
                "corp",
                cluster,
                password="wrong",
                origin=Origin(f"192.0.2.{number}"),
            )
            for number, cluster in enumerate(("*", "*", "prod", "prod", "lab", "*"))
        ),
    )
    assert proxmox.most == AT_ONCE
    proxmox.release.set()
    await ended(tasks)


async def test_a_lock_is_that_of_the_account_whatever_the_form_said(server, proxmox):
    server.values = Values(shared_realms=("corp",))
    proxmox.release.set()
    for cluster in ("*", "prod", "*", "prod", "*"):
        with pytest.raises(CallError):
            await sign_in(server, "carol", "corp", cluster, password="wrong")
    with pytest.raises(TooManyFailures, match="locked"):
        await sign_in(server, "carol", "corp")
    signed = await sign_in(server, "carol", "corp", "*")
    assert list(signed.person.accounts) == ["lab"]
    assert "prod was not sent the sign-in of carol@corp" in signed.problems[0]


async def test_a_second_factor_completes_the_sign_in(server, emulator):
    waiting = await sign_in(server, "alice", cluster="lab")
    assert waiting.person is None
    assert waiting.challenges[0].factor.methods == ("totp", "recovery")
    with pytest.raises(CallError, match="authentication failure"):
        await server.people.answer(waiting, "totp", "000000", HERE)
    code = totp.code(TOTP_SECRET, emulator["lab"].state.now)
    signed = await server.people.answer(waiting, "totp", code, HERE)
    assert signed.person.name == "alice@pve"
    assert signed.challenges == ()


async def test_a_further_cluster_joins_and_the_first_account_stays_who_it_is(server):
    first = await sign_in(server, "bob")
    both = await sign_in(server, "bob", cluster="lab", to=first)
    assert sorted(both.person.accounts) == ["lab", "prod"]
    assert both.person.subject == first.person.subject
    with pytest.raises(BadArgument, match="signed in on lab as bob@pve"):
        await sign_in(server, "carol", realm="corp", cluster="lab", to=both)


async def test_a_shared_realm_is_one_sign_in_to_every_cluster_that_has_it(server, users):
    server.values = Values(shared_realms=("corp", "pve"))
    values = {each.value for each in (await server.people.realms()).choices}
    assert "*/corp" in values
    assert "*/pve" not in values, "each cluster has a realm pve of its own"
    users["lab"].users["carol@corp"].enabled = False
    some = await sign_in(server, "carol", realm="corp", cluster="*")
    assert list(some.person.accounts) == ["prod"]
    assert some.problems[0].startswith("lab refused")
    users["lab"].users["carol@corp"].enabled = True
    both = await sign_in(server, "carol", realm="corp", cluster="*")
    assert both.person.subject == "directory:corp:carol@corp"
    assert sorted(both.person.accounts) == ["lab", "prod"]


async def test_a_session_holds_a_sign_in_sealed_and_ends_once(server):
    signed = await sign_in(server, "alice")
    token = await server.people.sessions.open(signed)
    session = await server.people.sessions.find(token)
    assert session.sign_in == signed
    session.check_csrf(session.csrf)
    for wrong in ("", "x", "\ud800"):
        with pytest.raises(AccessDenied):
            session.check_csrf(wrong)
        assert await server.people.sessions.find(wrong) is None
    (record,) = await server.store.person_sessions.all()
    assert await server.store.person_sessions.opened(record)
    assert [await server.people.sessions.end(session.id) for _ in range(2)] == [True, False]
    assert await server.people.sessions.find(token) is None


async def test_no_step_prolongs_the_session_of_a_user(server, store, emulator):
    begun, now = utc_now(), [utc_now()]
    people = People(store, server.clusters, lambda: server.values, clock=lambda: now[0])
    to = SignIn()
    for cluster in ("prod", "lab", ""):
        if cluster:
            choice = (await people.realms()).get(f"{cluster}/pve")
            to = await people.sign_in(choice, "bob", PASSWORD, HERE, to)
        token = await people.sessions.open(to)
        steps = [each.expires for each in await store.person_sessions.all()]
        now[0] += timedelta(minutes=6)
    assert {begun <= each - SESSION_LIFE <= utc_now() for each in steps} == {True}
    assert len({*steps}) == 1
    assert await people.sessions.find(token) is None
    assert await people.sessions.find(await people.sessions.open(to)) is None


async def test_a_connection_gets_a_token_of_the_user_that_expires_with_it(server, users):
    person = (await sign_in(server, "alice")).person
    chosen = await choice(server, clusters=("prod",), read_only=True)
    record = await server.connections.connect(person, CLIENT, chosen)
    (name,) = tokens_of(users, "prod", "alice@pve")
    token = users["prod"].users["alice@pve"].tokens[name]
    assert re.fullmatch(r"pvemcp-\w{8}", name)
    assert not token.privsep
    assert token.expire == int(chosen.expires.timestamp())
    assert token.comment.startswith("Claude (claude.example), connected by pvemcp at https://")
    (identity,) = await server.store.identities.all(connection_id=record.id)
    assert identity.token_id == f"alice@pve!{name}"
    assert not identity.is_default
    key = await server.store.keys.find(id=record.id)
    assert (key.name, key.person, key.tools) == ("alice@pve via Claude", "alice@pve", [READS])
    assert (key.clusters, key.expires) == (["prod"], chosen.expires)


async def test_each_consent_makes_a_connection_with_tokens_of_its_own(server, users):
    person = (await sign_in(server, "bob", to=await sign_in(server, "bob", cluster="lab"))).person
    on_both = await choice(server, clusters=("lab", "prod"))
    on_prod = await choice(server, clusters=("prod",))
    first = await server.connections.connect(person, CLIENT, on_both)
    before = tokens_of(users, "prod", "bob@pve")
    second, third = await asyncio.gather(
        *(server.connections.connect(person, CLIENT, on_prod) for _ in range(2))
    )
    held = await server.connections.of(person.subject, CLIENT.id)
    assert {record.id for record, _ in held} == {first.id, second.id, third.id}
    assert held[-1][0].id == first.id
    assert {key.name for _, key in held} == {
        f"bob@pve via Claude{number}" for number in ("", " 2", " 3")
    }
    await server.connections.end(second.id, person)
    after = tokens_of(users, "prod", "bob@pve")
    assert (len(after), set(before) < set(after)) == (2, True)
    assert len(tokens_of(users, "lab", "bob@pve")) == 1
    assert len(await server.store.identities.all(connection_id=first.id)) == 2


async def test_the_connections_unused_for_longest_are_beyond_the_limit(server, store):
    person = (await sign_in(server, "bob")).person
    chosen = await choice(server, clusters=("prod",))
    made = []
    for number in range(MOST_OF_CLIENT):
        made.append(await server.connections.connect(person, CLIENT, chosen))
        assert await server.connections.surplus(made[number]) == []
    other = await server.connections.connect(person, replace(CLIENT, id="other"), chosen)
    await store.keys.record_uses({made[0].id: (utc_now() + timedelta(hours=1), "192.0.2.1")})
    newest = await server.connections.connect(person, CLIENT, chosen)
    assert await server.connections.surplus(newest) == [made[1]]
    assert await server.connections.surplus(other) == []


async def test_a_further_consent_renews_no_budget_of_destructive_writes(server, store):
    person, budgets = (await sign_in(server, "bob")).person, DestructiveBudgets(store)
    chosen = await choice(server, clusters=("prod",))
    first, second = [await server.connections.connect(person, CLIENT, chosen) for _ in range(2)]
    await budgets.spend(first.id, 10, 3)
    await budgets.spend(second.id, 10, 4)
    third = await server.connections.connect(person, CLIENT, chosen)
    other = await server.connections.connect(person, replace(CLIENT, id="other"), chosen)
    assert [(await budgets.of(each.id, 10)).left for each in (third, other)] == [3, 3]
    await budgets.spend(third.id, 10, 3)
    with pytest.raises(OverBudget):
        await budgets.spend(other.id, 10)


async def test_connections_without_a_token_end_within_minutes(server, users, store):
    person, issuer = (await sign_in(server, "bob")).person, Tokens(store, Audit(store))
    chosen = await choice(server, clusters=("prod",))
    used, unused = [await server.connections.connect(person, CLIENT, chosen) for _ in range(2)]
    await issuer.issue_code(
        used,
        redirect_uri="https://claude.example/",
        challenge=challenge_of("v" * 43),
        scopes=[Scope.READ],
        resource="https://mcp.example/mcp",
    )
    await server.connections.remove_expired()
    assert await store.keys.find(id=unused.id), "its code may be issued now"
    later = Connections(store, server.clusters, "", clock=lambda: utc_now() + timedelta(minutes=2))
    await later.remove_expired()
    assert await store.keys.find(id=unused.id) is None
    assert await store.identities.all(connection_id=unused.id) == []
    assert await store.keys.find(id=used.id)


async def test_nothing_is_left_when_one_token_cannot_be_made(server, users):
    person = (await sign_in(server, "bob", to=await sign_in(server, "bob", cluster="lab"))).person
    users["prod"].users["bob@pve"].enabled = False
    with pytest.raises(CallError, match="No API token was made on prod"):
        await server.connections.connect(
            person, CLIENT, await choice(server, clusters=("lab", "prod"))
        )
    assert tokens_of(users, "lab", "bob@pve") == []
    assert await server.connections.of(person.subject) == []
    with pytest.raises(BadArgument, match="choose one or more"):
        await server.connections.connect(person, CLIENT, await choice(server, clusters=(ANY,)))


async def test_the_number_of_connections_of_a_user_is_bounded(server, users, monkeypatch):
    monkeypatch.setattr(connections, "MOST_OF_USER", 1)
    person = (await sign_in(server, "bob")).person
    chosen = await choice(server, clusters=("prod",))
    await server.connections.connect(person, CLIENT, chosen)
    other = ClientName("https://other.example/client.json", "Other", "Other (other.example)")
    with pytest.raises(CallError, match="1 connections already"):
        await server.connections.connect(person, other, chosen)
    assert len(tokens_of(users, "prod", "bob@pve")) == 1
    issued = {"role_id": chosen.role.id, "clusters": [ANY], "expires": chosen.expires}
    subject = replace(PERSON, subject="issuer:https://id.example:u-1")
    await server.connections.follow_issuer(subject, CLIENT, scopes=["pve:read"], **issued)
    with pytest.raises(AccessDenied, match="too many clients"):
        await server.connections.follow_issuer(subject, other, scopes=["pve:read"], **issued)


async def test_a_ticket_goes_only_to_the_hosts_that_gave_it(server, access, store):
    person = (await sign_in(server, "bob")).person
    await access.clusters.change(
        "prod", hosts=["127.0.0.1:1"], secrets={"default": "00000000-0000-0000-0000-000000000001"}
    )
    await store.watch.poll()
    with pytest.raises(CallError, match="changed since the sign-in"):
        await server.connections.connect(person, CLIENT, await choice(server, clusters=("prod",)))


async def test_the_end_of_a_connection_destroys_the_secret_and_removes_the_token(server, users):
    person = (await sign_in(server, "bob")).person
    chosen = await choice(server, clusters=("prod",))
    record = await server.connections.connect(person, CLIENT, chosen)
    (left,) = await server.connections.end(record.id)
    (name,) = tokens_of(users, "prod", "bob@pve")
    assert left.line == f"pveum user token remove bob@pve {name}"
    assert await server.store.identities.all(connection_id=record.id) == []
    assert await server.store.keys.find(id=record.id) is None

    # the next sign-in removes the left token; in another process, once it cannot be that of a
    # consent in progress
    elsewhere = connections.Connections(server.store, server.clusters, "https://mcp.example")
    users["prod"].users["bob@pve"].tokens["own"] = Token("own", "x", comment="of bob")
    stray = users["prod"].users["bob@pve"].tokens[name]
    record = await server.connections.connect(person, CLIENT, chosen)
    for comment, count in ((stray.comment, 3), (re.sub(r"\d{4}-", "2020-", stray.comment), 2)):
        stray.comment = comment
        await elsewhere.remove_strays(person.accounts["prod"])
        kept = tokens_of(users, "prod", "bob@pve")
        assert (len(kept), "own" in kept) == (count, True)
    assert name not in kept
    (left,) = await server.connections.end(record.id)
    await server.connections.remove_strays(person.accounts["prod"])
    assert tokens_of(users, "prod", "bob@pve") == ["own"]
    record = await server.connections.connect(person, CLIENT, chosen)

    assert await server.connections.end(record.id, person) == []
    assert tokens_of(users, "prod", "bob@pve") == ["own"]

    record = await server.connections.connect(person, CLIENT, chosen)
    users["prod"].acl.append(AclEntry("/access", "user", "viewer@pve", "Administrator"))
    assert await server.connections.end(record.id) == []
    assert tokens_of(users, "prod", "bob@pve") == ["own"]


async def test_expired_connections_end_with_their_secrets(server, store):
    person = (await sign_in(server, "bob")).person
    record = await server.connections.connect(
        person, CLIENT, await choice(server, clusters=("prod",))
    )
    await server.connections.remove_expired()
    assert await store.keys.find(id=record.id)
    later = Connections(store, server.clusters, "", clock=lambda: utc_now() + timedelta(days=2))
    await later.remove_expired()
    assert await store.keys.find(id=record.id) is None
    assert await store.identities.all(connection_id=record.id) == []


async def test_other_hosts_end_the_tokens_of_users_and_ask_for_none(server, access, store):
    person = (await sign_in(server, "bob")).person
    await server.connections.connect(person, CLIENT, await choice(server, clusters=("prod",)))
    assert [each.name for each in await access.clusters.identities("prod")] == ["default"]
    assert await access.clusters.bindings("prod") == []
    await access.clusters.change("prod", hosts=["127.0.0.1:1"], secrets={"default": "x"})
    assert len(await store.identities.all()) == 2


async def _other_hosts(server, access, person, record):
    await access.clusters.change("prod", hosts=["127.0.0.1:1"], secrets={"default": "x"})


async def _identity_removed(server, access, person, record):
    (identity,) = await server.store.identities.all(connection_id=record.id)
    await server.store.identities.remove(identity.id)


async def _cluster_removed(server, access, person, record):
    await access.clusters.remove("prod")


async def _ended(server, access, person, record):
    await server.connections.end(record.id, person)


@pytest.mark.parametrize("change", [_other_hosts, _identity_removed, _cluster_removed, _ended])
async def test_what_replaces_or_ends_an_account_of_a_connection_ends_its_tokens(
    server, access, store, change
):
    person, issuer = (await sign_in(server, "bob")).person, Tokens(store, Audit(store))
    chosen = await choice(server, clusters=("prod",))
    record = await server.connections.connect(person, CLIENT, chosen)
    other = await server.connections.connect(person, CLIENT, chosen)
    verifier, resource = "v" * 43, "https://mcp.example/mcp"
    code = {
        "redirect_uri": "https://claude.example/",
        "challenge": challenge_of(verifier),
        "scopes": [Scope.READ],
        "resource": resource,
    }
    for each in (record, other):
        used = await issuer.issue_code(each, **code)
        await issuer.exchange(used, client_id=each.client_id, verifier=verifier)
        await issuer.issue_code(each, **code)
    await change(server, access, person, record)
    assert await store.tokens.all(connection_id=record.id) == []
    kept = {_identity_removed: 4, _ended: 4}.get(change, 0)
    assert len(await store.tokens.all(connection_id=other.id)) == kept
    if change is _ended:
        with pytest.raises(OAuthError, match="connect again"):
            await issuer.issue_code(record, **code)


RULES = {
    "realm": (PersonKind.REALM, "pve", None),
    "realm elsewhere": (PersonKind.REALM, "corp", None),
    "user": (PersonKind.USER, "bob@pve", "prod"),
    "user of another cluster": (PersonKind.USER, "bob@pve", "lab"),
    "group": (PersonKind.GROUP, "ops", None),
    "group of others": (PersonKind.GROUP, "dev", None),
    "admin": (PersonKind.ADMIN, "owner", None),
}
MATCHING = {"realm", "user", "group"}


async def test_rules_decide_which_roles_a_user_may_choose(server, users, access):
    users["prod"].groups["ops"] = Group("ops")
    clusters = {record.name: record.id for record in await server.store.clusters.all()}
    for name, (kind, rule, cluster) in RULES.items():
        role = await access.roles.create(name, [])
        await server.store.person_rules.add(
            kind=kind,
            name=rule,
            cluster_id=cluster and clusters[cluster],
            role_id=role.id,
            created=utc_now(),
        )
    person = (await sign_in(server, "bob")).person
    groups = await server.people.groups(person)
    assert groups == {"prod": frozenset({"ops"})}
    choices = await role_choices(server.store, person, groups=groups)
    assert [each.role.name for each in choices[:1]] == ["Read-only"]
    assert {each.role.name for each in choices[1:]} == MATCHING
    for each in choices[1:]:
        each.check(["prod"])
        with pytest.raises(BadArgument, match="not allowed to you on lab"):
            each.check(["lab", "prod"])
    theirs = await role_choices(server.store, PERSON, admin_role=AdminRole.OWNER)
    assert {each.role.name for each in theirs[1:]} == {"admin"}


async def test_administrators_connect_without_a_rule_if_they_may_make_keys(server, access, store):
    admin = await access.admins.create("ada", "correct horse battery")
    ada = Person(f"admin:{admin.id}", "ada", utc_now(), admin_id=admin.id)
    offered = {
        role: [each.role.name for each in await role_choices(store, ada, admin_role=role)]
        for role in (*AdminRole, None)
    }
    assert offered == {
        AdminRole.OWNER: ["Read-only"],
        AdminRole.KEY_ISSUER: ["Read-only"],
        AdminRole.AUDITOR: [],
        None: [],
    }
    record = await server.connections.connect(ada, CLIENT, await choice(server))
    rule = await store.person_rules.add(
        kind=PersonKind.ADMIN,
        name=AdminRole.AUDITOR,
        cluster_id=None,
        role_id=(await access.roles.get("Read-only")).id,
        created=utc_now(),
    )
    for role in AdminRole:
        (held,) = await role_choices(store, ada, admin_role=role)
        assert (held.role.name, held.clusters) == ("Read-only", None)
    assert await end_disallowed(store, server.connections, id=record.id) == []
    await store.admins.change(admin.id, role=AdminRole.AUDITOR)
    assert await end_disallowed(store, server.connections, id=record.id) == []
    await store.person_rules.remove(rule.id)
    assert await end_disallowed(store, server.connections, id=record.id) == ["ada via Claude"]


async def test_a_connection_of_an_administrator_has_no_account_of_its_own(server, access):
    admin = await access.admins.create("ada", "correct horse battery")
    opened = await access.sessions.open(admin, address="", agent="")
    ada = administrator(await access.sessions.find(opened))
    record = await server.connections.connect(ada, CLIENT, await choice(server))
    assert (record.subject, record.admin_id) == (ada.subject, ada.admin_id)
    assert await server.store.identities.all(connection_id=record.id) == []


async def test_texts_of_a_user_hold_no_secret(server):
    person = (await sign_in(server, "bob")).person
    account = person.accounts["prod"]
    assert account.ticket.ticket not in repr(person)
    other = Account(Place("prod", 1, "x"), Ticket(ticket="PVE:secret", username="a@pve"))
    assert "secret" not in repr(other)


async def test_the_history_is_not_read_with_the_tokens_of_users(server):
    person = (await sign_in(server, "bob")).person
    await server.connections.connect(person, CLIENT, await choice(server, clusters=("prod",)))
    values, now = Values(history_minutes=60), utc_now()
    await HistoryRecorder(server.store, server.clusters, lambda: values).record(now)
    claimed = {
        identity.connection_id
        for identity in await server.store.identities.all()
        if await server.store.history.claim(identity, now, timedelta(hours=1)) is None
    }
    assert claimed == {None}


async def test_users_of_one_cluster_see_what_proxmox_gives_each(server, users):
    """Show that two users who ask the same get what Proxmox gives each."""
    seen = {}
    for user in ("alice", "bob"):
        person = (await sign_in(server, user)).person
        record = await server.connections.connect(
            person, CLIENT, await choice(server, clusters=("prod",))
        )
        (binding,) = await server.store.bindings.all(key_id=record.id)
        client = (await server.clusters.connection("prod", binding.identity_id)).client
        assert isinstance(client, Client)
        seen[user] = [guest.vmid for guest in (await client.cluster.resources("vm")).guests]
    assert seen["bob"] == [100]
    assert len(seen["alice"]) == 4


async def test_a_consent_and_its_end_leave_the_connections_of_others_open(server):
    async def opened() -> dict[int, Connection]:
        return {
            each.id: await server.clusters.connection(names[each.cluster_id], each.id)
            for each in await server.store.identities.all()
        }

    names = {record.id: record.name for record in await server.store.clusters.all()}
    made, before = [], await opened()
    for user in ("alice", "bob"):
        person = (await sign_in(server, user)).person
        chosen = await choice(server, clusters=("prod",))
        made.append(await server.connections.connect(person, CLIENT, chosen))
        after = await opened()
        assert len(after) == len(before) + 1
        assert before == {key: after[key] for key in before}
        before = after
    for record in made:
        await server.connections.end(record.id)
        after = await opened()
        assert len(after) == len(before) - 1
        assert after == {key: before[key] for key in after}
        before = after
