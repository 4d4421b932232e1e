"""Error responses of Proxmox and the exceptions they become."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cases import walk

from proxmox_client import (
    AgentRefused,
    BadParameters,
    Conflict,
    Forbidden,
    MethodMissing,
    NodeUnreachable,
    NoQuorum,
    NotFound,
    OutdatedDigest,
    ResponseError,
    Unauthenticated,
    response_errors,
)
from proxmox_client.api.resources import Row
from proxmox_client.errors import means_no_quorum
from proxmox_client.json_decoder import decode
from proxmox_client.response_errors import response_error, undecodable

OF_TEXT = {ResponseError, NotFound, Conflict, OutdatedDigest, NoQuorum, AgentRefused}
KINDS = {
    400: {BadParameters, Conflict, NotFound},
    401: {Unauthenticated},
    403: {Forbidden},
    501: {MethodMissing},
}


def error_of(status: int, message: str, path: str = "/x", **more) -> ResponseError:
    body = json.dumps({"data": None, "message": f"{message}\n", **more}).encode()
    return response_error(path, status, message, body)


@walk(
    ("message", "kind"),
    [
        ("Configuration file 'nodes/pve1/qemu-server/999.conf' does not exist", NotFound),
        ("storage 'nope' does not exist", NotFound),
        ("no such user ('nope@pve')", NotFound),
        ("no such cluster node 'nope'", NotFound),
        ("binary not installed: /usr/bin/ceph-mon", NotFound),
        ("hostname lookup 'nope' failed - failed to get address info for: nope", NotFound),
        ("unable to create VM 190 - VM 190 already exists on node 'pve1'", Conflict),
        ("create storage failed: storage ID 'shared' already defined", Conflict),
        ("VM 100 already running", Conflict),
        ("CT 201 not running", Conflict),
        ("VM 100 is running - destroy failed", Conflict),
        ("can't migrate running VM without --online", Conflict),
        ("can't lock file '/var/lock/qemu-server/lock-100.conf' - got timeout", Conflict),
        ("VM is locked (backup)", Conflict),
        ("checksum mismatch (file change by other user?)", OutdatedDigest),
        (
            "detected modified configuration - file changed by other user? Try again.",
            OutdatedDigest,
        ),
        ("can't remove VM 131 - protection mode enabled", Conflict),
        ("unable to use snapshot name 'current' (reserved name)", Conflict),
        ("QEMU guest agent is not running", Conflict),
        ("cfs-lock 'file-user_cfg' error: no quorum!", NoQuorum),
        ("cluster not ready - no quorum?", NoQuorum),
        ("unable to open file '/etc/pve/nodes/pve3/lxc/3.conf' - Permission denied", NoQuorum),
        ("mkdir /etc/pve/nodes/pve3/lxc: Permission denied at X.pm line 3.", NoQuorum),
        ("unable to open file '/mnt/x.conf' - Permission denied", ResponseError),
        ("cannot index groups: ha groups have been migrated to rules", ResponseError),
        ("something else entirely", ResponseError),
    ],
)
def test_the_text_of_a_500_decides_the_exception(message, kind):
    # Quirks 18, 26, 27, 29, 31, 32, 43, 44 and 48: Proxmox answers 500 for many user errors.
    error = error_of(500, message)
    assert type(error) is kind
    assert str(error) == message


@pytest.mark.parametrize(
    ("message", "path", "privileges"),
    [
        ("Permission check failed (/vms/101, VM.PowerMgmt)", "/vms/101", ("VM.PowerMgmt",)),
        (
            "Permission check failed (/storage/local, Datastore.Audit|Datastore.AllocateSpace)",
            "/storage/local",
            ("Datastore.Audit", "Datastore.AllocateSpace"),
        ),
        ("Permission check failed (user != root@pam)", "", ()),
        ("Permission check failed", "", ()),
        ("Permission check failed (URI '/access/password' not available, need a ticket.", "", ()),
    ],
    ids=["one", "any of two", "root only", "unnamed", "ticket only"],
)
def test_a_403_names_the_path_and_the_privileges(message, path, privileges):
    # Quirks 11, 29 and 36.
    error = error_of(403, message)
    assert isinstance(error, Forbidden)
    assert (error.path, error.privileges) == (path, privileges)


def test_a_400_names_the_parameters():
    # Quirks 14, 15 and 29: one unknown parameter is enough, and texts contain newlines.
    errors = {"memory": "invalid format - format error\nmemory.current: too small\n"}
    error = error_of(400, "Parameter verification failed.", errors=errors)
    assert isinstance(error, BadParameters)
    assert error.errors == {"memory": "invalid format - format error memory.current: too small"}
    assert str(error).endswith("memory: invalid format - format error memory.current: too small")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("no such task", NotFound),
        ("No such job 'nightly'", NotFound),
        ("Token already exists.", Conflict),
    ],
)
def test_a_400_about_a_missing_or_existing_object_is_no_bad_parameter(text, kind):
    # Quirks 37 and 64.
    error = error_of(400, "Parameter verification failed.", errors={"id": text})
    assert type(error) is kind
    assert str(error) == text


def test_the_message_has_no_newline_and_may_come_from_the_status_line():
    # Quirk 30.
    assert str(error_of(500, "pool 'x' does not exist")) == "pool 'x' does not exist"
    assert str(response_error("/x", 401, "No ticket", b"")) == "No ticket"


def test_an_unknown_path_is_a_plain_response_error():
    # Quirk 29: Proxmox answers 501 for an unknown path.
    error = error_of(501, "Method 'GET /cluster/ha/rules' not implemented")
    assert (type(error), error.status) == (MethodMissing, 501)


def test_the_node_of_a_broken_proxy_connection_is_named():
    # Quirk 3.
    error = response_error("/nodes/pve2/status", 595, "No route to host", b"")
    assert isinstance(error, NodeUnreachable)
    assert error.node == "pve2"


@given(status=st.integers(400, 599), reason=st.text(max_size=50), body=st.binary(max_size=200))
def test_any_response_becomes_an_error_with_a_message(status, reason, body):
    error = response_error("/nodes/pve1/status", status, reason, body)
    assert error.status == status
    assert str(error)


@pytest.mark.parametrize("version", ["8.4", "9.1", "9.2", "9.2-more"])
def test_recorded_errors_have_the_right_type_and_proxmox_text(version, exchanges):
    for exchange in exchanges[version]:
        if exchange["status"] < 400:
            continue
        body = json.dumps(exchange["body"]).encode() if exchange["body"] else b""
        error = response_error(exchange["path"], exchange["status"], exchange["reason"], body)
        is_unreachable = exchange["status"] > 501 or "RPCEnvironment" in exchange["reason"]
        others = {NodeUnreachable, ResponseError} if is_unreachable else OF_TEXT
        assert type(error) in KINDS.get(exchange["status"], others)
        first_line = exchange["reason"].split(" at /usr/share")[0]
        errors = exchange["body"].get("errors", {}) if exchange["body"] else {}
        assert first_line in str(error) or str(error) in {str(text) for text in errors.values()}


@pytest.mark.parametrize("text", ["mkdir/etc/pve/", "guest-", "hostname lookup ", "(Permission"])
def test_the_time_of_reading_an_error_does_not_grow_with_its_text(text):
    # of megabytes, patterns of quadratic time would take hours
    body = json.dumps({"message": text * 1_000_000}).encode()
    error = response_error("/nodes/pve1/status", 500, text * 100_000, body)
    assert error.status == 500
    assert not means_no_quorum(text * 1_000_000)


HOSTILE_BODIES = {
    "nested": b'{"errors":{"a":[' + b",".join([b"[]"] * 1_000_000) + b"]}}",
    "many": b'{"errors":{' + b",".join(b'"%d":"x"' % n for n in range(5_000)) + b"}}",
    "very many": b'{"errors":{' + b",".join(b'"%d":"x"' % n for n in range(500_000)) + b"}}",
    "long": b'{"errors":{"' + b"a" * 9_000 + b'":"' + b"x" * 9_000 + b'"}}',
    "long message": b'{"message":"' + b"x" * 60_000 + b'"}',
}


@pytest.mark.parametrize("body", HOSTILE_BODIES.values(), ids=list(HOSTILE_BODIES))
@pytest.mark.parametrize("status", [400, 401, 403, 404, 500, 501, 596])
def test_an_error_of_any_length_is_short(status, body, monkeypatch):
    parsed, loads = [], json.loads
    monkeypatch.setattr(
        response_errors.json, "loads", lambda text: parsed.append(len(text)) or loads(text)
    )
    error = response_error("/x", status, "Reason", body)
    assert sum(parsed) <= 64 * 1024
    assert len(error.errors) <= 50
    assert all(len(name) + len(text) <= 5_000 for name, text in error.errors.items())
    assert len(error.message) <= 4_000


def test_an_answer_that_cannot_be_decoded_does_not_repeat_its_values():
    body = msgspec.json.encode({"data": [{"type": "x" * 1_000_000}]})
    with pytest.raises(msgspec.MsgspecError) as caught:
        decode(body, list[Row])
    assert len(str(undecodable("/x", caught.value))) < 1_200
