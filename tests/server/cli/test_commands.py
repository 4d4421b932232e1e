"""Each command works on the state, prints what it did, and is recorded in the audit."""

import asyncio
import json
import os
import pwd
import shutil
import socket
import sys
import tomllib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pyotp import TOTP
from typer.main import get_command

from pvemcp_server import __version__
from pvemcp_server.access.second_factors import new_totp_secret
from pvemcp_server.audit.reader import AuditReader
from pvemcp_server.cli import context
from pvemcp_server.cli.main import MODULES, app
from pvemcp_server.cli.quickstart import print_welcome
from pvemcp_server.cli.state import open_state, place_of
from pvemcp_server.config import Config
from pvemcp_server.program_name import this_command
from pvemcp_server.settings import Values
from pvemcp_server.store.records import AdminRole
from pvemcp_server.store.state_lock import state_lock


def test_the_help_names_every_command(run):
    listed = [line.strip("│ ").partition(" ")[0] for line in run("--help").stdout.splitlines()]
    assert [name for name in MODULES if name not in listed] == []


def test_the_help_says_where_the_configuration_comes_from(run):
    assert "PVEMCP_*" in run("--help").stdout


def test_the_help_of_a_time_shows_an_example(run):
    shown = run("audit", "list", "--help").stdout
    assert "2026-11-22" in shown
    assert "%" not in shown


def test_a_key_is_created_changed_regenerated_and_removed(run, run_json):
    created = run_json("keys", "create", "laptop", "--expires", "2031-01-02T00:00:00+0000")
    assert created["secret"].startswith("pvemcp_")
    assert (created["role"], created["clusters"]) == ("Read-only", ["*"])
    assert run_json("keys", "regenerate", "laptop")["secret"] != created["secret"]
    assert run_json("keys", "change", "laptop", "--role", "Operator")["role"] == "Operator"
    assert run_json("keys", "disable", created["id"])["enabled"] is False
    assert run_json("keys", "enable", created["id"])["enabled"] is True
    run("keys", "change", "laptop", "--allow-from", "10.0.0.0/8", "--format", "Csv")
    freed = run_json(
        *("keys", "change", "laptop", "--expires", "never"),
        *("--allow-from", "any", "--format", "any"),
    )
    assert (freed["expires"], freed["allow_from"], freed["output_format"]) == (None, [], None)
    listed = run("keys", "list").stdout
    assert "laptop" in listed
    assert created["secret"] not in listed
    assert {row["tool"] for row in run_json("keys", "rights", "laptop")} > {"ListVms", "MigrateVm"}
    run("keys", "remove", "laptop")
    assert run_json("keys", "list") == []
    tools = [row["tool"] for row in run_json("audit", "list")]
    assert tools[-1] == "admin.keys.create"
    assert tools[0] == "admin.keys.remove"


def test_an_expiry_is_a_distance_a_date_or_a_time(run, run_json):
    start = datetime.now(UTC)
    soon = datetime.fromisoformat(run_json("keys", "create", "a", "--expires", "90d")["expires"])
    assert timedelta(days=90) <= soon - start < timedelta(days=91)
    date = run_json("keys", "create", "b", "--expires", "2031-01-02")["expires"]
    assert date == "2031-01-02T23:59:59Z"
    for wrong, fact in (("tomorrow", "'tomorrow' is no time: 90d, 12h, "), ("90", "'90' is no")):
        assert run("keys", "create", "c", "--expires", wrong, fails=True).stderr.startswith(
            f"expires: {fact}"
        )


def test_a_key_for_an_unknown_cluster_is_refused(run):
    wrong = run("keys", "create", "laptop", "--cluster", "nosuch", fails=True)
    assert wrong.stderr == "No cluster 'nosuch'.\n"


def test_a_key_has_a_budget_of_its_own_or_that_of_the_setting(run, run_json):
    run("keys", "create", "laptop", "--destructive-per-day", "7")
    assert run("keys", "budget", "laptop").stdout.startswith("0 of 7 sent today; renews at 20")
    run("keys", "change", "laptop", "--destructive-per-day", "default")
    assert run_json("keys", "budget", "laptop")["limit"] == 100
    wrong = run("keys", "change", "laptop", "--destructive-per-day", "many", fails=True)
    assert wrong.stderr.startswith("destructive_per_day: ")


