"""Names of callers and strangers: resolved in few threads of their own, fairly."""

import asyncio
import socket
import threading
from pathlib import Path

import httpx2 as httpx
import pytest

import pvemcp_server
from pvemcp_server import link_local, resolver
from pvemcp_server.errors import OAuthError, OverBudget
from pvemcp_server.oauth.documents import DocumentFetcher
from pvemcp_server.resolver import MOST_PENDING, THREADS, Resolver
from pvemcp_server.toolkit import download_urls

pytestmark = pytest.mark.anyio
PUBLIC = "93.184.216.34"
# one name of an administrator each, in a thread of the audit and at the start
OTHERS = {"audit/syslog.py", "cli/listener.py"}


class Names:
    """A system resolver that holds names below evil.test."""

    def __init__(self):
        self.release, self.asked, self.threads = threading.Event(), [], set()

    def getaddrinfo(self, host, port, **_options):
        self.asked.append(host)
        self.threads.add(threading.current_thread().name.partition("_")[0])
        if host.endswith("evil.test"):
            self.release.wait(30)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (PUBLIC, port))]


@pytest.fixture
def names(monkeypatch):
    made = Names()
    monkeypatch.setattr(resolver.socket, "getaddrinfo", made.getaddrinfo)
    yield made
    made.release.set()


def test_names_are_resolved_by_the_resolver_only():
    root = Path(pvemcp_server.__file__).parent
    found = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if "getaddrinfo(" in path.read_text()
    }
    assert found == {"resolver.py", *OTHERS}


async def test_each_way_to_a_name_takes_a_thread_of_the_resolver(names):
    assert await download_urls.resolve("a.test", 443)
    assert await link_local.checked_addresses("b.test:443", argument="host") == [PUBLIC]
    with pytest.raises(OAuthError, match="404"):
        await fetcher().fetch("https://c.test/x", "192.0.2.1")
    assert names.asked == ["a.test", "b.test", "c.test"]
    assert names.threads == {"resolver"}


def fetcher(seconds=5.0):
    answer = httpx.MockTransport(lambda _: httpx.Response(404))
    return DocumentFetcher(transport=answer, seconds=seconds)


async def test_waiting_names_are_bounded(names):
    own = Resolver()
    jobs = [
        asyncio.ensure_future(own.resolve(f"{number}.evil.test", 443))
        for number in range(MOST_PENDING)
    ]
    await asyncio.sleep(0)
    with pytest.raises(OverBudget, match="host names"):
        await own.resolve("a.test", 443)
    assert len(names.asked) <= THREADS
    names.release.set()
    await asyncio.gather(*jobs)
    assert await own.resolve("a.test", 443) == [PUBLIC]


async def test_one_address_with_slow_names_delays_no_document_of_others(names):
    slow = fetcher(seconds=0.05)
    for number in range(10):
        with pytest.raises((OAuthError, OverBudget), match=r"TimeoutError|host names"):
            await slow.fetch(f"https://{number}.evil.test/x", "192.0.2.1")
    assert names.asked == ["0.evil.test"], "one thread, also after it was given up"
    slow._seconds = 5.0
    with pytest.raises(OAuthError, match="404"):
        await slow.fetch("https://good.test/x", "192.0.2.2")


@pytest.mark.parametrize("host", ["a..b", "a" * 70 + ".com", "\ud800"])
async def test_a_name_that_is_none_has_no_address(host):
    with pytest.raises(OSError, match="not a host name"):
        await Resolver().resolve(host, 443)
