"""Errors of Proxmox in words: the fact and the next step."""

import pytest

from proxmox_client import Forbidden, PlainPort, TaskFailed, TlsError, Unauthenticated
from proxmox_client.response_errors import response_error
from pvemcp_server.clusters.explain import LACKS_QUORUM, explain

READ_ONLY = "unable to open file '/etc/pve/nodes/pve1/lxc/302.conf.tmp.7' - Permission denied"
NO_QUORUM = [
    "cluster not ready - no quorum?",
    "cfs-lock 'file-user_cfg' error: no quorum!",
    READ_ONLY,
]


@pytest.mark.parametrize("text", NO_QUORUM)
def test_lost_quorum_explains_every_error_that_it_causes(text):
    answer = response_error("/nodes/pve1/qemu/302/status/start", 500, text, b"")
    failed = TaskFailed("UPID:x", text)
    in_log = TaskFailed("UPID:x", "job errors", ["INFO: x", f"ERROR: Backup of VM 1: {text}"])
    for error in (answer, failed, in_log):
        assert explain(error).startswith(LACKS_QUORUM)


@pytest.mark.parametrize("text", ["job errors", "unable to open file '/mnt/a' - Permission denied"])
def test_other_failures_say_nothing_of_quorum(text):
    assert "quorum" not in explain(TaskFailed("UPID:x", text))


OWN = "bob@pve!pvemcp-aB3dE6gH"


def test_the_token_of_a_user_s_connection_is_not_for_administrators_to_fix():
    refused = Unauthenticated(401, "authentication failure", "authentication failure")
    assert explain(refused, OWN).endswith("Connect again to sign in.")
    assert "An administrator can fix it" in explain(refused, "bob@pve!pvemcp")
    lacking = response_error("/x", 403, "Permission check failed (/vms/1, VM.Audit)", b"")
    assert "bob@pve" in explain(lacking, OWN)
    assert "token" not in explain(lacking, OWN).partition(OWN)[2]


def test_a_refusal_without_path_names_the_tool_that_explains_it():
    error = Forbidden(403, "Permission check failed", "Permission check failed")
    assert explain(error, "narrow@pve!t0").endswith(
        "'Permission check failed'. ExplainAccess says which privileges are missing."
    )


def test_a_node_with_a_wrong_certificate_is_not_taken_for_silent():
    reason = "Errors during TLS negotiation, request sending: certificate verify failed"
    error = response_error("/nodes/pve3/status", 596, reason, b"")
    assert "does not trust the certificate of node pve3" in explain(error)
    assert "pvecm updatecerts" in explain(error)
    error = response_error("/nodes/pve3/status", 596, "Connection timed out", b"")
    assert explain(error).startswith("Node pve3 does not answer")


def test_a_host_that_is_not_asked_has_the_next_step():
    plain = PlainPort("pve1.example:80", "the port does not speak TLS")
    assert explain(plain) == (
        "Nothing was asked: pve1.example:80: the port does not speak TLS. Check host and port: "
        "Proxmox VE listens at 8006, a backup server at 8007."
    )
    assert "`pvemcp doctor`" in explain(TlsError("pve1.example", "the certificate is not trusted"))


@pytest.mark.parametrize(
    ("text", "waited"),
    [
        ("can't lock file '/var/lock/qemu-server/lock-101.conf' - got timeout", True),
        ("clone failed: cfs-lock 'storage-a' error: got lock request timeout", True),
        ("VM 101 qmp command 'guest-ping' failed - got timeout", False),
    ],
)
def test_a_lock_that_proxmox_waited_for_has_a_next_step(text, waited):
    answer = response_error("/nodes/pve1/qemu/101/status/reboot", 500, text, b"")
    for error in (answer, TaskFailed("UPID:x", text), TaskFailed("UPID:x", text, ["INFO: x"])):
        assert ("Another operation holds the lock" in explain(error)) == waited
