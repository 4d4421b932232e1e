"""Views of MCP Apps in Chromium, shown by the official client and host parts."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

import pytest
from playwright.sync_api import FrameLocator, Page, expect

from .chromium import Watched

PROD = {"cluster_name": "prod"}
SHOWN = {  # by view: the tool, its arguments, and a text that only its data can make
    "attention": ("GetAttention", {}, "1 node offline on prod: pve05"),
    "guest": ("GetVmStatus", {**PROD, "vmid": 150}, "10 snapshots and backups"),
    "inventory": ("ListVms", PROD, "% of 128 GiB"),
    "metrics": ("ListVmRrdData", {**PROD, "vmids": [100, 101]}, "101 db-primary"),
    "forecast": ("ListStorageRrdData", PROD, "nfs-archive · pve01"),
    "plan": (
        *("UpdateVmConfig", {**PROD, "vmids": [150], "memory": 8192, "dry_run": True}),
        "memory 16384 → 8192",
    ),
    "topology": ("GetClusterStatus", PROD, "ceph-vm (shared) 69 %"),
}
WIDTHS = (360, 768, 1280)
SERIOUS = """async () => (await axe.run(document)).violations
    .filter((rule) => ["serious", "critical"].includes(rule.impact))
    .map((rule) => [rule.id, rule.nodes[0].html.slice(0, 200)])"""
MARKUP = '<img src=x onerror="document.title = 1"><script>document.title = 1</script>'
SANDBOX_WARNING = (
    "An iframe which has both allow-scripts and allow-same-origin for its sandbox attribute can "
    "escape its sandboxing."
)
pytestmark = [pytest.mark.e2e, pytest.mark.browser, pytest.mark.xdist_group("browser")]
Show = Callable[..., tuple[Page, FrameLocator]]


@pytest.fixture(scope="session")
def host_script(npm: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the script of the host, bundled."""
    out = tmp_path_factory.mktemp("host") / "host.js"
    source = Path(__file__).with_name("view_host.js")
    command = [npm / ".bin" / "esbuild", source, "--bundle", "--format=iife", f"--outfile={out}"]
    subprocess.run(
        [*command, "--log-level=warning"], check=True, env={**os.environ, "NODE_PATH": str(npm)}
    )
    return out.read_text()


