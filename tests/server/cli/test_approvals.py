"""`pvemcp approvals`: calls that wait are listed and decided from the command line."""

import anyio
import pytest

from pvemcp_server.access import open_access
from pvemcp_server.approvals import Approvals, PlannedCall
from pvemcp_server.config import Config
from pvemcp_server.store import open_store


@pytest.fixture
def number(tmp_path) -> int:
    """Let a call of a key wait, and return its number."""

    async def ask() -> int:
        config = Config(state_dir=tmp_path / "state")
        async with open_store(config) as store, open_access(store) as access:
            key, _ = await access.keys.create("agent", role="Operator")
            call = PlannedCall(
                caller=await access.authenticator.caller(key.id),
                client="claude 1.0",
                tool="DeleteBackup",
                cluster="prod",
                arguments={},
                plan=("Delete a backup.", "It is the last one."),
                shown_arguments={},
                shown_plan=("Delete a backup.", "It is the last one."),
            )
            approval, _ = await Approvals(store, config.base_url).ask(call)
            return approval.id

    return anyio.run(ask)


def test_a_waiting_call_is_listed_and_approved(run, run_json, number):
    shown = run("approvals", "list").stdout
    for text in ("waiting", "agent", "DeleteBackup", "prod", "It is the last one."):
        assert text in shown
    assert "15 minutes to repeat the call" in run("approvals", "approve", number).stdout
    [approval] = run_json("approvals", "list")
    assert approval["state"] == "approved"
    assert approval["decided_by"].startswith("cli:")
    entry = run_json("audit", "list", "--kind", "decision")[0]
    assert (entry["outcome"], entry["tool"]) == ("accepted", "DeleteBackup")
    assert entry["acting"] == approval["decided_by"]


def test_a_waiting_call_is_declined_once(run, run_json, number):
    run("approvals", "decline", number)
    assert run_json("approvals", "list")[0]["state"] == "declined"
    assert "It was decided, has expired" in run("approvals", "approve", number, fails=True).stderr


def test_the_webhook_is_set_shown_and_removed(run, run_json):
    secret = run_json("approvals", "webhook", "set", "https://127.0.0.1:9/hook")["secret"]
    shown = run("approvals", "webhook", "show").stdout
    assert "https://127.0.0.1:9, since" in shown
    assert secret not in shown
    failure = run("approvals", "webhook", "test", fails=True).stderr
    assert "No answer: ConnectError." in failure
    assert run_json("approvals", "webhook", "remove") == {"removed": True}
    assert "There is no webhook" in run("approvals", "webhook", "show", fails=True).stderr
