"""Adding a cluster: what a terminal is asked, every host, and an account of its own."""

import asyncio
import signal

import pytest
import typer

from proxmox_client.api.access import Access
from pvemcp_server.admin import clusters
from pvemcp_server.cli import questions
from pvemcp_server.errors import UnusableCluster

PASSWORD = "proxmox-demo"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands ask; the answers are the test's standard input."""
    monkeypatch.setattr(questions, "can_ask", lambda: True)


def test_a_terminal_is_asked_and_an_account_is_made_for_the_role(run, run_json, emulated, terminal):
    host, user = emulated["hosts"][0], "alice@pve"
    answers = ["shop", host, "y", "", "Operator", user, PASSWORD, ""]
    added = run("clusters", "add", stdin="\n".join([*answers, ""]))
    assert emulated["fingerprints"][0] in added.stderr
    assert "Compare each fingerprint with `pvenode cert info`" in added.stderr
    assert "Made mcp-operator@pve with the role mcp-operator: " in added.stderr
    assert "VM.PowerMgmt" in added.stderr
    assert "Permissions.Modify" not in added.stderr
    assert "Saved shop: Proxmox VE 9.2" in added.stdout
    assert "keys create NAME` makes a key for a client." in added.stdout
    assert PASSWORD not in added.output
    (cluster,) = run_json("clusters", "list")
    assert cluster["fingerprints"] == emulated["fingerprints"][:1]
    assert cluster["identities"][0]["token_id"] == "mcp-operator@pve!pvemcp"
    run("keys", "create", "laptop", "--role", "Operator")
    (report,) = run_json("doctor", "--key", "laptop")
    lacking = [each["text"] for each in report["findings"] if "lacks" in each["text"]]
    assert [text.split()[2] for text in lacking] == ["VM.Config.Disk"]  # reading does not get it
    assert "Not given, because they allow writes too: VM.Config.Disk." in added.stderr
    made = run_json("audit", "list", "--tool", "admin.clusters.make_account")
    assert made[0]["arguments"]["proxmox_role"] == "mcp-operator"
    assert PASSWORD not in str(run_json("audit", "list"))


def test_an_account_of_the_same_name_stays_as_it_is(run, emulated, tmp_path):
    file = tmp_path / "password"
    file.write_text(PASSWORD)
    make = ["clusters", "make-account", "--host", emulated["hosts"][0], "--user", "alice@pve"]
    make += ["--password-file", file, "--fingerprint", emulated["fingerprints"][0]]
    first, second = run(*make).stdout, run(*make).stdout
    assert first.startswith("Token mcp-read-only@pve!pvemcp: ")
    assert second.startswith("Token mcp-read-only-2@pve!pvemcp: ")


def test_an_account_for_reading_can_change_nothing(run_json, emulated, tmp_path):
    file = tmp_path / "password"
    file.write_text(PASSWORD)
    make = ["clusters", "make-account", "--host", emulated["hosts"][0], "--user", "alice@pve"]
    make += ["--password-file", file, "--fingerprint", emulated["fingerprints"][0]]
    made = run_json(*make)
    writing = [name for name in made["privileges"] if not name.endswith(".Audit")]
    assert writing == ["Sys.Syslog"]
    assert "VM.Backup" in made["withheld"]
    operator = run_json(*make, "--role", "Operator")
    assert {"VM.Backup", "VM.PowerMgmt"} <= set(operator["privileges"])


def test_a_user_who_may_not_make_accounts_is_refused_and_nothing_is_made(run, emulated, tmp_path):
    file = tmp_path / "password"
    file.write_text(PASSWORD)
    make = ["clusters", "make-account", "--host", emulated["hosts"][0], "--user", "bob@pve"]
    make += ["--password-file", file, "--fingerprint", emulated["fingerprints"][0]]
    wrong = run(*make, fails=True).stderr
    assert "/access" in wrong
    assert wrong.count("\n") == 1
    file.write_text("wrong")
    assert PASSWORD not in run(*make, fails=True).stderr