@pytest.fixture(scope="module")
def writer(product) -> str:
    """Create a key whose views have all buttons."""
    command = [Path(sys.executable).parent / "pvemcp", "keys", "create", "views"]
    done = subprocess.run(
        [*command, "--role", "Administrator"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PVEMCP_STATE_DIR": str(product.state)},
    )
    return re.search(r"pvemcp_[0-9A-Za-z_]{40,}", done.stdout)[0]


@pytest.fixture
def show(browser, product, host_script, writer) -> Show:
    """Return how to show a view: its page and its frame."""
    context = browser.new_context()
    watched = Watched(context, product.url)
    page = watched.page
    html = f'<!doctype html><html lang="en"><title>Host</title><body><script>{host_script}</script>'
    page.route("**/view-host?*", lambda route: route.fulfill(body=html, content_type="text/html"))
    proxy = f"http://localhost:{product.port}/view-proxy"  # another origin than the host's
    proxy_page = Path(__file__).with_name("view_proxy.html").read_text()
    page.route(proxy, lambda route: route.fulfill(body=proxy_page, content_type="text/html"))

    def shown(name: str, theme: str = "light") -> tuple[Page, FrameLocator]:
        tool, arguments, text = SHOWN[name]
        query = {"url": f"{product.url}/mcp", "key": writer, "tool": tool, "theme": theme}
        query["proxy"] = proxy
        page.goto(
            f"{product.url}/view-host?{urlencode({**query, 'arguments': json.dumps(arguments)})}"
        )
        frame = page.frame_locator("iframe").frame_locator("iframe")
        expect(frame.locator("body")).to_contain_text(text)
        return page, frame

    yield shown
    # the frames are those of the reference host: the proxy's origin is what separates them
    of_host = (f"asked {proxy}", SANDBOX_WARNING, "[MCP Apps] oncalltool handler replaced.")
    assert [each for each in watched.trouble if not each.startswith(of_host)] == []
    context.close()


@pytest.mark.parametrize("name", SHOWN)
def test_a_view_shows_the_demo_in_both_themes_at_three_widths(show, axe, name):
    page, frame = show(name)
    body = frame.locator("body")
    body.evaluate(f"() => {{ {axe} }}")
    for theme in ("light", "dark"):
        page.evaluate("theme => bridge.setHostContext({ theme })", theme)
        expect(frame.locator("html")).to_have_attribute("data-theme", theme)
        page.emulate_media(color_scheme=theme)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            assert body.evaluate("body => document.documentElement.scrollWidth <= innerWidth")
        assert body.evaluate(SERIOUS) == []
    expect(frame.locator("#status")).to_be_empty()


def test_guests_are_filtered_grouped_and_opened(show):
    page, frame = show("inventory")
    frame.get_by_label("Filter").fill("db-primary")
    expect(frame.get_by_role("status").first).to_contain_text("1 of 120")
    frame.get_by_label("Group by").select_option("node")
    expect(frame.get_by_role("rowheader")).to_have_text("pve01 · 1")
    frame.get_by_role("button", name="db-primary").click()
    page.wait_for_function("asked.length === 1")
    assert page.evaluate("asked") == ["Show the status of guest 101 on prod."]


def test_the_next_call_of_a_finding_is_made_in_place(show):
    _, frame = show("attention")
    frame.get_by_role("button", name="Show all (ListNodeDisks)").click()
    expect(frame.get_by_role("cell", name="/dev/sdb")).to_be_visible()


def test_a_question_about_a_finding_names_its_number(show):
    page, frame = show("attention")
    frame.get_by_role("button", name="Ask what to do").first.click()
    page.wait_for_function("asked.length === 1")
    assert re.fullmatch(
        r"What should I do about finding 1 of GetAttention \(critical, \w+\)\?",
        page.evaluate("asked")[0],
    )


def test_frame_and_metric_are_switched_in_place(show):
    _, frame = show("metrics")
    frame.get_by_role("button", name="Memory").click()
    expect(frame.get_by_role("heading", name="Memory")).to_be_visible()
    frame.get_by_role("button", name="Week").click()
    expect(frame.get_by_role("img")).to_have_accessible_name(re.compile("over the last week"))
    expect(frame.get_by_role("row", name=re.compile(r"^101 \d"))).to_be_visible()


def test_a_fall_says_which_guests_start_elsewhere(show):
    _, frame = show("topology")
    frame.get_by_role("button", name="If it falls").first.click()
    expect(frame.locator("body")).to_contain_text("stay down")


def test_an_action_of_a_guest_is_shown_before_it_is_sent(show):
    _, frame = show("guest")
    frame.get_by_role("button", name="Stop …").click()
    card = frame.get_by_role("group", name="Plan")
    expect(card).to_contain_text("What the guest has not written to its disks is lost.")
    frame.get_by_role("button", name="Leave it").click()
    expect(card).to_have_count(0)
    expect(frame.get_by_role("heading", name="150 legacy-erp running")).to_be_visible()


def test_a_guest_that_was_stopped_is_read_again(show):
    page, frame = show("guest")
    held = """() => {  // a client that answers writes only when the test says so
        window.writes = 0;
        const status = { cluster: "prod", vmid: 150, name: "legacy-erp", status: "stopped" };
        bridge.oncalltool = async ({ name, arguments: args }) => {
            let document = name === "GetVmStatus" ? status : { would: "Stop it.", dry_run: true };
            if (name === "ChangeVmState" && !args.dry_run) {
                window.writes += 1;
                await new Promise((resolve) => { window.answer = resolve; });
                document = { success: true, task_status: "stopped", exit_status: "OK" };
            }
            const data = name.startsWith("List") ? [] : document;
            return { content: [{ type: "text", text: JSON.stringify({ data }) }] };
        };
    }"""
    page.evaluate(held)
    frame.get_by_role("button", name="Stop …").click()
    send = frame.locator("#carry-out")
    send.click()
    page.wait_for_function("window.writes === 1")
    send.dispatch_event("click")  # as a second press that the browser has queued
    expect(frame.locator("#status")).to_contain_text("has not ended yet")
    page.evaluate("answer()")
    expect(frame.get_by_role("heading", name="150 legacy-erp stopped")).to_be_visible()
    expect(frame.locator("#status")).to_have_text("Stop: stopped, OK.")
    assert page.evaluate("writes") == 1


def test_an_answer_of_an_older_read_does_not_replace_a_newer_one(show):
    page, frame = show("metrics")
    delayed = """() => {
        window.kept = [];
        bridge.oncalltool = async (params) => {
            if (params.arguments.time_frame !== "Week") return client.callTool(params);
            await new Promise((resolve) => window.kept.push(resolve));
            return client.callTool(params);
        };
    }"""
    page.evaluate(delayed)
    frame.get_by_role("button", name="Week").click()
    frame.get_by_role("button", name="Month").click()
    month = re.compile("over the last month")
    expect(frame.get_by_role("img")).to_have_accessible_name(month)
    expect(frame.locator("#status")).to_be_empty()
    page.wait_for_function("kept.length === 2")
    page.evaluate("kept.forEach((answer) => answer())")
    page.evaluate("client.callTool(shownCall)")  # answered after those
    expect(frame.get_by_role("img")).to_have_accessible_name(month)
    expect(frame.get_by_role("button", name="Month")).to_be_focused()


def test_a_view_shrinks_with_its_content(show):
    page, frame = show("inventory")
    page.wait_for_function("sizes.at(-1) > 2000")
    frame.get_by_label("Filter").fill("db-primary")
    page.wait_for_function("sizes.at(-1) < 400")


def test_a_declined_plan_is_reported_to_the_model(show):
    page, frame = show("plan")
    frame.get_by_role("button", name="Decline").click()
    expect(frame.locator("#status")).to_contain_text("Nothing was changed.")
    assert page.evaluate("asked") == ["I decline this plan of UpdateVmConfig."]


def test_a_lost_connection_is_said_and_the_last_answer_stays(show):
    page, frame = show("inventory")
    page.evaluate("client.close()")
    frame.get_by_role("button", name="Read again").click()
    expect(frame.locator("#status.error")).not_to_be_empty()
    expect(frame.get_by_role("button", name="db-primary")).to_be_visible()


def test_an_error_of_the_tool_is_shown_as_it_is(show):
    page, frame = show("metrics")
    page.evaluate(
        """bridge.sendToolResult({ isError: true,
            content: [{ type: "text", text: "Cluster prod does not answer." }] })"""
    )
    expect(frame.locator("#status.error")).to_have_text("Cluster prod does not answer.")


@pytest.mark.parametrize("name", SHOWN)
def test_text_of_guests_is_never_markup(show, name):
    page, frame = show(name)
    planted = """markup => {
        const plant = (value) => typeof value === "string" ? markup
            : Array.isArray(value) ? value.map(plant)
            : value && typeof value === "object"
            ? Object.fromEntries(Object.entries(value).map(([key, part]) => [key, plant(part)]))
            : value;
        return client.callTool(shownCall).then(async ({ structuredContent }) => {
            await client.close();  // nothing that the view reads again takes the place of it
            const { columns, tool, tools, ...data } = structuredContent;
            return bridge.sendToolResult({ content: [],
                structuredContent: { ...plant(data), columns, tool, tools } });
        });
    }"""
    page.evaluate(planted, MARKUP)
    expect(frame.locator("body")).to_contain_text("<img src=x")
    assert frame.locator("main img:not([role]), main script").count() == 0
    assert frame.locator("html").evaluate("document.title") != "1"
