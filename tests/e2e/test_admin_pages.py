"""The admin pages in Chromium, over the real server: every flow."""

import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import anyio
import pytest
from mcp import Client
from playwright.sync_api import BrowserContext, Page, expect

from .chromium import Watched, agree

BAD = ("serious", "critical")
PASSWORD = "a password of my own"
ONE_WORD_A_LINE = """() => [...document.querySelectorAll("main li, main p")].filter((part) => {
    const words = part.innerText.split(/\\s+/).length;
    const lines = part.clientHeight / parseFloat(getComputedStyle(part).lineHeight);
    return words > 8 && lines > words / 2;
}).map((part) => part.innerText)"""
NOTHING_HIDDEN = """[...document.querySelectorAll(".scroll:has(table.cards)")].every(
    (frame) => frame.scrollWidth <= frame.clientWidth)"""
DIALOG_HIDES_NOTHING = """[...document.querySelectorAll("dialog[open]")].every(
    (dialog) => dialog.scrollWidth <= dialog.clientWidth)"""
FOCUS_FAULTS = """() => {  // what a keyboard does not reach, or reaches without that it shows
    const looks = (part) => [part, ...part.querySelectorAll("*")].map((each) => {
        const {outlineStyle, outlineWidth, boxShadow, stroke, left} = getComputedStyle(each);
        return [outlineStyle, outlineWidth, boxShadow, stroke, left].join();
    }).join();
    const interactive = "a[href], button, input, select, textarea, summary, [tabindex]";
    const faults = [];
    for (const each of document.querySelectorAll(interactive)) {
        if (each.disabled || !each.checkVisibility({visibilityProperty: true})) continue;
        const isRoving = each.matches("[role=tab][aria-selected=false], #main");
        if (each.tabIndex !== (isRoving ? -1 : 0)) faults.push(["tabindex", each.outerHTML]);
        if (isRoving) continue;
        document.activeElement.blur();
        const before = looks(each);
        each.focus();
        if (document.activeElement !== each) faults.push(["takes no focus", each.outerHTML]);
        if (looks(each) === before) faults.push(["does not show it", each.outerHTML]);
        const box = each.getBoundingClientRect();
        if (box.height > innerHeight / 2) continue;
        const seen = document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2);
        const own = [each, ...(each.labels ?? [])];
        if (!seen || !own.some((part) => part.contains(seen) || seen.contains(part)))
            faults.push(["is covered", each.outerHTML, seen?.outerHTML]);
    }
    return faults.map((fault) => fault.map((text) => text?.slice(0, 120)));
}"""
PAGES = (
    *("/", "/keys", "/bridge", "/roles", "/roles/new", "/clusters", "/clusters/new"),
    *("/clusters/prod/edit", "/tools", "/tools/ExecuteQuery", "/tools/DeleteIso", "/query"),
    *("/audit", "/settings", "/administrators", "/service-tokens", "/account", "/password"),
    *("/approvals", "/overview/clusters/prod"),
)
COLORS = {"runOnly": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}}
AXE = """async (options) => {  // after the transitions from one look to the next
    await Promise.allSettled(document.getAnimations().map((animation) => animation.finished));
    return await axe.run(options);
}"""
LOOKS = {  # color scheme, width in pixels, options of axe: a dark page differs in colors only
    "light": ("light", 1280, {}),
    "dark": ("dark", 1280, COLORS),
    "phone": ("light", 390, {}),
}
pytestmark = [pytest.mark.e2e, pytest.mark.browser, pytest.mark.xdist_group("browser")]


@pytest.fixture(scope="module")
def server(start, tmp_path_factory):
    """Start a server for these tests alone: they change it."""
    return start(tmp_path_factory.mktemp("admin"))


@pytest.fixture(scope="module")
def context(browser, server) -> Iterator[BrowserContext]:
    """Sign in; the first sign-in has to change the one-time password."""
    opened = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    first = Watched(opened, server.url)
    page = first.go("/")
    expect(page).to_have_url(re.compile("/admin/sign-in$"))
    password = re.search(r"one-time password (\S+)", server.output)[1]
    page.get_by_label("Name").fill("admin")
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(re.compile("/admin/password$"))
    page.get_by_label("Current password").fill(password)
    page.get_by_label("New password", exact=True).fill(PASSWORD)
    page.get_by_label("New password again").fill(PASSWORD)
    page.get_by_role("button", name="Change password").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    assert first.trouble == []
    yield opened
    opened.close()