def test_writes_are_frozen_listed_and_allowed_again(run, run_json):
    frozen = run("clusters", "freeze-all", "--reason", "fire").stdout
    assert frozen.startswith("Writes are frozen on all clusters since 20")
    assert frozen.endswith(": fire.\n")
    assert "all clusters" in run("clusters", "freezes").stdout
    assert [row["reason"] for row in run_json("clusters", "freezes")] == ["fire"]
    unknown = run("clusters", "freeze", "prod", fails=True)
    assert unknown.stderr.startswith("No cluster 'prod'")
    assert run("clusters", "unfreeze-all").stdout.startswith("Ended the freeze of all clusters, ")
    assert run("clusters", "unfreeze-all", fails=True).stderr.startswith("No freeze of all.")
    tools = [row["tool"] for row in run_json("audit", "list")]
    assert tools[:2] == ["admin.freezes.end_all", "admin.freezes.start_all"]


def test_an_error_is_one_line_with_exit_code_one(run):
    wrong = run("keys", "create", "x", "--role", "Operatr", fails=True)
    assert wrong.stderr == "No role 'Operatr'. Did you mean Operator?\n"
    strange = run("keys", "create", "x", "--format", "Xml", fails=True)
    assert strange.stderr.startswith("output_format: ")
    assert strange.exit_code == 1


def test_a_role_is_created_from_options_or_a_file(run, run_json, tmp_path):
    run("roles", "create", "web", "--reads", "--tool", "ChangeVmState", "--tag", "web")
    (grant,) = json.loads(run("roles", "show", "web").stdout)
    assert grant["tools"] == ["*:read", "ChangeVmState"]
    assert grant["resources"] == {"tags": ["web"]}
    file = tmp_path / "grants.json"
    file.write_text(json.dumps([grant, {**grant, "clusters": ["prod"]}]))
    assert len(run_json("roles", "change", "web", "--grants-file", file)["grants"]) == 2
    assert run_json("roles", "change", "web", "--new-name", "dmz")["name"] == "dmz"
    run("roles", "remove", "dmz")
    assert "built in" in run("roles", "remove", "Operator", fails=True).stderr


def test_a_role_lists_programs_and_files(run):
    inside = ("--tool", "ExecInGuest", "--program", "uptime", "--program", "df", "--file", "/etc/")
    run("roles", "create", "inside", *inside)
    (grant,) = json.loads(run("roles", "show", "inside").stdout)
    assert (grant["programs"], grant["files"]) == (["df", "uptime"], ["/etc/"])
    wrong = run("roles", "change", "inside", "--tool", "ExecInGuest", "--file", "etc", fails=True)
    assert wrong.stderr.startswith("grants.0.files: 'etc' is no absolute path")


def test_an_unknown_tool_is_refused_in_roles_and_keys(run, run_json):
    role = run("roles", "create", "web", "--reads", "--tool", "MigrateVmm", fails=True)
    assert role.stderr.startswith("grants.0.tools: No tool 'MigrateVmm'. Did you mean MigrateVm")
    key = run("keys", "create", "laptop", "--tool", "MigrateVmm", fails=True)
    assert key.stderr.startswith("tools: No tool 'MigrateVmm'. Did you mean MigrateVm")
    run("keys", "create", "laptop", "--tool", "ListVms")
    run("keys", "change", "laptop", "--tool", "MigrateVmm", fails=True)
    assert run_json("keys", "list")[0]["tools"] == ["ListVms"]


def test_a_key_gets_and_loses_toolsets(run, run_json):
    run("keys", "create", "laptop")
    for options, toolsets in (
        (("--toolset", "content", "--toolset", "api"), ["api", "content"]),
        (("--toolset", "apis"), None),
        (("--toolset", "none"), []),
    ):
        run("keys", "change", "laptop", *options, fails=toolsets is None)
        if toolsets is not None:
            assert run_json("keys", "list")[0]["toolsets"] == toolsets


def test_brackets_are_printed_and_not_read_as_markup(run):
    run("roles", "create", "web", "--reads", "--description", "see [/docs] and [bold]wiki")
    assert "see [/docs] and [bold]wiki" in run("roles", "list").stdout


def test_the_welcome_prints_a_whole_ipv6_address(tmp_path, capsys):
    async def start() -> None:
        async with open_state(Config.load(host="fd00::1", state_dir=tmp_path)) as state:
            await print_welcome(state, demo=False)

    asyncio.run(start())
    assert "http://[fd00::1]:8811/admin" in capsys.readouterr().out


def test_a_start_with_the_endpoint_off_says_how_to_turn_it_on(tmp_path, capsys):
    async def start() -> None:
        async with open_state(Config.load(state_dir=tmp_path)) as state:
            await print_welcome(state, demo=False)
            await state.settings.change({"enabled": True}, by="test")
            await print_welcome(state, demo=False)

    asyncio.run(start())
    assert capsys.readouterr().out.count("settings set enabled=true` turns it on") == 1


