"""Cleaning of text: invisible characters go, everything visible stays."""

from hypothesis import given
from hypothesis import strategies as st

from pvemcp_server.pipeline.sanitize import Cleaner, clean_line


@given(st.text())
def test_cleaned_text_keeps_visible_characters(text):
    visible = Cleaner(10_000).value(text, "n")
    assert visible.encode().decode() == visible
    assert not any(0x202A <= ord(c) <= 0x202E or 0xE0000 <= ord(c) <= 0xE007F for c in visible)
    assert [c for c in visible if c.isalnum()] == [c for c in text if c.isalnum()]


@given(st.text())
def test_a_cleaned_line_is_one_line(text):
    assert len(clean_line(text, 50).splitlines()) <= 1
