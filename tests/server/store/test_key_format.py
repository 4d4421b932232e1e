"""The shape of API keys."""

import re
import zlib

from hypothesis import given
from hypothesis import strategies as st

from pvemcp_server.store import key_format
from pvemcp_server.store.key_format import KEY_PATTERN, base62, id_of, new_id, new_secret

LETTERS = st.sampled_from(key_format.ALPHABET)


def test_a_key_names_its_id_and_ends_in_a_checksum():
    key = new_secret("abcDEF12")
    assert re.fullmatch(r"pvemcp_abcDEF12_[0-9A-Za-z]{43}[0-9A-Za-z]{6}", key)
    assert key[-6:] == base62(zlib.crc32(key[:-6].encode()), 6)
    assert id_of(key) == "abcDEF12"


def test_no_two_keys_are_alike():
    assert len({new_secret(new_id()) for _ in range(500)}) == 500


@given(st.integers(min_value=0, max_value=2**256 - 1))
def test_any_256_bits_fit_and_can_be_read_back(number: int):
    text = base62(number, key_format.SECRET_LENGTH)
    assert len(text) == key_format.SECRET_LENGTH
    read = 0
    for letter in text:
        read = read * 62 + key_format.ALPHABET.index(letter)
    assert read == number


@given(st.data())
def test_one_wrong_letter_is_noticed_without_a_database(data: st.DataObject):
    key = new_secret("abcDEF12")
    place = data.draw(st.integers(min_value=0, max_value=len(key) - 1))
    letter = data.draw(LETTERS.filter(lambda other: other != key[place]))
    assert id_of(key[:place] + letter + key[place + 1 :]) is None


@given(st.text())
def test_other_texts_are_no_keys(text: str):
    assert id_of(text) is None


@given(before=st.text(), after=st.text(alphabet=" \n\"'&/?"))
def test_secret_scanners_find_a_key_in_any_text(before: str, after: str):
    key = new_secret(new_id())
    assert KEY_PATTERN.search(f"{before}{key}{after}").group() == key


def test_what_surrounds_a_key_is_not_part_of_it():
    key = new_secret(new_id())
    assert id_of(f"{key}\n") is None
    assert id_of(f" {key}") is None