def test_the_welcome_names_the_command_as_a_shell_finds_it(monkeypatch):
    monkeypatch.setattr(sys, "argv", [".venv/bin/pvemcp", "run"])
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert this_command() == ".venv/bin/pvemcp"
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert this_command() == "pvemcp"


def test_the_next_command_after_a_new_key_is_named_as_a_shell_finds_it(run, monkeypatch):
    monkeypatch.setattr(sys, "argv", [".venv/bin/pvemcp", "keys"])
    monkeypatch.setattr(shutil, "which", lambda _: None)
    made = run("keys", "create", "laptop")
    assert "Other clients: .venv/bin/pvemcp claude-config" in made.stdout


def test_the_welcome_is_one_screen_that_begins_with_the_page_to_open(tmp_path, capsys):
    async def start() -> None:
        async with open_state(Config.load(state_dir=tmp_path)) as state:
            await print_welcome(state, demo=True)
            await print_welcome(state, demo=True)

    asyncio.run(start())
    lines = capsys.readouterr().out.splitlines()
    second = lines.index(lines[1], 2) - 1
    first, again = lines[:second], lines[second:]
    assert len(first) < 20
    assert first[1] == f"pvemcp {__version__}, the AI server for Proxmox VE"
    assert first[3].startswith("Admin pages:   http://127.0.0.1:8811/admin, user admin, one-time")
    key = first[4].removeprefix("MCP endpoint:  http://127.0.0.1:8811/mcp/").split()[0]
    assert key.startswith("pvemcp_")
    assert first[5] == f"State:         {tmp_path}"
    assert first[7].startswith("Claude Code:   claude mcp add ")
    assert first[7].endswith(f'http://127.0.0.1:8811/mcp --header "X-API-Key: {key}"')
    assert "one-time password" not in "".join(again)
    assert "admin reset-password admin" in again[3]
    assert key not in "".join(again)


def test_the_welcome_names_an_owner_who_signs_in_with_a_password(tmp_path, capsys):
    async def start() -> None:
        async with open_state(Config.load(state_dir=tmp_path)) as state:
            admins = state.access.admins
            await admins.create("zoe", "a password of her own")
            await admins.create("ada", None, subject="https://issuer.example/ada")
            await admins.create("bob", "a password of his own", role=AdminRole.AUDITOR)
            await admins.create("cyd", "a password of her own")
            await admins.set_enabled("cyd", enabled=False)
            await print_welcome(state, demo=False)

    asyncio.run(start())
    assert "/admin, user zoe (lost password: " in capsys.readouterr().out


def test_what_a_start_changes_is_in_the_audit(tmp_path):
    async def start() -> list[tuple[str | None, dict[str, Any]]]:
        async with open_state(Config.load(state_dir=tmp_path)) as state:
            await print_welcome(state, demo=True)
            await print_welcome(state, demo=True)  # the next start changes nothing
            return [(e.tool, dict(e.arguments)) for e in await AuditReader(state.store).find()]

    entries = asyncio.run(start())
    key = next(arguments["key"] for tool, arguments in entries if tool == "admin.keys.create")
    assert entries == [
        ("admin.settings.change", {"enabled": True}),
        ("admin.keys.create", {"key": key, "name": "first", "role": "Administrator"}),
        ("admin.admins.add", {"name": "admin", "role": "owner"}),
    ]


def test_settings_are_set_all_or_none(run, run_json):
    run("settings", "set", "enabled=true", "output_format=Csv", 'protected_tags=["a","b"]')
    values = {row["name"]: row["value"] for row in run_json("settings", "list")}
    assert (values["enabled"], values["output_format"]) == (True, "Csv")
    assert values["protected_tags"] == ["a", "b"]
    run("settings", "set", "enabled=false", "row_cap=1", fails=True)
    assert {row["name"]: row["value"] for row in run_json("settings", "list")}["enabled"] is True


def test_a_long_list_of_names_is_cut_and_counted(run):
    wrong = run("settings", "set", "zzzzzz=1", fails=True).stderr
    names = wrong.partition("There are ")[2]
    assert names.endswith(f" and {len(Values.model_fields) - 10} more.\n")
    assert names.count(",") == 9


