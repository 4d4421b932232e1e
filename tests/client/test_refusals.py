"""What Proxmox says when it says no, and the error it becomes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxmox_client import (
    BadParameters,
    Conflict,
    Forbidden,
    NodeUnreachable,
    NoQuorum,
    NotFound,
    ResponseError,
    Unauthenticated,
)
from proxmox_client.refusals import refusal

KINDS = {400: {BadParameters, NotFound}, 401: {Unauthenticated}, 403: {Forbidden}}


def told(status: int, message: str, path: str = "/x", **more) -> ResponseError:
    body = json.dumps({"data": None, "message": f"{message}\n", **more}).encode()
    return refusal(path, status, message, body)


@pytest.mark.parametrize(
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
        ("checksum mismatch (file change by other user?)", Conflict),
        ("can't remove VM 131 - protection mode enabled", Conflict),
        ("unable to use snapshot name 'current' (reserved name)", Conflict),
        ("QEMU guest agent is not running", Conflict),
        ("cfs-lock 'file-user_cfg' error: no quorum!", NoQuorum),
        ("cluster not ready - no quorum?", NoQuorum),
        ("cannot index groups: ha groups have been migrated to rules", ResponseError),
        ("something else entirely", ResponseError),
    ],
)
def test_a_500_is_read_by_its_text(message, kind):
    """Quirks 18, 26, 27, 29, 31, 32, 43, 44 and 48: Proxmox says 500 for much that isn't."""
    error = told(500, message)
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
    ids=["one", "any of two", "root only", "untold", "ticket only"],
)
def test_a_403_names_the_path_and_the_privileges(message, path, privileges):
    """Quirks 11, 29 and 36."""
    error = told(403, message)
    assert isinstance(error, Forbidden)
    assert (error.path, error.privileges) == (path, privileges)


def test_a_400_names_the_parameters():
    """Quirks 14, 15 and 29: one unknown parameter is enough, and texts have newlines in them."""
    errors = {"memory": "invalid format - format error\nmemory.current: too small\n"}
    error = told(400, "Parameter verification failed.", errors=errors)
    assert isinstance(error, BadParameters)
    assert error.errors == {"memory": "invalid format - format error memory.current: too small"}
    assert str(error).endswith("memory: invalid format - format error memory.current: too small")


@pytest.mark.parametrize("text", ["no such task", "No such job 'nightly'"])
def test_a_400_about_what_is_missing_is_not_found(text):
    """Quirk 37."""
    error = told(400, "Parameter verification failed.", errors={"id": text})
    assert type(error) is NotFound
    assert str(error) == text


def test_the_message_has_no_newline_and_the_status_line_stands_in_for_a_missing_body():
    """Quirk 30."""
    assert str(told(500, "pool 'x' does not exist")) == "pool 'x' does not exist"
    assert str(refusal("/x", 401, "No ticket", b"")) == "No ticket"


def test_an_unknown_path_is_a_plain_refusal():
    """Quirk 29: 501 is what Proxmox says of paths it doesn't have."""
    error = told(501, "Method 'GET /cluster/ha/rules' not implemented")
    assert (type(error), error.status) == (ResponseError, 501)


def test_the_node_of_a_broken_proxy_connection_is_named():
    """Quirk 3."""
    error = refusal("/nodes/pve2/status", 595, "No route to host", b"")
    assert isinstance(error, NodeUnreachable)
    assert error.node == "pve2"


@given(status=st.integers(400, 599), reason=st.text(max_size=50), body=st.binary(max_size=200))
def test_any_refusal_becomes_an_error_that_says_something(status, reason, body):
    error = refusal("/nodes/pve1/status", status, reason, body)
    assert error.status == status
    assert str(error)


@pytest.mark.parametrize("version", ["8.4", "9.1", "9.2"])
def test_every_recorded_refusal_is_of_its_kind_and_says_what_proxmox_said(version, exchanges):
    for one in exchanges[version]:
        if one["status"] < 400:
            continue
        body = json.dumps(one["body"]).encode() if one["body"] else b""
        error = refusal(one["path"], one["status"], one["reason"], body)
        kinds = KINDS.get(one["status"], {ResponseError, NotFound, Conflict})
        assert type(error) in kinds
        first_line = one["reason"].split(" at /usr/share")[0]
        named = one["body"].get("errors", {}) if one["body"] else {}
        assert first_line in str(error) or str(error) in {str(text) for text in named.values()}
