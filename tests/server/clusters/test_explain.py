"""Errors of Proxmox in words: the fact and the next step."""

import pytest

from proxmox_client import Forbidden, TaskFailed
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


def test_a_refusal_without_path_names_the_tool_that_explains_it():
    error = Forbidden(403, "Permission check failed", "Permission check failed")
    assert explain(error, "narrow@pve!t0").endswith(
        "'Permission check failed'. ExplainAccess says which privileges are missing."
    )