def test_administrators_are_added_disabled_and_removed(run, run_json):
    first = run_json("admin", "add", "ada")
    assert first["must_change"]
    assert run_json("admin", "reset-password", "ada")["password"] != first["password"]
    run("admin", "disable", "ada", fails=True)
    run("admin", "add", "grace")
    assert run_json("admin", "disable", "ada")["enabled"] is False
    assert run_json("admin", "enable", "ada")["enabled"] is True
    assert run_json("admin", "sessions", "ada") == []
    assert "Ended 0 sessions of ada." in run("admin", "end-sessions", "ada").stdout
    assert "only owner" not in run("admin", "set-role", "ada", "auditor").stderr
    assert "only owner" in run("admin", "set-role", "grace", "key-issuer", fails=True).stderr
    assert run_json("admin", "set-role", "ada", "owner")["role"] == "owner"
    run("admin", "remove", "grace")
    assert [row["name"] for row in run_json("admin", "list")] == ["ada"]


def test_second_factors_are_listed_and_removed(run, run_json):
    run("admin", "add", "ada")

    async def lose_a_phone() -> None:
        async with open_state(Config.load()) as state:
            ada = await state.access.admins.get("ada")
            secret = new_totp_secret()
            factors = state.access.second_factors
            await factors.add_totp(ada, "phone", secret, TOTP(secret).now())
            await state.access.sessions.open(ada, address="::1", agent="")

    asyncio.run(lose_a_phone())
    [factor] = run_json("admin", "second-factors", "ada")
    assert (factor["kind"], factor["name"]) == ("totp", "phone")
    assert "totp" in run("admin", "list").stdout
    [session] = run_json("admin", "sessions", "ada")
    assert "Ended session" in run("admin", "end-session", "ada", session["id"]).stdout
    removed = run("admin", "remove-second-factors", "ada").stdout
    assert removed == "Removed the second factors of ada.\n"
    assert run_json("admin", "second-factors", "ada") == []
    last, ended, *_ = run_json("audit", "list")
    assert last["tool"] == "admin.admins.remove_second_factors"
    assert last["key_name"].startswith("cli:")
    assert ended["tool"] == "admin.admins.end_session"


def test_the_command_line_is_the_way_back_to_local_sign_in(run, run_json, monkeypatch):
    off = ("settings", "set", "local_sign_in=false")
    assert "OpenID Connect is not configured" in run(*off, fails=True).stderr
    issuer = "https://issuer.example"
    monkeypatch.setenv("PVEMCP_OIDC_ISSUER", issuer)
    monkeypatch.setenv("PVEMCP_OIDC_CLIENT_ID", "pvemcp")
    monkeypatch.setenv("PVEMCP_OIDC_ADMINS", "ada@example.org")
    assert "no owner has signed in" in run(*off, fails=True).stderr

    async def sign_in() -> None:
        async with open_state(Config.load()) as state:
            await state.access.admins.sign_in_external(f"{issuer} 1", "ada@example.org")

    asyncio.run(sign_in())
    run("admin", "add", "grace")
    run(*off)
    assert "only owner" in run("admin", "disable", "ada@example.org", fails=True).stderr
    can_sign_in = {row["name"]: row["can_sign_in"] for row in run_json("admin", "list")}
    assert can_sign_in == {"ada@example.org": True, "grace": False}
    run("settings", "set", "local_sign_in=true")
    run("admin", "disable", "ada@example.org")


def test_a_list_from_a_folder_without_a_state_is_an_error(run, tmp_path):
    for words in (["keys", "list"], ["status"], ["audit", "list"], ["tools", "call", "ListVms"]):
        wrong = run(*words, "--state-dir", tmp_path / "other", fails=True)
        assert wrong.stderr.startswith(f"There is no state in {tmp_path / 'other'}. The first ")
        assert wrong.stdout == ""
    assert not (tmp_path / "other").exists()


def test_a_command_that_writes_names_the_state_that_it_wrote(run, run_json, tmp_path):
    other = tmp_path / "other"
    assert run("keys", "create", "one").stderr == f"State: {tmp_path / 'state'}\n"
    assert run("keys", "create", "two", "--state-dir", other).stderr == f"State: {other}\n"
    assert run("keys", "list").stderr == ""
    assert [row["name"] for row in run_json("keys", "list")] == ["one"]
    assert [row["name"] for row in run_json("keys", "list", "--state-dir", other)] == ["two"]
    assert [row["name"] for row in run_json("--state-dir", other, "keys", "list")] == ["two"]
    both = run_json("--state-dir", tmp_path / "none", "keys", "list", "--state-dir", other)
    assert [row["name"] for row in both] == ["two"]
    assert [row["name"] for row in run_json("keys", "list")] == ["one"]  # the option has ended


def test_a_database_elsewhere_is_named_without_its_password():
    config = Config(state_dir="/var/lib/pvemcp", database_url="postgresql://u:p4ss@db/pvemcp")
    shown = "/var/lib/pvemcp, database postgresql+asyncpg://u:***@db/pvemcp"
    assert place_of(config) == shown