@pytest.fixture
def watched(context, server) -> Iterator[Watched]:
    one = Watched(context, server.url)
    yield one
    one.page.close()
    assert one.trouble == []


def generate(watched: Watched, name: str, role: str = "Read-only") -> str:
    """Create a key in the dialog and return its secret."""
    page = watched.go("/keys")
    page.get_by_role("button", name="Generate key").click()
    dialog = page.get_by_role("dialog", name="Generate a key")
    dialog.get_by_label("Name").fill(name)
    dialog.get_by_label("Role").select_option(role)
    dialog.get_by_role("button", name="Generate", exact=True).click()
    return shown_key(page)


def shown_key(page: Page) -> str:
    secret = page.locator("#shown-key").inner_text()
    page.get_by_role("button", name="Copy key").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == secret
    for client in ("Claude Code", "Zed", "Claude Desktop"):
        page.get_by_role("tab", name=client).click()
        config = page.get_by_role("tabpanel", name=client).locator("pre").last.inner_text()
        assert secret in json.dumps(json.loads(config))
    with page.expect_navigation():  # the page is reloaded without the secret
        page.get_by_role("button", name="I have stored it").click()
    expect(page.locator("#shown-key")).to_have_count(0)
    return secret


def ask(server, key: str, tool: str | None = None, **arguments):
    """Call the server with a real MCP client; return the tool names, or the text of an answer."""

    async def talk():
        with anyio.fail_after(30):
            async with Client(f"{server.url}/mcp/{key}") as client:
                if tool is None:
                    return sorted(one.name for one in (await client.list_tools()).tools)
                return (await client.call_tool(tool, arguments)).content[0].text

    # playwright's loop runs in this thread: the client gets one of its own
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(anyio.run, talk).result()


def why_refused(server, key: str) -> str:
    """Return the error that a real MCP client gets from the gate."""
    with pytest.raises(BaseExceptionGroup) as refused:
        ask(server, key)
    return str(list(_leaves(refused.value)))


def _leaves(group: BaseExceptionGroup) -> Iterator[BaseException]:
    for one in group.exceptions:
        yield from _leaves(one) if isinstance(one, BaseExceptionGroup) else (one,)


def until_it_shows(page: Page, text: str) -> None:
    """Reload until the text appears: notices are written every few seconds."""
    for _ in range(60):
        if page.get_by_text(text).count():
            return
        page.wait_for_timeout(500)
        page.reload()
    raise AssertionError(page.content())


@pytest.fixture(scope="module")
def emulated() -> Iterator[dict]:
    """Start an emulator with a cluster that is not configured yet."""
    command = [sys.executable, "-m", "proxmox_client.emulator", "--demo"]
    options = ["--ready-file", "-", "--until-stdin-closes"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([*command, *options], text=True, **pipes) as process:
        assert process.stdout
        yield json.loads(process.stdout.readline())["clusters"][0]
        process.terminate()


@pytest.mark.parametrize("path", PAGES)
def test_a_page_has_no_serious_accessibility_fault(watched, axe, path):
    page = watched.go(path)
    page.wait_for_load_state("networkidle")
    # the policy of the pages stays as it is: the driver runs the script from outside
    page.evaluate(axe)
    found = {}
    for look, (scheme, width, options) in LOOKS.items():
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 860})
        result = page.evaluate(AXE, options)
        serious = [rule for rule in result["violations"] if rule["impact"] in BAD]
        if serious:
            found[look] = [(rule["id"], rule["nodes"][0]["html"][:200]) for rule in serious]
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), look
        assert page.evaluate(NOTHING_HIDDEN), look
        assert page.evaluate(ONE_WORD_A_LINE) == [], look
        page.keyboard.press("Tab")  # from now on, the focus shows
        assert page.evaluate(FOCUS_FAULTS) == [], look
    assert not found, json.dumps(found, indent=1)


