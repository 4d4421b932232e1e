"""Whatever is given is judged, and judged the same however it is written."""

import string

from hypothesis import given
from hypothesis import strategies as st

from proxmox_client import schema
from proxmox_client.schema import property_strings

ENDPOINTS = schema.load("9.2").endpoints
VALUES = st.one_of(
    st.text(max_size=40),
    st.integers(),
    st.floats(allow_nan=True, allow_infinity=True),
    st.booleans(),
    st.none(),
    st.lists(st.text(max_size=5), max_size=3),
)


@st.composite
def requests(draw):
    endpoint = draw(st.sampled_from(ENDPOINTS))
    names = [name.replace("[n]", "1") for name in endpoint.parameters]
    known = st.sampled_from(names) if names else st.nothing()
    given_names = st.one_of(known, st.text(string.ascii_lowercase, max_size=6))
    return endpoint, draw(st.dictionaries(given_names, VALUES, max_size=6))


@given(requests())
def test_every_complaint_is_a_text_about_a_parameter_in_question(request_):
    endpoint, params = request_
    errors = endpoint.check(params)
    assert all(isinstance(text, str) and text for text in errors.values())
    needed = {parameter.requires for parameter in endpoint.parameters.values()}
    assert errors.keys() <= params.keys() | endpoint.parameters.keys() | needed


@given(requests())
def test_numbers_and_booleans_are_judged_like_the_texts_a_form_carries(request_):
    endpoint, params = request_
    plain = {k: v for k, v in params.items() if isinstance(v, int | str)}
    as_form = {k: str(int(v)) if isinstance(v, bool) else str(v) for k, v in plain.items()}
    assert endpoint.check(plain) == endpoint.check(as_form)


NET = schema.load("9.2").find("POST", "/nodes/n/qemu")[0].parameters["net[n]"].parts


@given(st.text(max_size=60))
def test_a_property_string_is_parsed_or_refused(text):
    try:
        values = property_strings.parse(text, NET)
    except property_strings.BadPropertyString:
        return
    assert all(values.values())


def test_the_name_under_which_an_alias_was_written_becomes_a_value():
    parsed = property_strings.parse("virtio=BC:24:11:EC:2A:D1,bridge=vmbr0", NET)
    assert parsed == {"model": "virtio", "macaddr": "BC:24:11:EC:2A:D1", "bridge": "vmbr0"}
