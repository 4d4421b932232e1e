"""Masking of secrets."""

import json
import re
from importlib import import_module
from typing import Annotated
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, SecretStr
from tests.cases import walk

from pvemcp_server.audit import Event, Kind, mask, secret_fields_of
from pvemcp_server.audit.log_secrets import mask_line
from pvemcp_server.audit.mask import LONGEST, MOST_ITEMS, mask_text
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.key_format import new_id, new_secret

PLANTED = st.text("abcXYZ019", min_size=12, max_size=20).map(lambda text: f"planted{text}")
SCHEMES = st.sampled_from(["https", "http", "ftp", "HTTPS", "postgresql+asyncpg"])
HOSTS = st.sampled_from(["example.org", "192.0.2.1:8006", "[2001:db8::1]:443"])
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)

# generated texts include constants of the modules that are loaded, such as PASSWORD
SECRET_LIKE = re.compile(
    r"://|pve|pass|secret|token|key|ticket|otp|credential|psk|auth|cookie|csrf", re.IGNORECASE
)


@given(JSON, st.text(alphabet=" \"',/?&="))
def test_a_key_is_masked_at_any_position(value: object, before: str):
    key = new_secret(new_id())
    planted = {"list": [value, f"{before}{key}"], key: {"deep": {"deeper": key}}}
    assert key.split("_")[2] not in repr(mask(planted))


def test_values_that_are_nested_too_deeply_are_masked():
    nested: object = "deepest"
    for _ in range(2_000):
        nested = [{"inner": nested}]
    masked = mask(nested)
    assert repr(masked) == "[{'inner': " * 16 + "['***']" + "}]" * 16
    assert mask(masked) == masked