def test_an_open_overview_follows_calls_and_the_first_step(watched, server):
    page = watched.go("/")
    expect(page.locator("#live-state")).to_have_text("Live")
    expect(page.get_by_role("heading", name="Start")).to_be_visible()
    expect(page.locator("[data-part=clusters]").get_by_text("pve05 offline")).to_be_visible()
    link = page.locator("[data-part=clusters]").get_by_role("link", name="prod", exact=True)
    link.focus()
    ask(server, server.key, "ListPools")
    calls = page.locator("[data-part=calls]")
    expect(calls.get_by_role("link", name="ListPools", exact=True)).to_be_visible()
    expect(page.get_by_role("heading", name="Start")).to_have_count(0)
    expect(link).to_be_focused()
    page.locator("#hours-1").focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/admin/audit[?]since="))
    expect(page.get_by_role("link", name="ListPools").first).to_be_visible()
    moment = page.locator("#entries time").first
    assert moment.get_attribute("title") == moment.get_attribute("datetime")
    page.get_by_role("link", name="ListPools").first.click()
    expect(page.get_by_role("link", name="Remove the condition tool")).to_be_visible()


def test_a_query_is_completed_charted_and_kept(watched):
    page = watched.go("/query")
    editor = page.get_by_label("Query (JSON)")
    editor.fill("")
    names = page.get_by_role("listbox", name="Names that fit")
    for typed, offered in (('{"from": "gue', "guests"), ('", "select": ["no', "node")):
        editor.press_sequentially(typed)
        expect(names.get_by_role("option", selected=True)).to_have_text(offered)
        page.keyboard.press("Enter")
        expect(names).to_be_hidden()
    editor.press_sequentially('", "SUM(memory_us')
    page.keyboard.press("Escape")
    expect(names).to_be_hidden()
    editor.press_sequentially('age) as used"], "groupBy": ["node"]}')
    page.keyboard.press("Control+Enter")
    answer = page.get_by_label("Answer")
    expect(answer.get_by_text("used by node")).to_be_visible()
    cell = answer.locator("td.number[title$=' bytes']").first
    assert cell.inner_text().endswith("iB")
    page.reload()
    page.get_by_role("tab", name="History").click()
    page.get_by_role("button", name="SUM(memory_usage)").click()
    assert "SUM(memory_usage) as used" in editor.input_value()


def test_a_regenerated_key_is_shown_once_and_replaces_the_old(watched, server):
    old = generate(watched, "laptop")
    assert "vmid" in ask(server, old, "ListVms")
    page = watched.page
    assert old not in page.content()
    agree(page, page.get_by_role("button", name="Regenerate laptop"))
    new = shown_key(page)
    assert new != old
    assert "ListVms" in ask(server, new)
    assert "401" in why_refused(server, old)


def test_a_long_name_without_spaces_fits_its_dialogs(watched):
    name = "backup_automation_of_the_northern_datacenter_".ljust(64, "n")
    page = watched.go("/keys")
    page.get_by_role("button", name="Generate key").click()
    page.get_by_role("dialog").get_by_label("Name").fill(name)
    page.keyboard.press("Enter")
    expect(page.locator("#shown-key")).to_be_visible()
    assert page.evaluate(DIALOG_HIDES_NOTHING)
    page.get_by_role("button", name="I have stored it").click()
    page.get_by_role("button", name=f"Rights of {name}").click()
    expect(page.get_by_role("region", name="Effective rights")).to_be_visible()
    assert page.evaluate(DIALOG_HIDES_NOTHING)


def test_the_notes_of_a_tried_call_need_no_scrolling(watched):
    page = watched.go("/tools/ListVms")
    page.set_viewport_size({"width": 390, "height": 844})
    page.get_by_role("button", name="Call ListVms").click()
    notes = page.locator("pre", has_text="Offline on prod")
    expect(notes).to_be_visible()
    assert notes.evaluate("(one) => one.scrollWidth <= one.clientWidth")


