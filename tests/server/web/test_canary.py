"""Canaries: a planted key, password and token secret appear in no log, page, error or audit row."""

import io
import logging
from collections.abc import Iterator

import pytest

from pvemcp_server.cli import logs

pytestmark = pytest.mark.anyio

PASSWORD = "canary-password-SINGS"
HOOK = "canary-hook-WARBLES"  # in the URL of the webhook
TOKEN = "5ecc4a7e-dead-4bee-8bad-0123456789ab"
PAGES = ("/", "/keys", "/bridge", "/roles", "/clusters", "/clusters/prod/edit", "/tools", "/query")
MORE = (
    *("/approvals", "/audit", "/settings", "/administrators", "/service-tokens", "/account"),
    "/overview/clusters",
)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Capture every log line of every library, down to debug, as the server would write it."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    logs.configure(_Quiet())
    written = io.StringIO()
    (handler,) = root.handlers
    handler.setStream(written)
    root.setLevel(logging.DEBUG)
    yield written
    root.handlers[:] = before
    root.setLevel(level)


class _Quiet:
    log_format, log_level = "text", "debug"


async def plant(front, key: str, *service_tokens: str) -> list[str]:
    """Send the secrets to every kind of input and return the answers."""
    answers = []
    secrets = (key, PASSWORD, TOKEN, *service_tokens)
    for secret in secrets:
        paths = (f"/mcp/{secret}", f"/mcp?key={secret}", f"/nowhere/{secret}", f"/sse/{secret}")
        answers += [await front.get(path) for path in paths]
        headers = {"X-API-Key": secret, "Authorization": f"Bearer {secret}"}
        answers.append(await front.get("/admin/keys", headers=headers))
        answers.append(await front.get("/admin/api/settings", headers=headers))
        answers.append(await front.http.post("/mcp", headers=headers, content=b"{"))
        wrong = {"name": "x", "hosts": 7, "token_id": "a@b!cd", "token_secret": [secret]}
        answers.append(await front.api("POST", "/clusters", json=wrong))
        broken = {**wrong, "hosts": ["127.0.0.1:1"], "token_secret": secret}
        answers.append(await front.api("POST", "/clusters", json=broken))
        answers.append(await front.post("/admin/clusters", **broken))
    call = {"arguments": {"cluster_name": key, "vmid": 100}}
    answers.append(await front.api("POST", "/tools/GetVmConfig/call", json=call))
    sign_in = {"name": "ada", "password": PASSWORD}
    answers.append(await front.http.post("/admin/sign-in", data=sign_in))
    return [answer.text for answer in answers]


def log_secrets(key: str, token: str) -> None:
    """Log secrets as a careless library would, and an exception with secrets in its locals."""
    logger = logging.getLogger("some.library")
    logger.warning("It went wrong with %s", key)
    try:
        1 / (len(token) - len(TOKEN))
    except ZeroDivisionError:
        logger.exception("Unexpected")


async def test_no_secret_surfaces_in_logs_pages_errors_audit_or_database(equipped, log):
    access = equipped.services.access
    await access.admins.create("grace", PASSWORD, must_change=False)
    identity = {"name": "canary", "token_id": "canary@pve!bird", "token_secret": TOKEN}
    assert (await equipped.api("POST", "/clusters/prod/identities", json=identity)).is_success
    assert not (await equipped.api("POST", "/clusters/prod/test?identity=canary")).is_success
    url = f"https://127.0.0.1:9/{HOOK}"
    assert (await equipped.api("PUT", "/approvals/webhook", json={"url": url})).is_success
    assert not (await equipped.api("POST", "/approvals/webhook/test")).is_success
    shown = await equipped.api("POST", "/keys", json={"name": "canary"})
    key = shown.json()["secret"]
    secret_part = key.split("_")[2]
    robot = {"name": "canary", "scopes": ["keys:read"]}
    service_token = (await equipped.api("POST", "/tokens", json=robot)).json()["secret"]
    await plant(equipped, key, service_token)
    query = {"query": {"from": "guests", "select": [f"PVEAPIToken=a@b!c={TOKEN} {key}"]}}
    await equipped.api("POST", "/queries/run", json=query)
    log_secrets(key, TOKEN)
    log_secrets(service_token, TOKEN)
    pages = [(await equipped.get(f"/admin{path}")).text for path in (*PAGES, *MORE)]
    exported = (await equipped.api("GET", "/audit/export.json")).text
    listed = [
        (await equipped.api("GET", path)).text
        for path in (
            "/keys",
            "/clusters",
            "/admins",
            "/tokens",
            "/settings",
            "/notices",
            "/audit?limit=1000",
        )
    ]
    folder = equipped.services.config.state_dir
    database = b"".join(
        one.read_bytes() for one in folder.rglob("*") if one.is_file() and one.name != "master.key"
    )
    assert "canary" in exported
    assert b"canary@pve!bird" in database
    assert "It went wrong with ***" in log.getvalue()
    assert "ZeroDivisionError" in log.getvalue()
    for canary in (secret_part, PASSWORD, TOKEN, HOOK, service_token.split("_")[3]):
        assert not [page for page in pages if canary in page]
        assert canary not in log.getvalue()
        assert canary.encode() not in database
        assert not [one for one in (exported, *listed) if canary in one]


async def test_errors_do_not_repeat_the_input(equipped, log):
    shown = await equipped.api("POST", "/keys", json={"name": "canary"})
    key = shown.json()["secret"]
    for answer in await plant(equipped, key):
        assert key.split("_")[2] not in answer
        assert PASSWORD not in answer
        assert TOKEN not in answer