def test_every_command_takes_the_state_folder_as_an_option():
    def without(command: Any, path: str) -> list[str]:
        if commands := getattr(command, "commands", None):
            return [each for name in commands for each in without(commands[name], f"{path} {name}")]
        return [] if any("--state-dir" in each.opts for each in command.params) else [path]

    assert without(get_command(app), "pvemcp") == []


def test_a_service_token_is_created_shown_once_and_revoked(run, run_json):
    scopes = {row["name"]: row["operations"] for row in run_json("tokens", "scopes")}
    assert "keys.create" in scopes["keys:write"]
    made = run("tokens", "create", "robot", "--scope", "keys:read", "--scope", "audit:read").stdout
    (token,) = run_json("tokens", "list")
    assert token["scopes"] == ["audit:read", "keys:read"]
    assert token["created_by"].startswith("cli:")
    assert f"pvemcp_admin_{token['id']}_" in made
    assert "No scope 'x'" in run("tokens", "create", "b", "--scope", "x", fails=True).stderr
    assert run_json("tokens", "revoke", "robot") == {"revoked": "robot"}
    assert run_json("tokens", "list") == []


def test_a_cluster_is_added_examined_bound_and_queried(run, run_json, emulated, tmp_path):
    token_id, secret = emulated["token_id"], emulated["token_secret"]
    file = tmp_path / "secret"
    file.write_text(secret)
    (shown,) = run_json("clusters", "fingerprint", emulated["hosts"][0])
    token = ["--token-id", token_id, "--token-secret-file"]
    add = ["clusters", "add", "prod", "--host", emulated["hosts"][0], *token, file]
    assert "Compare it with" in run(*add, fails=True).stderr
    add += ["--fingerprint", shown["fingerprint"]]
    assert "prod answers" in run(*add, "--test-only").stdout
    assert run_json("clusters", "list") == []
    assert run_json(*add)["version"].startswith("9.2")
    assert "prod answers" in run("clusters", "test").stdout
    assert list(run_json("clusters", "test")) == ["prod"]

    run("clusters", "identities", "add", "prod", "reader", *token, "-", stdin=secret)
    run("keys", "create", "laptop")
    run("clusters", "bind", "prod", "reader", "--key", "laptop")
    bound = {
        row["name"]: row["bound"] for row in run_json("clusters", "identities", "list", "prod")
    }
    assert bound == {"default": [], "reader": [{"key": "laptop", "role": None}]}
    run("clusters", "unbind", "prod", "--key", "laptop")
    assert run_json("clusters", "change", "prod", "--protected")["protected"] is True
    elsewhere = ["clusters", "change", "prod", "--host", emulated["hosts"][0], "--insecure"]
    assert "Missing: default, reader" in run(*elsewhere, fails=True).stderr
    given = ["--token-secret-file", file, "--token-secret-file", f"reader={file}"]
    assert run_json(*elsewhere, *given)["tls_mode"] == "insecure"

    (report,) = run_json("doctor", "--key", "laptop")
    assert report["account"] == token_id
    assert "Proxmox VE 9.2" in run("doctor").stdout
    assert run_json("status")[0]["nodes_online"] == 4
    assert "answers prod: 4 of 5 nodes online" in run("status").stdout
    call = ["tools", "call", "ListNodes", '{"cluster_name": "prod"}']
    assert "pve05" in json.loads(run(*call, "--json").stdout)["data"]
    assert "No cluster" in run(*call[:3], '{"cluster_name": "x"}', fails=True).stdout
    query = '{"from": "nodes", "select": ["node"]}'
    assert run("queries", "run", query).stdout.count("pve0") == 5
    run("queries", "save", "nodes", query)
    assert run_json("queries", "run", "nodes", "--key", "laptop")["columns"][-1] == "node"
    run("queries", "remove", "nodes")
    assert run_json("secrets", "rotate") == {"encrypted": 2}
    assert "prod answers" in run("clusters", "test").stdout
    assert list(run_json("clusters", "test")) == ["prod"]
    run("clusters", "remove", "prod")
    assert run_json("clusters", "list") == []


def test_the_audit_is_exported_and_verified(run, run_json):
    run("settings", "set", "row_cap=50")
    assert run("audit", "export").stdout.count("admin.settings.change") == 1
    (line,) = run(
        "audit", "export", "--format", "json", "--tool", "admin.settings.change"
    ).stdout.splitlines()
    assert json.loads(line)["arguments"] == {"row_cap": 50}
    verified = run_json("audit", "verify")
    assert verified["whole"]
    assert "The chain is whole." in run("audit", "verify").stdout