@pytest.mark.parametrize(
    ("tool", "arguments", "text"),
    [
        ("ListVms", {"cluster_name": "prod"}, "% of 128 GiB"),
        ("ListVmRrdData", {"cluster_name": "prod", "vmids": "100 101"}, "101 db-primary"),
    ],
)
def test_a_tried_call_is_shown_in_the_view_of_its_tool(watched, tool, arguments, text):
    page = watched.go(f"/tools/{tool}")
    for name, value in arguments.items():
        page.locator(f"#argument-{name}").fill(value)
    page.get_by_role("button", name=f"Call {tool}").click()
    frame = page.frame_locator("#answer iframe")
    expect(frame.locator("body")).to_contain_text(text)
    page.get_by_label("Theme").select_option("dark")
    expect(frame.locator("html")).to_have_attribute("data-theme", "dark")
    page.get_by_label("Theme").select_option("auto")
    if tool == "ListVmRrdData":  # a call of the view's own
        frame.get_by_role("button", name="Week").click()
        expect(frame.get_by_role("img")).to_have_accessible_name(re.compile("over the last week"))
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_view_writes_only_what_the_administrator_confirms(watched, forget_proof):
    page = watched.go("/tools/GetVmStatus")
    page.locator("#argument-cluster_name").fill("prod")
    page.locator("#argument-vmid").fill("150")
    page.get_by_role("button", name="Call GetVmStatus").click()
    frame = page.frame_locator("#answer iframe")
    frame.get_by_role("button", name="Stop …").wait_for()
    forget_proof()
    frame.get_by_role("button", name="Stop …").click()
    asked = page.get_by_role("dialog", name="Confirm it's you")
    asked.get_by_role("button", name="Cancel").click()
    expect(frame.locator("#status.error")).to_contain_text("did not confirm who you are")

    frame.get_by_role("button", name="Stop …").click()
    asked.get_by_label("Your password").fill(PASSWORD)
    asked.get_by_role("button", name="Confirm").click()
    frame.get_by_role("group", name="Plan").get_by_role("button", name="Stop").click()
    question = page.get_by_role("alertdialog")
    expect(question).to_contain_text("150")
    question.get_by_role("button", name="Cancel").click()
    expect(frame.locator("#status.error")).not_to_be_empty()
    expect(frame.get_by_role("heading", name="150 legacy-erp running")).to_be_visible()


def test_the_focus_stays_on_a_button_that_is_disabled_during_its_request(watched):
    for path, name, answer in (
        ("/audit", "Verify chain", "#verified"),
        ("/clusters", "Test prod", "#result-2"),
    ):
        page = watched.go(path)
        button = page.get_by_role("button", name=name)
        button.focus()
        page.keyboard.press("Enter")
        expect(page.locator(answer)).not_to_be_empty()
        expect(button).to_be_focused()


def test_the_focus_returns_to_an_entry_that_a_poll_has_replaced(watched):
    page = watched.go("/audit")
    entry = page.get_by_role("button", name="Details of entry").first
    entry.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    entry_id = entry.get_attribute("id")
    replace = (
        "id => { const old = document.getElementById(id); old.replaceWith(old.cloneNode(true)); }"
    )
    page.evaluate(replace, entry_id)
    page.keyboard.press("Escape")
    expect(page.locator(f"#{entry_id}")).to_be_focused()


def test_a_key_is_generated_and_removed_by_keyboard_alone(watched, server):
    page = watched.go("/keys")
    opener = page.get_by_role("button", name="Generate key")
    opener.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_label("Name")).to_be_focused()
    page.keyboard.press("Escape")
    expect(opener).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.type("by hand")
    page.keyboard.press("Enter")
    expect(page.locator("#shown-key")).to_be_visible()
    for _ in range(3):  # it is shown only now: no key closes it but that of its button
        page.keyboard.press("Escape")
    expect(page.get_by_text('Press "I have stored it" to close.')).to_be_visible()
    key = page.locator("#shown-key").inner_text()
    assert ask(server, key)
    expect(page.get_by_text("First call from")).to_be_visible()
    page.get_by_role("button", name="I have stored it").focus()
    page.keyboard.press("Enter")
    expect(opener).to_be_focused()
    page.get_by_role("button", name="Remove by hand").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")  # from Cancel on
    expect(page.get_by_role("button", name="Remove", exact=True)).not_to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Remove by hand")).to_be_focused()
    agree(page, page.get_by_role("button", name="Remove by hand"))
    expect(page.get_by_role("button", name="Remove by hand")).to_have_count(0)
    expect(page.get_by_role("main").locator(":focus")).to_have_count(1)


def test_narrowing_a_role_shrinks_the_list_of_tools(watched, server):
    page = watched.go("/roles/new")
    page.get_by_label("Name", exact=True).fill("Night shift")
    page.get_by_label("ChangeVmState").check()
    page.get_by_role("button", name="Save role").click()
    expect(page.get_by_role("heading", name="Night shift")).to_be_visible()
    key = generate(watched, "night", "Night shift")
    before = ask(server, key)
    assert {"ChangeVmState", "ListNodes", "ListVms"} <= set(before)

    watched.go("/roles").get_by_role("link", name="Edit Night shift").click()
    page.get_by_label("Everything that only reads").uncheck()
    page.get_by_label("ListVms").check()
    page.get_by_label("prod").check()
    page.get_by_label("Only those that match any of these").check()
    page.get_by_label("Tags").fill("web")
    page.get_by_role("button", name="Save role").click()
    expect(page.get_by_text("Changes: ChangeVmState on prod (tags web).")).to_be_visible()
    assert ask(server, key) == ["ChangeVmState", "ListVms"]

    watched.go("/keys").get_by_role("button", name="Rights of night").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("tags web on prod").first).to_be_visible()
    expect(dialog.get_by_text("home-lab")).to_have_count(0)


