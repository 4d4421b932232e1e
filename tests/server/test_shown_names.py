"""Texts of hosts in sentences: plain words stay, all else is quoted and bounded."""

import pytest

from pvemcp_server.shown_names import (
    LONGEST_NAME,
    LONGEST_VOLUME,
    MOST_NAMES,
    listed_names,
    shown_name,
    shown_phrase,
    shown_volume,
)


@pytest.mark.parametrize(
    "name",
    ["qmstart", "web-1.example.org", "root@pam!token", "108-0", "local:101/vm-101-disk-0.qcow2"],
)
def test_a_plain_word_stays_as_it_is(name):
    assert shown_name(name) == shown_volume(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a b",
        "it's",
        'a"b',
        "a\nb",
        "a\u200bb",
        "a\u3164b",
        "web (1) on lab",
        "\u0430dmin",
        "`a`",
    ],
)
def test_all_else_is_quoted(name):
    assert shown_name(name) == repr(name)


def test_a_long_name_is_cut_and_its_rest_counted():
    assert shown_name("a" * LONGEST_NAME) == "a" * LONGEST_NAME
    assert shown_name("q" * 2_000_000) == f"'{'q' * 64}'… (1999936 more characters)"
    assert shown_volume("a" * LONGEST_VOLUME) == "a" * LONGEST_VOLUME
    assert shown_volume("a" * 201) == f"'{'a' * 200}'… (1 more characters)"


def test_a_phrase_is_two_plain_words_and_anything_longer_is_quoted():
    assert shown_phrase("101 web-1") == "101 web-1"
    assert shown_phrase("101 web is gone") == "'101 web is gone'"


def test_of_thousands_of_names_the_first_are_listed():
    names = [f"n{number}" for number in range(5_000)]
    assert listed_names(names) == f"{', '.join(names[:MOST_NAMES])} and 4980 more"
    assert listed_names(["a b", "c"]) == "'a b', c"