def test_the_audit_is_searched_by_day_kind_and_address(run, run_json):
    run("settings", "set", "row_cap=50")
    today = run_json("audit", "list")[0]["at"][:10]
    found = run_json("audit", "list", "--since", today, "--kind", "admin", "--limit", "1")
    assert found[0]["tool"] == "admin.settings.change"
    assert run_json("audit", "list", "--until", today) == []
    assert len(run_json("audit", "calls")) == 24
    assert run_json("audit", "list", "--address", "192.0.2.1") == []
    assert run("audit", "export", "--kind", "refused").stdout.splitlines()[1:] == []
    assert "kind: must be" in run("audit", "list", "--kind", "odd", fails=True).stderr
    wrong = run("audit", "export", "--format", "xml", fails=True)
    assert wrong.stderr == "--format: must be 'csv' or 'json'.\n"


def test_another_master_key_replaces_the_first(run, run_json, tmp_path):
    run("keys", "create", "laptop")
    new = tmp_path / "new.key"
    new.write_text("ab" * 32)
    assert "put the new master key" in run("secrets", "change-master", "--new-key-file", new).stdout
    assert "does not belong" in run("keys", "list", fails=True).stderr
    new.replace(tmp_path / "state" / "master.key")
    assert [row["name"] for row in run_json("keys", "list")] == ["laptop"]
    assert run_json("audit", "verify")["whole"]
    short = run("secrets", "change-master", "--new-key-file", "-", stdin="abc", fails=True)
    assert "64 hex digits" in short.stderr


def test_the_master_key_is_not_replaced_while_a_server_runs(run, run_json, tmp_path):
    new = tmp_path / "new.key"
    new.write_text("ab" * 32)
    run_json("keys", "list")
    with state_lock(Config.load(), shared=False):
        refused = run("secrets", "change-master", "--new-key-file", new, fails=True)
    assert "already runs" in refused.stderr
    assert run_json("keys", "list") == []


def test_commands_show_the_address_at_which_the_server_of_the_state_runs(run):
    elsewhere = Config.load().model_copy(update={"port": 8911})
    with state_lock(elsewhere, shared=False):
        key = run("keys", "create", "laptop").stdout
        config = run("claude-config", "--client", "cursor").stdout
    assert "Endpoint: http://127.0.0.1:8911/mcp/pvemcp_" in key
    assert "Claude Code: claude mcp add " in key
    assert '"url": "http://127.0.0.1:8911/mcp"' in config
    assert "Endpoint: http://127.0.0.1:8811/mcp/" in run("keys", "create", "phone").stdout


def test_a_backup_is_restored_into_an_empty_state(run, run_json, tmp_path, monkeypatch):
    run("keys", "create", "laptop")
    run("backup", tmp_path / "state.gz")
    assert "not empty" in run("restore", tmp_path / "state.gz", fails=True).stderr
    run("keys", "remove", "laptop")
    run("restore", tmp_path / "state.gz", "--replace")
    assert [row["name"] for row in run_json("keys", "list")] == ["laptop"]
    tools = [row["tool"] for row in run_json("audit", "list")]
    assert tools == ["admin.restore", "admin.backup", "admin.keys.create"]


def test_the_bridge_of_every_platform_is_listed(run_json):
    binaries = run_json("bridges")
    assert len(binaries) == 7
    assert {"pvemcp-bridge-linux-x64", "pvemcp-bridge-win-x64.exe"} <= {
        row["name"] for row in binaries
    }
    offered = [row["name"] for row in binaries if row["size"]]
    assert offered == ["pvemcp-bridge.mcpb", "pvemcp-bridge.pyz"]


def test_the_configuration_of_a_client_takes_its_key_from_a_file(run, monkeypatch):
    monkeypatch.setenv("PVEMCP_PUBLIC_URL", "https://tools.example/pve")
    config = json.loads(run("claude-config", "--api-key-file", "-", stdin="pvemcp_k\n").stdout)
    server = config["mcpServers"]["pvemcp"]
    assert server["args"] == []
    assert server["env"] == {"MCP_URL": "https://tools.example/pve/mcp", "MCP_API_KEY": "pvemcp_k"}
    cursor = json.loads(run("claude-config", "--client", "cursor").stdout)
    assert cursor["mcpServers"]["pvemcp"]["headers"] == {"X-API-Key": "YOUR-API-KEY"}
    codex = tomllib.loads(run("claude-config", "--client", "codex").stdout)
    assert codex["mcp_servers"]["pvemcp"]["url"] == "https://tools.example/pve/mcp"
    assert "Did you mean" in run("claude-config", "--client", "curser", fails=True).stderr