def test_targets_of_a_role_are_entered_and_limit_its_writes(watched, server):
    page = watched.go("/roles/new")
    page.get_by_label("Name", exact=True).fill("Mover")
    page.get_by_label("MigrateVm").check()
    page.get_by_label("prod").check()
    page.get_by_label("Only those that match any of these").check()
    page.get_by_label("VM numbers").fill("105")
    page.get_by_label("Target nodes").fill("pve02")
    page.get_by_label("Target storages").fill("ceph-vm pbs-main")
    page.get_by_role("button", name="Save role").click()
    expect(page.get_by_text("target_nodes pve02").first).to_be_visible()
    page.get_by_role("link", name="Edit Mover").click()
    expect(page.get_by_label("Target nodes")).to_have_value("pve02")
    expect(page.get_by_label("Target storages")).to_have_value("ceph-vm pbs-main")
    page.get_by_label("Target storages").fill("")
    page.get_by_role("button", name="Save role").click()
    expect(page.get_by_text("target_nodes pve02").first).to_be_visible()
    expect(page.get_by_text("target_storages")).to_have_count(0)
    key = generate(watched, "mover", "Mover")
    move = {"cluster_name": "prod", "vmid": 105, "online": True, "dry_run": True}
    assert "No node 'pve03'" in ask(server, key, "MigrateVm", **move, target_node="pve03")
    move |= {"target_node": "pve02"}
    assert '"dry_run":true' in ask(server, key, "MigrateVm", **move)
    refused = ask(server, key, "MigrateVm", **move, target_storage="ceph-vm")
    assert "No storage 'ceph-vm'" in refused


def test_a_cluster_is_added_only_with_the_right_fingerprint(watched, emulated):
    page = watched.go("/clusters/new")
    page.get_by_label("Name", exact=True).fill("office")
    page.get_by_label("Hosts", exact=True).fill(emulated["hosts"][0])
    page.get_by_label("API token").fill(emulated["token_id"])
    page.get_by_label("Token secret").fill(emulated["token_secret"])
    page.get_by_label("Fingerprint by hand").fill(":".join(["AB"] * 32))
    page.get_by_role("button", name="Add cluster").click()
    expect(page.locator(".wrong")).to_contain_text("Compare it with")

    page.get_by_label("Fingerprint by hand").fill("")
    page.get_by_role("button", name="Show the hosts' certificates").click()
    page.get_by_role("checkbox", name=re.compile(" shows")).check()
    page.get_by_role("button", name="Test").click()
    expect(page.get_by_role("status")).to_contain_text("The cluster answers")
    page.get_by_role("button", name="Add cluster").click()
    expect(page.get_by_role("heading", name="office")).to_be_visible()
    page.get_by_role("button", name="Doctor for office").click()
    expect(page.get_by_text("Its node is online.")).to_be_visible()
    agree(page, page.get_by_role("button", name="Remove office"))
    expect(page.get_by_role("heading", name="office")).to_have_count(0)


SNAPSHOT = {"cluster_name": "prod", "vmid": 105, "snapshot_name": "release-4-3", "wait": True}


def number_of(waiting: str) -> str:
    """Return the number of the approval that an answer waits for."""
    match = re.search(r"waiting for approval, number (\d+)\.", waiting)
    assert match, waiting
    return match[1]


