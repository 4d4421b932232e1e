"""Sessions of users: tickets, renewal, second factors and CSRF tokens."""

import urllib.parse

import pytest

from proxmox_client import ApiToken, Password, Totp, Unauthenticated
from proxmox_client.session import EXPIRES_AFTER, RENEW_AFTER

pytestmark = pytest.mark.anyio

LOGIN = "POST /access/ticket"


def ticket(number: int, **more) -> dict:
    return {
        "username": "root@pam",
        "ticket": f"PVE:root@pam:{number}::sig+/=",
        "CSRFPreventionToken": f"csrf-{number}",
        **more,
    }


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def user_client(client_as, clock):
    client = client_as(Password("root@pam", "hunter2"))
    client.transport._session._clock = clock
    return client


def forms(pve) -> list[dict[str, str]]:
    """List the forms of all sign-ins."""
    return [
        dict(urllib.parse.parse_qsl(request.content.decode()))
        for request in pve.requests
        if request.url.path.endswith("/access/ticket")
    ]


async def test_a_user_signs_in_once_and_sends_the_ticket_as_a_cookie(user_client, pve):
    # Quirk 7.
    pve.answer(LOGIN, ticket(1))
    pve.answer("GET /version", {"version": "9.2.11"})
    await user_client.version()
    await user_client.version()
    assert forms(pve) == [{"username": "root@pam", "password": "hunter2"}]
    assert pve.requests[-1].headers["cookie"] == "PVEAuthCookie=PVE:root@pam:1::sig+/="
    assert "csrfpreventiontoken" not in pve.requests[-1].headers


async def test_writes_carry_the_csrf_token(user_client, pve):
    # Quirk 8.
    pve.answer(LOGIN, ticket(1))
    pve.answer("PUT /cluster/options")
    await user_client.transport.request_data("PUT", "/cluster/options", keyboard="de")
    assert pve.requests[-1].headers["csrfpreventiontoken"] == "csrf-1"


async def test_a_token_needs_no_sign_in_and_no_csrf_token(client_as, pve):
    # Quirks 8 and 11: a token cannot make tickets, and needs none.
    client = client_as(ApiToken("mcp@pve!full", "s"))
    pve.answer("PUT /cluster/options")
    await client.transport.request_data("PUT", "/cluster/options", keyboard="de")
    assert pve.lines == ["PUT /cluster/options keyboard=de"]
    assert "csrfpreventiontoken" not in pve.requests[0].headers


async def test_a_ticket_is_renewed_with_itself_before_it_expires(user_client, pve, clock):
    # Quirk 7: it is valid for two hours, and a renewal needs no second factor.
    pve.answer(LOGIN, ticket(1))
    pve.answer(LOGIN, ticket(2))
    pve.answer("GET /version", {"version": "9.2.11"})
    await user_client.version()
    clock.now += RENEW_AFTER + 1
    await user_client.version()
    assert forms(pve)[1] == {"username": "root@pam", "password": ticket(1)["ticket"]}
    assert "2::sig" in pve.requests[-1].headers["cookie"]


async def test_an_expired_ticket_is_replaced_with_the_password(user_client, pve, clock):
    # Quirk 7.
    pve.answer(LOGIN, ticket(1))
    pve.answer(LOGIN, ticket(2))
    pve.answer("GET /version", {"version": "9.2.11"})
    await user_client.version()
    clock.now += EXPIRES_AFTER + 1
    await user_client.version()
    assert forms(pve)[1]["password"] == "hunter2"


async def test_a_rejected_renewal_is_followed_by_a_full_sign_in(user_client, pve, clock):
    pve.answer(LOGIN, ticket(1))
    pve.answer_error(LOGIN, 401, "authentication failure")
    pve.answer(LOGIN, ticket(3))
    pve.answer("GET /version", {"version": "9.2.11"})
    await user_client.version()
    clock.now += RENEW_AFTER + 1
    await user_client.version()
    assert [form["password"] for form in forms(pve)] == ["hunter2", ticket(1)["ticket"], "hunter2"]


async def test_a_read_with_a_rejected_ticket_is_repeated_after_a_sign_in(user_client, pve):
    pve.answer(LOGIN, ticket(1))
    pve.answer(LOGIN, ticket(2))
    pve.respond("GET /version", 401, "permission denied - invalid PVE ticket")
    pve.answer("GET /version", {"version": "9.2.11"})
    assert (await user_client.version()).version == "9.2.11"
    assert len(forms(pve)) == 2