def test_certificates_that_are_not_confirmed_save_nothing(run, run_json, emulated, terminal):
    answers = ["shop", emulated["hosts"][0], "n"]
    declined = run("clusters", "add", stdin="\n".join([*answers, ""]), fails=True)
    assert "Nothing was saved: the certificates are not trusted." in declined.stderr
    assert run_json("clusters", "list") == []


def test_a_wrong_answer_is_one_line_and_the_same_question_again(run, run_json, emulated, terminal):
    host, other = emulated["hosts"][:2]
    refusals = {
        "sh op!": "name: 1 to 64 letters",
        "shop": "",
        "nosuch.invalid": "No host answers: check names, ports",
        "127.0.0.1:99999": "hosts: '127.0.0.1:99999' is not a host",
        f"https://{host}/": "hosts: one or more of host or host:port, without a scheme",
        f"{host}, {other}": "",
        "y": "",
        "mcp@pve": "token_id: must have the form user@realm!name",
        f"{emulated['token_id']}\nwrong": "Proxmox refused mcp@pve!emulator: the token is",
        "": "",
        "readonly": "No role 'readonly'. Did you mean Read-only?",
        "Read-only": "",
        "alice": "user: must have the form user@realm",
        "alice@pve\nwrong\n": "Proxmox refused alice@pve: user, password or code",
        f"carol@pve\n{PASSWORD}\n": "carol@pve has a second factor, and no code was given",
        f"carol@pve\n{PASSWORD}\n000000": "Proxmox refused carol@pve: user, password or code",
        f"bob@pve\n{PASSWORD}\n": "bob@pve lacks Sys.Modify on /access",
        f"alice@pve\n{PASSWORD}\n": "",
    }
    added = run("clusters", "add", stdin="\n".join([*refusals, ""]))
    lines = added.stderr.splitlines()
    assert [each for each in refusals.values() if not any(each in line for line in lines)] == []
    assert "under Clusters" not in added.stderr  # the user of this command is the administrator
    assert "Saved shop: " in added.stdout
    (cluster,) = run_json("clusters", "list")
    assert cluster["hosts"] == [host, other]


def test_a_name_in_use_is_refused_before_an_account_is_made(run, run_json, emulated, tmp_path):
    file = tmp_path / "secret"
    file.write_text(emulated["token_secret"])
    add = ["clusters", "add", "shop", "--host", emulated["hosts"][0]]
    add += ["--fingerprint", emulated["fingerprints"][0]]
    run(*add, "--token-id", emulated["token_id"], "--token-secret-file", file)
    for wrong in (add, [*add[:2], "sh op!", *add[3:]]):
        assert run(*wrong, fails=True).stderr.startswith("name: ")
    assert run_json("audit", "list", "--tool", "admin.clusters.make_account") == []


def test_an_account_that_was_made_is_tried_again_and_the_command_removes_it(
    run, run_json, emulated, terminal, monkeypatch
):
    outcomes = iter([UnusableCluster("No answer.", about="hosts")])
    check = clusters.check_and_add

    async def fail_once(context, fields):
        for failure in outcomes:
            raise failure
        return await check(context, fields)

    monkeypatch.setattr(clusters, "check_and_add", fail_once)
    answers = ["shop", emulated["hosts"][0], "y", "", "Operator", "alice@pve", PASSWORD, "", ""]
    added = run("clusters", "add", stdin="\n".join([*answers, ""]))
    made = added.stderr.partition("Made ")[2].partition("@")[0]
    assert f"No answer. The account of {made}@pve!pvemcp stays on Proxmox" in added.stderr
    assert f"`pveum user delete {made}@pve && pveum role delete {made}`" in added.stderr
    (cluster,) = run_json("clusters", "list")
    assert cluster["identities"][0]["token_id"] == f"{made}@pve!pvemcp"
    assert len(run_json("audit", "list", "--tool", "admin.clusters.make_account")) == 1