def test_a_waiting_call_is_approved_on_the_page_and_then_carried_out(watched, server, forget_proof):
    key = generate(watched, "agent", "Administrator")
    waiting = ask(server, key, "DeleteVmSnapshot", **SNAPSHOT)
    number = number_of(waiting)
    page = watched.go("/")
    notices = page.locator("[data-part=notices]")  # the navigation has the same link
    notices.get_by_role("link", name="Approvals").click()
    card = page.get_by_role("article", name=f"Number {number}")
    expect(card).to_contain_text("can never be restored")
    expect(card).to_contain_text("agent")
    card.get_by_text("Arguments").click()
    expect(card).to_contain_text('"vmid": 105')
    forget_proof()
    agree(page, card.get_by_role("button", name=f"Approve number {number}"))
    asked = page.get_by_role("dialog", name="Confirm it's you")
    asked.get_by_label("Your password").fill(PASSWORD)
    asked.get_by_role("button", name="Confirm").click()
    row = page.get_by_role("region", name="Recent decisions").get_by_role(
        "row", name=f"{number} Delete"
    )
    expect(row).to_contain_text("approved")
    assert '"success":true' in ask(server, key, "DeleteVmSnapshot", **SNAPSHOT)
    expect(row).to_contain_text("used")  # the lists are live

    again = {**SNAPSHOT, "snapshot_name": "release-4-2"}
    waiting = ask(server, key, "DeleteVmSnapshot", **again)
    number = number_of(waiting)
    page.get_by_role("button", name=f"Decline number {number}").click()
    expect(page.get_by_text("No call waits.")).to_be_visible()
    assert "Declined by an administrator" in ask(server, key, "DeleteVmSnapshot", **again)


def test_the_secret_of_the_webhook_is_shown_once(watched):
    page = watched.go("/approvals")
    page.get_by_role("button", name="Set up …").click()
    page.get_by_role("dialog").get_by_label("URL").fill("http://169.254.169.254/")
    page.get_by_role("dialog").get_by_role("button", name="Save").click()
    expect(page.locator(".wrong")).to_contain_text("link-local")
    page.get_by_role("dialog").get_by_label("URL").fill("http://127.0.0.1:9/hook")
    page.keyboard.press("Enter")
    secret = page.locator("#shown-secret").inner_text()
    with page.expect_navigation():
        page.get_by_role("button", name="I have stored it").click()
    assert secret not in page.content()
    page.get_by_role("button", name="Send a test").click()
    expect(page.get_by_role("alert")).to_contain_text("No answer")
    agree(page, page.get_by_role("button", name="Remove webhook"))
    expect(page.get_by_role("button", name="Set up …")).to_be_visible()


@pytest.fixture
def settings_again(server) -> Iterator[None]:
    """Set back what a test changes, also when it fails in between: the others need the endpoint."""
    yield
    change = ["settings", "set", "enabled=true", "output_format=JsonCompact"]
    command = [Path(sys.executable).with_name("pvemcp"), *change, "--state-dir", server.state]
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.usefixtures("settings_again")
def test_a_changed_output_format_applies_to_the_next_answer(watched, server):
    assert ask(server, server.key, "ListClusters").startswith('{"data":{"headers"')
    page = watched.go("/settings")
    page.get_by_label("Output Format").select_option("Csv")
    page.get_by_role("button", name="Save settings").click()
    expect(page.get_by_text("Saved: Output Format")).to_be_visible()
    assert ask(server, server.key, "ListClusters").startswith("name,")


def test_a_wrong_setting_is_refused_with_a_reason(watched):
    page = watched.go("/settings")
    page.locator("#row_cap").evaluate("field => { field.max = ''; field.value = '999999999' }")
    page.get_by_role("button", name="Save settings").click()
    row_cap = page.get_by_label("Row cap")
    expect(row_cap).to_be_focused()
    expect(row_cap).to_have_attribute("aria-invalid", "true")
    expect(page.locator(".field", has=row_cap)).to_contain_text("less than or equal to")


def sign_in(page: Page) -> None:
    page.get_by_label("Name").fill("admin")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()


@pytest.fixture
def alone(browser, context, server) -> Iterator[Watched]:
    """Sign in with a session of its own, which a test may end. `context` set the password."""
    with browser.new_context() as opened:
        watched = Watched(opened, server.url)
        sign_in(watched.go("/sign-in"))
        expect(watched.page.get_by_role("heading", name="Overview")).to_be_visible()
        yield watched
        assert watched.trouble == []