async def test_a_write_with_a_rejected_ticket_is_not_repeated(user_client, pve):
    # Quirk 8: a wrong CSRF token is a 401 too.
    line = "POST /nodes/pve1/qemu/100/status/start"
    pve.answer(LOGIN, ticket(1))
    pve.answer(LOGIN, ticket(2))
    pve.respond(line, 401, "Permission denied - invalid csrf token")
    pve.answer(line, "UPID:pve1:000002CD:000E132A:6B02ABF1:qmstart:100:root@pam:")
    with pytest.raises(Unauthenticated, match="csrf"):
        await user_client.qemu("pve1", 100).power("start")
    assert pve.lines.count(line) == 1
    await user_client.qemu("pve1", 100).power("start")
    assert len(forms(pve)) == 2


async def test_a_wrong_password_raises_proxmox_message(user_client, pve):
    pve.answer_error(LOGIN, 401, "authentication failure")
    with pytest.raises(Unauthenticated, match=r"^authentication failure$"):
        await user_client.version()


async def test_a_second_factor_is_answered_with_the_current_code(client_as, pve):
    # Quirk 12.
    challenge = "PVE:!tfa!%7B%22totp%22%3Atrue%7D:1::sig"
    pve.answer(LOGIN, ticket(0, ticket=challenge, NeedTFA=1))
    pve.answer(LOGIN, ticket(1))
    pve.answer("GET /version", {"version": "9.2.11"})
    await client_as(Password("bob@pve", "pw", totp=lambda: "123456")).version()
    assert forms(pve)[1] == {
        "username": "bob@pve",
        "password": "totp:123456",
        "tfa-challenge": challenge,
    }


async def test_a_second_factor_without_totp_recommends_an_api_token(client_as, pve):
    # Quirk 12.
    pve.answer(LOGIN, ticket(0, NeedTFA=1))
    with pytest.raises(Unauthenticated, match="API token"):
        await client_as(Password("bob@pve", "pw")).version()
    assert pve.lines[0].startswith(LOGIN)
    assert len(pve.lines) == 1


@pytest.mark.parametrize(
    ("second", "code"),
    [(59, "287082"), (1111111109, "081804"), (2000000000, "279037")],
)
def test_codes_are_those_of_rfc_6238(second, code):
    assert Totp("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", clock=lambda: second)() == code


@pytest.mark.parametrize("username", ["root", ""])
def test_a_user_without_a_realm_is_rejected_locally(username):
    # Quirk 7: Proxmox would answer 401 after three seconds.
    with pytest.raises(ValueError, match="user@realm"):
        Password(username, "pw")


@pytest.mark.parametrize("token_id", ["root@pam", "root!name", "root@pam!", "root@pam:name"])
def test_a_malformed_token_id_is_rejected_locally(token_id):
    # Quirk 9: the separators are @ and !.
    with pytest.raises(ValueError, match="user@realm!name"):
        ApiToken(token_id, "s")


@pytest.mark.parametrize("secret", ["", "a b", "secret\n", "sécret", "\x00"])
def test_a_secret_invalid_in_a_header_is_rejected_without_showing_it(secret):
    with pytest.raises(ValueError, match="mcp@pve!full") as caught:
        ApiToken("mcp@pve!full", secret)
    assert not secret.strip() or secret not in str(caught.value)


async def test_no_secret_appears_in_reprs_and_errors(client_as, pve):
    token = ApiToken("mcp@pve!full", "tok-s3cret")
    password = Password("root@pam", "pass-s3cret", totp=Totp("GEZDGNBVGY3TQOJQ"))
    pve.answer_error(LOGIN, 401, "authentication failure")
    with pytest.raises(Unauthenticated) as caught:
        await client_as(password).version()
    pve.answer(LOGIN, ticket(1))
    signed_in = client_as(password)
    pve.answer("GET /version", {"version": "9.2.11"})
    texts = [repr(token), repr(password), repr(password.totp), repr(caught.value), repr(signed_in)]
    texts += [repr(vars(signed_in.transport._session)), repr(vars(signed_in.transport))]
    assert not any(word in text for text in texts for word in ("s3cret", "GEZD", "sig+"))
