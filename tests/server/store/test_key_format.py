"""The format of API keys."""

import re
import zlib

from hypothesis import given
from hypothesis import strategies as st

from pvemcp_server.store import key_format
from pvemcp_server.store.key_format import (
    KEY_LIKE,
    KEY_PATTERN,
    SERVICE_PREFIX,
    base62,
    checksum,
    id_of,
    new_id,
    new_secret,
)

LETTERS = st.sampled_from(key_format.ALPHABET)


def test_a_key_contains_its_id_and_ends_with_a_checksum():
    key = new_secret("abcDEF12")
    assert re.fullmatch(r"pvemcp_abcDEF12_[0-9A-Za-z]{43}[0-9A-Za-z]{6}", key)
    assert key[-6:] == base62(zlib.crc32(key[:-6].encode()), 6)
    assert id_of(key) == "abcDEF12"


def test_keys_are_unique():
    assert len({new_secret(new_id()) for _ in range(500)}) == 500


@given(st.integers(min_value=0, max_value=2**256 - 1))
def test_any_256_bits_survive_base62(number: int):
    text = base62(number, key_format.SECRET_LENGTH)
    assert len(text) == key_format.SECRET_LENGTH
    read = 0
    for letter in text:
        read = read * 62 + key_format.ALPHABET.index(letter)
    assert read == number


@given(st.data())
def test_the_checksum_reveals_one_wrong_letter(data: st.DataObject):
    number = data.draw(st.integers(min_value=0, max_value=2**256 - 1))
    body = f"pvemcp_abcDEF12_{base62(number, key_format.SECRET_LENGTH)}"
    key = body + checksum(body)
    position = data.draw(st.integers(min_value=0, max_value=len(key) - 1))
    letter = data.draw(LETTERS.filter(lambda other: other != key[position]))
    assert id_of(key[:position] + letter + key[position + 1 :]) is None


@given(st.text())
def test_other_texts_are_no_keys(text: str):
    assert id_of(text) is None


def test_a_service_token_is_no_key_and_is_masked_as_one():
    token = new_secret("abcDEF12", SERVICE_PREFIX)
    assert token.startswith("pvemcp_admin_abcDEF12_")
    assert (id_of(token), id_of(token, SERVICE_PREFIX)) == (None, "abcDEF12")
    assert id_of(new_secret("abcDEF12"), SERVICE_PREFIX) is None
    assert KEY_PATTERN.sub("", f"<{token}>") == "<>"
    for cut in (token, token[:40]):
        assert KEY_LIKE.sub(r"\1***", f"/x/{cut}") == "/x/pvemcp_admin_abcDEF12_***"


@given(before=st.text(), after=st.text(alphabet=" \n\"'&/?"))
def test_the_pattern_finds_a_key_in_any_text(before: str, after: str):
    key = new_secret(new_id())
    assert KEY_PATTERN.search(f"{before}{key}{after}").group() == key


def test_a_key_with_surrounding_blanks_is_malformed():
    key = new_secret(new_id())
    assert id_of(f"{key}\n") is None
    assert id_of(f" {key}") is None