def test_unsaved_entries_outlive_the_session(alone, server):
    page = alone.go("/settings")
    page.get_by_label("Row cap").fill("321")
    expect(page.get_by_text("1 unsaved change: Row cap")).to_be_visible()
    with closing(sqlite3.connect(server.state / "pvemcp.sqlite3")) as database, database:
        newest = database.execute("SELECT digest FROM sessions ORDER BY created DESC LIMIT 1")
        database.execute("DELETE FROM sessions WHERE digest = ?", newest.fetchone())
    page.get_by_role("button", name="Save settings").click()
    expect(page.get_by_text("What you entered is kept")).to_be_visible()
    sign_in(page)
    expect(page.get_by_text("what you entered is back")).to_be_visible()
    expect(page.get_by_label("Row cap")).to_have_value("321")
    page.get_by_role("button", name="Discard").click()
    page.get_by_label("Theme").select_option("dark")
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(16, 20, 27)"


def test_a_query_is_run_saved_and_copied_as_a_tool_call(watched):
    page = watched.go("/query")
    query = {"from": "guests", "select": ["node", "COUNT(*) as total"], "groupBy": ["node"]}
    page.get_by_label("Query (JSON)").fill(json.dumps(query))
    page.get_by_label("Query (JSON)").press("Control+Enter")
    expect(page.get_by_role("columnheader", name="total")).to_be_visible()
    page.get_by_role("tab", name="Csv").click()
    expect(page.get_by_role("tabpanel", name="Csv")).to_contain_text("node,total")
    page.get_by_role("button", name="Copy as tool call").click()
    copied = json.loads(page.evaluate("navigator.clipboard.readText()"))
    assert copied == {"name": "ExecuteQuery", "arguments": {"query": query}}

    page.get_by_role("button", name="Save …").click()
    page.get_by_role("dialog").get_by_label("Name").fill("Guests by node")
    page.get_by_role("dialog").get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("heading", name="Guests by node")).to_be_visible()


def test_an_error_of_a_query_removes_the_previous_answer(watched):
    page = watched.go("/query")
    page.get_by_role("button", name="Run").click()
    expect(page.locator("#answer")).to_contain_text("Copy as tool call")
    page.get_by_label("Query (JSON)").fill('{"from": "gests"}')
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_role("alert")).to_contain_text("guests")
    expect(page.locator("#answer")).to_be_empty()


def test_each_note_of_an_answer_has_its_own_line(watched):
    page = watched.go("/query")
    query = {"from": "guests", "select": ["name", "lock"]}
    page.get_by_label("Query (JSON)").fill(json.dumps(query))
    page.get_by_role("button", name="Run").click()
    notes = page.locator("#answer .banner").inner_text().splitlines()
    assert notes[-1].startswith("Left out because empty in every row:")
    assert len(notes) > 1


def test_a_tool_is_tried_as_a_key_and_the_call_is_found_in_the_audit(watched):
    page = watched.go("/tools/ListVms")
    page.get_by_label("cluster_name").fill("home-lab")
    page.get_by_label("status").select_option("running")
    page.get_by_role("button", name="Call ListVms").click()
    expect(page.locator("#answer-text")).to_contain_text("running")

    # reads are written in batches: the page is live, and the call comes within a second
    page = watched.go("/audit?tool=ListVms&cluster=home-lab&text=running")
    page.get_by_role("button", name=re.compile("Details of entry")).first.click()
    expect(page.get_by_role("dialog")).to_contain_text("admin pages, admin")
    expect(page.get_by_role("dialog")).to_contain_text('"status": "running"')
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Verify chain").click()
    expect(page.get_by_text("The chain is whole.")).to_be_visible()


def test_a_tick_confirms_the_question_that_is_shown(watched):
    page = watched.go("/tools/UpdateVmConfig")
    page.get_by_label("cluster_name").fill("home-lab")
    page.get_by_label("vmids").fill("101")
    page.get_by_label("vlan").fill("7")
    call = page.get_by_role("button", name="Call UpdateVmConfig")
    call.click()
    expect(page.get_by_text("It needs confirmation")).to_be_visible()
    question = page.locator("input[name=question]").input_value()
    page.get_by_label("Confirm it, if it asks first").check()
    with page.expect_request("**/UpdateVmConfig/call") as sent:
        call.click()
    assert f"question={question}" in sent.value.post_data
    expect(page.locator("#answer-text")).to_contain_text('"success":true')


def test_the_audit_is_live(watched, server):
    page = watched.go("/audit?tool=GetQuerySchema")
    before = page.get_by_role("row").count()
    ask(server, server.key, "GetQuerySchema")
    expect(page.get_by_role("row").nth(max(before, 1))).to_be_visible()


