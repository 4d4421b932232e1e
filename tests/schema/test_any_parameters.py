"""Validation of arbitrary parameters, in any notation."""

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
    defined = st.sampled_from(names) if names else st.nothing()
    any_name = st.one_of(defined, st.text(string.ascii_lowercase, max_size=6))
    return endpoint, draw(st.dictionaries(any_name, VALUES, max_size=6))


@given(requests())
def test_every_message_belongs_to_a_parameter_of_the_request(request_):
    endpoint, params = request_
    errors = endpoint.check(params)
    assert all(isinstance(text, str) and text for text in errors.values())
    required = {parameter.requires for parameter in endpoint.parameters.values()}
    names = {name.partition("[")[0] for name in errors}  # of a list, `name[0]`
    assert names <= params.keys() | endpoint.parameters.keys() | required


@given(requests())
def test_numbers_and_booleans_are_validated_like_their_text_in_a_form(request_):
    endpoint, params = request_
    plain = {k: v for k, v in params.items() if isinstance(v, int | str)}
    as_form = {k: str(int(v)) if isinstance(v, bool) else str(v) for k, v in plain.items()}
    assert endpoint.check(plain) == endpoint.check(as_form)


NET = schema.load("9.2").find("POST", "/nodes/n/qemu")[0].parameters["net[n]"].parts


@given(st.text(max_size=60))
def test_a_property_string_is_parsed_or_rejected(text):
    try:
        values = property_strings.parse(text, NET)
    except property_strings.BadPropertyString:
        return
    assert all(values.values())


def test_the_name_of_an_aliased_part_becomes_a_value():
    parsed = property_strings.parse("virtio=BC:24:11:EC:2A:D1,bridge=vmbr0", NET)
    assert parsed == {"model": "virtio", "macaddr": "BC:24:11:EC:2A:D1", "bridge": "vmbr0"}