@pytest.mark.parametrize(
    "words", [["keys", "list"], ["roles", "list"], ["clusters", "list"], ["settings", "list"],
              ["queries", "list"], ["audit", "list"], ["admin", "list"], ["notices", "list"],
              ["tools", "list"], ["doctor"], ["status"]],
    ids=" ".join,
)  # fmt: skip
def test_every_list_is_json_on_a_new_state(run_json, words):
    assert isinstance(run_json(*words), list)


def test_a_table_replaces_control_characters(run):
    hostile = "[/x][red]no\x1b[2J\nforged"
    run("roles", "create", "odd", "--reads", "--description", hostile)
    assert "[/x][red]no�[2J�forged" in run("roles", "list").stdout
    run("tools", "call", hostile, fails=True)
    assert "[/x][red]no�[2J forged" in run("audit", "list").stdout


def test_a_narrow_terminal_cuts_no_cell_and_keeps_names_whole(run, monkeypatch):
    monkeypatch.setattr(context, "PIPE_WIDTH", 80)
    listed = run("settings", "list").stdout
    assert "…" not in listed
    assert "calls_per_minute_per_address" in listed
    run("keys", "create", "laptop")
    assert "…" not in run("audit", "list").stdout


def test_a_backup_server_is_added_by_its_kind(run, run_json, emulated_demo, tmp_path):
    server, file = emulated_demo["backup"], tmp_path / "secret"
    file.write_text(server["token_secret"])
    (shown,) = run_json("clusters", "fingerprint", server["hosts"][0], "--kind", "pbs")
    token = ["--token-id", server["token_id"], "--token-secret-file", file]
    pinned = ["--fingerprint", shown["fingerprint"], "--kind", "pbs"]
    added = run("clusters", "add", "backup", "--host", server["hosts"][0], *token, *pinned)
    assert "Saved backup: Proxmox Backup Server 4.1.2, datastores main, offsite." in added.stdout
    assert run_json("clusters", "list")[0]["kind"] == "pbs"
    assert "answers backup: datastores main 74%, offsite 93%" in run("status").stdout
    assert "Proxmox Backup Server 4.1.2" in run("doctor").stdout
    query = '{"from": "pbs_jobs", "select": ["COUNT(*) as n"]}'
    assert run_json("queries", "run", query)["rows"] == [[6]]