@pytest.mark.usefixtures("settings_again")
def test_the_endpoint_is_switched_off_and_on_from_the_overview(watched, server):
    page = watched.go("/")
    banner = page.locator("#endpoint")  # the live first steps offer the same button, once they know
    agree(page, banner.get_by_role("button", name="Turn off"))
    expect(banner).to_contain_text("The endpoint is off.")
    assert "503" in why_refused(server, server.key)
    banner.get_by_role("button", name="Turn on").click()
    expect(banner).to_contain_text("The endpoint is on.")
    assert ask(server, server.key)


def test_an_invalid_key_raises_a_notice(watched, server):
    assert "401" in why_refused(server, "pvemcp_invalid")
    page = watched.go("/keys")
    until_it_shows(page, "A key was refused")
    notice = page.locator(".banner", has_text="A key was refused")  # others may come live
    notice.get_by_role("button", name="Dismiss").click()
    expect(page.get_by_text("A key was refused")).to_have_count(0)


def test_an_administrator_is_added_and_removed(watched):
    page = watched.go("/administrators")
    page.get_by_role("button", name="Add administrator").click()
    page.get_by_role("dialog").get_by_label("Name").fill("grace")
    page.get_by_role("dialog").get_by_role("button", name="Add").click()
    expect(page.locator("#shown-password")).to_be_visible()
    with page.expect_navigation():
        page.get_by_role("button", name="I have stored it").click()
    agree(page, page.get_by_role("button", name="Remove grace"))
    expect(page.get_by_text("grace")).to_have_count(0)


def test_the_desktop_config_can_be_downloaded(watched, server):
    page = watched.go("/bridge")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download", exact=True).last.click()
    assert download.value.suggested_filename == "claude_desktop_config.json"
    config = json.loads(Path(download.value.path()).read_text())
    assert f"{server.url}/mcp" in json.dumps(config["mcpServers"]["pvemcp"])


def test_a_change_of_weight_asks_who_it_is_and_keeps_the_form(watched, forget_proof):
    page = watched.go("/keys")
    forget_proof()
    page.get_by_role("button", name="Generate key").click()
    form = page.get_by_role("dialog", name="Generate a key")
    form.get_by_label("Name").fill("guarded")
    form.get_by_label("Role").select_option("Operator")
    form.get_by_role("button", name="Generate", exact=True).click()
    confirm = page.get_by_role("dialog", name="Confirm it's you")
    confirm.get_by_label("Your password").fill("not my password")
    confirm.get_by_role("button", name="Confirm").click()
    expect(confirm.get_by_text("The password is wrong.")).to_be_visible()
    confirm.get_by_label("Your password").fill(PASSWORD)
    confirm.get_by_role("button", name="Confirm").click()
    shown_key(page)
    expect(page.get_by_role("row", name=re.compile("guarded.*Operator"))).to_be_visible()
    forget_proof()
    agree(page, page.get_by_role("button", name="Regenerate guarded"))
    confirm.get_by_label("Your password").fill(PASSWORD)
    page.keyboard.press("Enter")
    shown_key(page)


def test_a_key_issuer_sees_and_makes_keys_only(watched, server, browser):
    page = watched.go("/administrators")
    page.get_by_role("button", name="Add administrator").click()
    page.get_by_label("Name").fill("issuer")
    page.get_by_label("Role", exact=True).select_option("key issuer")
    page.get_by_role("button", name="Add", exact=True).click()
    password = page.locator("#shown-password").inner_text()
    with browser.new_context(permissions=["clipboard-read", "clipboard-write"]) as context:
        other = Watched(context, server.url)
        issuer = other.go("/sign-in")
        issuer.get_by_label("Name").fill("issuer")
        issuer.get_by_label("Password").fill(password)
        issuer.get_by_role("button", name="Sign in").click()
        issuer.get_by_label("Current password").fill(password)
        issuer.get_by_label("New password", exact=True).fill(PASSWORD)
        issuer.get_by_label("New password again").fill(PASSWORD)
        issuer.get_by_role("button", name="Change password").click()
        expect(issuer.get_by_role("heading", name="API Access")).to_be_visible()
        pages = issuer.get_by_role("navigation", name="Pages").get_by_role("link")
        expect(pages).to_have_text(["API Access", "Connections", "Bridge"])
        generate(other, "issued")
        expect(issuer.get_by_role("row", name=re.compile("issued"))).to_be_visible()
        assert other.trouble == []