@given(st.recursive(st.floats(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_every_recorded_argument_is_json_for_strict_readers(value: object):
    row = Event(tool="ListVms", arguments={"argument": value}).row(Kind.CALL, utc_now())
    json.loads(row["arguments"], parse_constant=pytest.fail)


def test_a_truncated_key_is_masked_up_to_its_id():
    assert mask(new_secret("abcDEF12")[:-10]) == "pvemcp_abcDEF12_***"


@given(SCHEMES, HOSTS, PLANTED, PLANTED)
def test_a_masked_url_keeps_only_host_and_path(
    scheme: str, host: str, password: str, signature: str
):
    url = f"{scheme}://user:{password}@{host}/debian.iso?X-Signature={signature}#{signature}"
    masked = mask({"url": f"see {url}, please"})["url"]
    assert password not in masked
    assert signature not in masked
    assert f"{host}/debian.iso" in masked


@given(st.text(min_size=1).map(lambda text: "planted" + quote(text, safe="@:")))
def test_any_encoded_password_in_a_url_is_masked(password: str):
    assert "planted" not in mask(f"https://user:{password}@example.org/")


def test_the_value_of_an_option_of_a_program_is_masked():
    for option in ("--password", "-token", "--db-passwd", "--API-KEY"):
        assert mask(["run", option, "hush", "next"]) == ["run", option, "***", "next"]
    for harmless in (["run", "--verbose", "x"], ["--passwords-file", "x"], ["password", "x"]):
        assert mask(harmless) == harmless


@given(JSON)
def test_masking_is_idempotent(value: object):
    once = mask(value)
    assert mask(once) == once


@given(JSON.filter(lambda value: not SECRET_LIKE.search(repr(value))))
def test_values_without_secrets_are_unchanged(value: object):
    assert mask(value) == value


def test_a_proxmox_token_is_masked_in_any_text():
    assert mask("Authorization: PVEAPIToken=root@pam!x=11-22") == (
        "Authorization: PVEAPIToken=root@pam!x=***"
    )


IN_TEXTS = [
    "set password={} for ada",
    "password=a,{}",
    "curl -d token={}&x=1",
    "token = '{} with blanks'",
    'secret="{} that was cut',
    '{{"password": "with blanks {}"}}',
    '{{\\"api_key\\": \\"with blanks {}\\"}}',
    "{{'Authorization': 'Basic {}'}}",
    "Authorization: Bearer {}",
    "authorization: Digest username=x, response={}",
    "Authorization: PVEAPIToken=root@pam!x={}",
    "Cookie: PVEAuthCookie=PVE:root@pam:5F1D2A3B::{}",
    "ticket PVE:root@pam:5F1D2A3B::{}",
    "AWS_SECRET_ACCESS_KEY={}",
    "-----BEGIN RSA PRIVATE KEY-----\n{0}\n{0}\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN OPENSSH PRIVATE KEY----- {}",
]
UUID = "11111111-2222-3333-4444-555555555555"


@walk("text", IN_TEXTS)
def test_a_secret_in_free_text_is_masked_by_its_form(text: str):
    for secret in ("planted", "planted!$%/+=", UUID):
        found = f"before {text.format(secret)}\nafter"
        for masked in (mask(found), mask_line(found)):
            assert secret.rstrip("=") not in masked
            assert masked.startswith("before ")
            assert mask(masked) == masked
        assert mask({"parameters": [found]}) == {"parameters": [mask(found)]}


def test_a_secret_of_a_token_is_masked_after_its_id():
    assert mask(f"added root@pam!robot={UUID}, done") == "added root@pam!robot=***, done"


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "PBS-Password",
        "cipassword",
        "x_secret",
        "totp",
        "api_key",
        "X-API-Key",
        "apikey",
        "Authorization",
        "Proxy-Authorization",
        "Set-Cookie",
        "access_token",
        "refresh-token",
    ],
)
def test_a_member_that_is_named_as_a_secret_is_masked(name: str):
    assert mask({"parameters": {name: "planted", "node": "pve1"}}) == {
        "parameters": {name: "***", "node": "pve1"}
    }


@pytest.mark.parametrize(
    "text",
    [
        "password: must have 12 to 1024 characters.",
        "token: is revoked; create another one.",
        "No valid API key. Give it as /mcp/<key> or X-API-Key.",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "qm set 101 --memory 2048; a secret is no argument of it",
    ],
)
def test_sentences_about_secrets_stay_unchanged(text: str):
    assert mask(text) == text


class Inner(BaseModel):
    password: SecretStr
    user: str


class Arguments(BaseModel):
    inner: list[Inner]
    token: SecretStr | None = None
    note: Annotated[str, Field(json_schema_extra={"writeOnly": True})] = ""
    vmid: int = 100


def test_secret_fields_are_found_by_type_and_write_only():
    assert secret_fields_of(Arguments) == {"password", "token", "note"}


def test_secret_fields_are_masked_at_any_depth_and_type():
    arguments = {"inner": [{"password": ["a", "b"], "user": "ada"}], "token": 5, "vmid": 100}
    assert mask(arguments, secret_fields_of(Arguments)) == {
        "inner": [{"password": "***", "user": "ada"}],
        "token": "***",
        "vmid": 100,
    }
    assert mask({"secret": SecretStr("planted")}) == {"secret": "***"}


@given(PLANTED)
def test_no_column_of_an_event_contains_a_secret(planted: str):
    key, url = new_secret(new_id()), f"https://u:{planted}@example.org/?{planted}"
    text = f"{key} {url}"
    event = Event(
        tool=text, client=text, cluster=text, reason=text, upid=text, key_name=text,
        arguments={"a": text, text: [text]},
    )  # fmt: skip
    stored = repr(event.row(Kind.CALL, utc_now()))
    assert planted not in stored
    assert key.split("_")[2] not in stored


WORDS = ["x", "x://", "pvemcp_", "PVE", "PVEAPIToken=", "!", "!a=", "!a", "eyJ", "csrf"]
ASSIGNMENTS = ["token=", "token ", 'token="', "token='\\", 'password\\"', "authorization: "]


@pytest.mark.parametrize("word", [*WORDS, *ASSIGNMENTS, "-----BEGIN PRIVATE KEY-----"])
def test_masking_a_long_word_takes_linear_time(word: str):
    """Mask texts for which a search from each letter would take minutes."""
    assert mask(word * (500_000 // len(word)))


@pytest.mark.parametrize("shape", [lambda t: t * 40, lambda t: [t] * 40, lambda t: {"a": [t] * 40}])
def test_only_the_beginning_of_what_a_client_sends_is_searched(shape, monkeypatch):
    searched = []
    module = import_module("pvemcp_server.audit.mask")  # the package has a function of that name
    pattern = module.SUSPECT

    class Counted:
        def search(self, text):
            searched.append(len(text))
            return pattern.search(text)

    monkeypatch.setattr(module, "SUSPECT", Counted())
    masked = mask({"argument": shape("csrf" * 1_500)})
    kept = len(json.dumps(masked, ensure_ascii=False))
    assert LONGEST - 1_000 < kept < LONGEST + 1_000
    assert sum(searched) < LONGEST + 1_000


def test_a_secret_that_is_cut_is_masked_as_well():
    key = new_secret(new_id())
    for before in range(LONGEST - 100, LONGEST + 2, 2):
        cut = mask_text("x " * (before // 2) + f"token=hunter2hunter2 {key}")
        assert "hunter" not in cut
        assert key[16:20] not in cut


@pytest.mark.parametrize("item", [{"a": 1}, [], 0, "", None])
def test_a_value_of_many_items_is_cut(item):
    # the event loop masks the arguments of each call: 85,000 empty lists took 0.1 s
    for many in ([item] * 100_000, {str(number): item for number in range(100_000)}):
        masked = mask({"first": many, "second": [item]})
        assert len(masked["first"]) <= MOST_ITEMS + 1
        assert list(masked)[-1] == "…"
        assert mask(masked) == masked