def test_names_that_nothing_has_are_warned_of_and_saved(run, run_json, emulated, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text(emulated["token_secret"])
    token = ["--token-id", emulated["token_id"], "--token-secret-file", secret]
    run("clusters", "add", "prod", "--host", emulated["hosts"][0], "--insecure", *token)
    wrong = "No pool 'prodction' on prod. Did you mean production?"
    named = ["--reads", "--pool", "prodction"]
    for words in (["create", "web"], ["change", "web"]):
        saved = run("roles", *words, *named)
        assert f"Note: {wrong}" in saved.stderr
        assert "Note:" not in saved.stdout
    assert run_json("roles", "check", "web") == [wrong]
    assert run("roles", "check", "web").stdout == f"{wrong}\n"
    right = run("roles", "change", "web", "--reads", "--pool", "production")
    assert "Note:" not in right.stderr
    assert run("roles", "check", "web").stdout == "Every name that the role names exists.\n"


def test_rights_are_printed_in_words(run, emulated, tmp_path):
    run("roles", "create", "web", "--tool", "ListVms", "--tag", "web", "--vmid", "100")
    run("keys", "create", "laptop", "--role", "web")
    assert "no cluster" in run("keys", "rights", "laptop").stdout
    secret = tmp_path / "secret"
    secret.write_text(emulated["token_secret"])
    token = ["--token-id", emulated["token_id"], "--token-secret-file", secret]
    run("clusters", "add", "prod", "--host", emulated["hosts"][0], "--insecure", *token)
    assert "prod: tags web; vmids 100" in run("keys", "rights", "laptop").stdout
    run("keys", "change", "laptop", "--role", "Operator")
    assert "prod: everything" in run("keys", "rights", "laptop").stdout


def test_a_failed_call_is_recorded_like_any_other(run, run_json):
    run("tools", "call", "Nosuch", fails=True)
    run("queries", "run", '{"from": "nosuch"}', fails=True)
    calls = [(row["tool"], row["outcome"]) for row in run_json("audit", "list")]
    assert calls == [("ExecuteQuery", "error"), ("Nosuch", "refused")]


def test_a_call_without_any_cluster_says_so_and_returns_no_empty_list(run):
    assert "No cluster is available" in run("tools", "call", "ListVms").output
    query = '{"query": {"from": "guests"}}'
    asked = run("tools", "call", "ExecuteQuery", query, fails=True)
    assert asked.output.startswith("No cluster is available")


@pytest.mark.parametrize("words", [("status",), ("doctor",), ("clusters", "test")])
def test_an_examination_without_any_cluster_names_the_command_that_adds_one(
    run, words, monkeypatch
):
    monkeypatch.setattr(sys, "argv", [".venv/bin/pvemcp", *words])
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert run(*words).stdout == "No cluster is configured: .venv/bin/pvemcp clusters add.\n"


def test_an_unknown_notice_is_not_dismissed(run):
    assert run("notices", "dismiss", 999, fails=True).stderr == "No notice 999.\n"


def test_the_audit_names_the_user_of_the_system_not_of_the_environment(run, run_json, monkeypatch):
    monkeypatch.setenv("LOGNAME", "another-user")
    run("settings", "set", "enabled=true")
    assert run_json("audit", "list")[0]["key_name"] == f"cli:{pwd.getpwuid(os.getuid()).pw_name}"
    monkeypatch.setattr(os, "getuid", lambda: 4242)  # as in a container
    run("settings", "set", "enabled=false")
    assert run_json("audit", "list")[0]["key_name"] == "cli:4242"


@pytest.mark.parametrize(
    ("variable", "value", "fact"),
    [
        ("STATE_DIR", __file__, "The state folder {} (PVEMCP_STATE_DIR) cannot be made: File "),
        ("MASTER_KEY_FILE", "/", "The master key / cannot be read: Is a directory."),
        ("MASTER_KEY_FILE", f"{__file__}/key", "The master key {} cannot be written: File exists"),
        (
            "DATABASE_URL",
            "postgresql://u:{secret}@h:port/x",
            "PVEMCP_DATABASE_URL cannot be parsed",
        ),
        ("DATABASE_URL", "sqlite:///{folder}/broken", "The database sqlite+aiosqlite:///{folder}"),
        ("PUBLIC_URL", "mcp.example", "PVEMCP_PUBLIC_URL: must begin with http:// or https://"),
        ("PUBLIC_URL", "https://a/pve?x", "PVEMCP_PUBLIC_URL: must end with the host, its port or"),
        ("PUBLIC_URL", "https://a/mcp/x", "PVEMCP_PUBLIC_URL: must have another path: this"),
        ("ALLOWED_ORIGINS", "https://a/?x", "PVEMCP_ALLOWED_ORIGINS: must end with the host"),
        (
            "TRUSTED_PROXIES",
            "10.0.0.0/99",
            "PVEMCP_TRUSTED_PROXIES: must be networks like 10.0.0.0/8",
        ),
    ],
    ids=[
        "folder",
        "key folder",
        "key in a file",
        "no url",
        "no database",
        "no scheme",
        "no plain path",
        "own path",
        "query",
        "network",
    ],
)
def test_a_wrong_configuration_is_one_line(run, monkeypatch, tmp_path, variable, value, fact):
    (tmp_path / "broken").write_bytes(b"no database" * 100)
    value = value.replace("{folder}", str(tmp_path)).replace("{secret}", "p4ssw0rd")
    monkeypatch.setenv("PVEMCP_STATE_DIR", str(tmp_path / "new"))
    monkeypatch.setenv(f"PVEMCP_{variable}", value)
    wrong = run("keys", "create", "laptop", fails=True).stderr
    assert wrong.startswith(fact.format(value, folder=tmp_path))
    assert wrong.count("\n") == 1
    assert "p4ssw0rd" not in wrong
    assert "restore" in wrong or "broken" not in value


def test_an_unwritable_backup_is_one_line_and_leaves_nothing(run, tmp_path):
    (tmp_path / "folder").mkdir()
    wrong = run("backup", tmp_path / "folder", fails=True)
    assert wrong.stderr == f"{tmp_path / 'folder'} cannot be written: Is a directory.\n"
    assert {row.name for row in tmp_path.iterdir()} == {"folder", "state"}


@pytest.mark.parametrize(
    ("variable", "value"), [("PVEMCP_ADMIN_USER", "a/b"), ("PVEMCP_ADMIN_PASSWORD", "short")]
)
def test_a_wrong_first_administrator_is_named_by_its_variable(run, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    assert run("serve", "--port", "0", fails=True).stderr.startswith(f"{variable}: 1")


def test_a_port_in_use_ends_the_start_with_the_next_step(run):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        wrong = run("serve", "--port", port, fails=True)
    assert wrong.stderr.splitlines()[-1].startswith(f"Cannot listen on 127.0.0.1 port {port}")
    assert wrong.exit_code == 1