@pytest.mark.parametrize("option", ["--insecure", "--test-only"])
def test_no_account_is_made_that_would_be_lost_or_whose_password_would_be(
    run, emulated, terminal, option
):
    answers = ["shop", emulated["hosts"][0], *(["y"] if option == "--test-only" else [])]
    asked = run("clusters", "add", option, stdin="\n".join([*answers, ""]), fails=True)
    assert "API token, as user@realm!name:Aborted." in asked.stderr


@pytest.mark.parametrize("lacking", ["Administrator", "PVEAuditor"])
def test_a_host_without_the_roles_of_proxmox_is_named_and_nothing_is_made(
    run, emulated, tmp_path, monkeypatch, lacking
):
    listed = Access.roles

    async def short(self):
        return [role for role in await listed(self) if role.role_id != lacking]

    monkeypatch.setattr(Access, "roles", short)
    file = tmp_path / "password"
    file.write_text(PASSWORD)
    make = ["clusters", "make-account", "--host", emulated["hosts"][0], "--user", "alice@pve"]
    make += ["--password-file", file, "--fingerprint", emulated["fingerprints"][0]]
    wrong = run(*make, fails=True).stderr
    assert wrong.startswith(f"The host lists no role {lacking}, which each Proxmox VE has")
    assert wrong.count("\n") == 1


def test_a_wrong_fingerprint_of_a_new_account_is_named(run, emulated, tmp_path):
    file = tmp_path / "password"
    file.write_text(PASSWORD)
    make = ["clusters", "make-account", "--host", emulated["hosts"][0], "--password-file", file]
    assert run(*make, "--fingerprint", "AB:CD", fails=True).stderr.startswith("fingerprints: ")


def test_ctrl_c_ends_a_question_at_once(terminal, monkeypatch):
    def interrupt(*_: object, **__: object) -> str:
        signal.raise_signal(signal.SIGINT)
        return "asked"

    async def question() -> str:
        return questions.ask("name", "Name")

    monkeypatch.setattr(typer, "prompt", interrupt)
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(question())


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        ([], "name: is needed"),
        (["shop"], "--host: is needed"),
        (["shop", "--host", "127.0.0.1:1"], "--token-id: is needed"),
        (["shop", "--host", "127.0.0.1:1", "--token-id", "a@pve!b"], "--token-secret-file: is"),
    ],
    ids=["name", "host", "token", "secret"],
)
def test_without_a_terminal_what_is_missing_is_named(run, words, missing):
    assert run("clusters", "add", *words, fails=True).stderr.startswith(missing)


def test_every_host_is_tried_and_a_silent_one_is_named(run, emulated, tmp_path):
    file = tmp_path / "secret"
    file.write_text(emulated["token_secret"])
    add = ["clusters", "add", "prod", "--host", emulated["hosts"][0], "--host", "127.0.0.1:1"]
    add += ["--token-id", emulated["token_id"], "--token-secret-file", file]
    added = run(*add, "--fingerprint", emulated["fingerprints"][0]).stdout
    assert "Saved prod" in added
    assert "No answer of 127.0.0.1:1: " in added


def test_a_host_whose_certificate_is_not_pinned_is_refused_with_its_fingerprint(
    run, run_json, emulated_demo, tmp_path
):
    prod, other = emulated_demo["prod"], emulated_demo["home-lab"]
    file = tmp_path / "secret"
    file.write_text(prod["token_secret"])
    add = ["clusters", "add", "prod", "--host", prod["hosts"][0], "--host", other["hosts"][0]]
    add += ["--token-id", prod["token_id"], "--token-secret-file", file]
    wrong = run(*add, "--fingerprint", prod["fingerprints"][0], fails=True).stderr
    assert f"{other['hosts'][0]} shows {other['fingerprints'][0]}" in wrong
    assert run_json("clusters", "list") == []
