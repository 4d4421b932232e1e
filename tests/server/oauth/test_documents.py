"""Client ID Metadata Documents: fetched from public addresses only, within limits."""

import asyncio
import json
from datetime import timedelta

import httpx2 as httpx
import pytest

from pvemcp_server.errors import OAuthError
from pvemcp_server.oauth.documents import MOST_BYTES, DocumentFetcher, document_url, is_public

pytestmark = pytest.mark.anyio
URL = "https://client.example/oauth/metadata.json"
PUBLIC = "93.184.216.34"
JSON = {"Content-Type": "application/json"}


def fetcher(handle, addresses=(PUBLIC,), seconds=5.0):
    """Return a fetcher whose names resolve to these addresses, where `handle` answers."""

    async def resolve(_host, _port, _source):
        return list(addresses)

    return DocumentFetcher(resolve, httpx.MockTransport(handle), seconds)


def document(body=None, status=200, **headers):
    def handle(_request):
        content = json.dumps({"client_id": URL} if body is None else body)
        return httpx.Response(status, headers=JSON | headers, content=content)

    return handle


async def refusal(fetched):
    with pytest.raises(OAuthError) as refused:
        await fetched
    assert refused.value.error == "invalid_client"
    return str(refused.value)


async def test_the_connection_goes_to_the_address_that_was_checked():
    seen = []

    def handle(request):
        seen.append(request)
        return document()(request)

    found = await fetcher(handle).fetch(URL)
    assert found.metadata == {"client_id": URL}
    [request] = seen
    assert request.url.host == PUBLIC
    assert request.headers["Host"] == "client.example"
    assert request.extensions["sni_hostname"] == "client.example"
    assert not {"authorization", "cookie"} & set(request.headers)


async def test_the_next_address_is_tried_where_one_cannot_be_connected_to():
    def handle(request):
        if request.url.host == "2606:4700:4700::1111":
            raise httpx.ConnectError("no route")
        return document()(request)

    both = ("2606:4700:4700::1111", PUBLIC)
    assert (await fetcher(handle, both).fetch(URL)).metadata


@pytest.mark.parametrize(
    ("cache", "life"),
    [
        ("", timedelta(minutes=5)),
        ("no-store", timedelta(minutes=5)),
        ("max-age=1", timedelta(minutes=5)),
        ("public, max-age=3600", timedelta(hours=1)),
        ("max-age=999999999", timedelta(days=1)),
    ],
)
async def test_a_document_is_cached_as_its_host_says_within_bounds(cache, life):
    assert (await fetcher(document(**{"Cache-Control": cache})).fetch(URL)).life == life


PRIVATE = [
    *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "0.0.0.0"),  # noqa: S104 - compared, not bound
    *("100.64.0.1", "168.63.129.16", "224.0.0.1", "255.255.255.255", "198.18.0.1", "192.0.2.1"),
    *("::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1"),
    *("::ffff:10.0.0.1", "::ffff:127.0.0.1", f"::ffff:{PUBLIC}", "64:ff9b::a00:1"),
    *("fec0::1", "2606:4700::5efe:a00:1", "2606:4700::200:5efe:808:808"),
    *("2002:0a00:0001::1", "64:ff9b:1::7f00:1", "2001:0:4136:e378:8000:63bf:f5ff:fffe"),
]


@pytest.mark.parametrize("address", PRIVATE)
async def test_no_address_of_a_private_network_is_contacted(address):
    def handle(_request):
        raise AssertionError("contacted")

    assert not is_public(address)
    for addresses in ((address,), (PUBLIC, address), (address, PUBLIC)):
        assert "no public address" in await refusal(fetcher(handle, addresses).fetch(URL))


@pytest.mark.parametrize("address", [PUBLIC, "2606:4700:4700::1111"])
async def test_public_addresses_are_contacted(address):
    assert is_public(address)
    assert (await fetcher(document(), (address,)).fetch(URL)).metadata


async def test_an_address_in_the_url_is_checked_as_well():
    private = DocumentFetcher(transport=httpx.MockTransport(document()))
    for host in ("127.0.0.1", "[::1]", "10.0.0.1", "0x7f000001", "2130706433", "localhost"):
        url = f"https://{host}/metadata.json"
        assert "public address" in await refusal(private.fetch(url)), host


@pytest.mark.parametrize(
    "url",
    [
        "http://client.example/metadata.json",
        "https://client.example",
        "https://client.example/",
        "https://client.example/x#fragment",
        "https://user@client.example/x",
        "https://client.example/a/../x",
        "https://client.example/./x",
        "https://CLIENT.example/x",
        "https://client.example:443/x",
        "https://client.example/" + "x" * 500,
        "https://client.example/ä",
        "https://[::1/x",
        "https://a..b/x",
        f"https://{'a' * 64}.example/x",
        "file:///etc/passwd",
        "client-1",
        "",
    ],
)
async def test_only_an_https_url_in_its_normal_form_names_a_document(url):
    def handle(_request):
        raise AssertionError("contacted")

    assert document_url(url) is None
    assert "normal form" in await refusal(fetcher(handle).fetch(url))


def redirect(_request):
    return httpx.Response(302, headers={"Location": "https://127.0.0.1/"})


@pytest.mark.parametrize(
    ("handle", "reason"),
    [
        (redirect, "redirects are not followed"),
        (document(status=404), "the answer was 404"),
        (document(**{"Content-Type": "text/html"}), "not application/json"),
        (document({"x": "y" * MOST_BYTES}), "larger than 5 KiB"),
        (document([1]), "no JSON object"),
        (lambda _: httpx.Response(200, headers=JSON, content=b"{"), "no JSON object"),
        (document(**{"Content-Encoding": "br"}), "could not be fetched"),
    ],
    ids=["redirect", "status", "type", "size", "list", "broken", "coding"],
)
async def test_an_unusable_answer_is_refused_with_its_reason(handle, reason):
    assert reason in await refusal(fetcher(handle).fetch(URL))


async def test_a_slow_document_is_given_up():
    class Slow(httpx.AsyncByteStream):
        async def __aiter__(self):
            yield b"{"
            await asyncio.Event().wait()

    def handle(_request):
        return httpx.Response(200, headers=JSON, stream=Slow())

    assert "TimeoutError" in await refusal(fetcher(handle, seconds=0.05).fetch(URL))


async def test_a_slow_resolver_is_given_up():
    async def resolve(_host, _port, _source):
        await asyncio.Event().wait()

    slow = DocumentFetcher(resolve, seconds=0.05)
    assert "TimeoutError" in await refusal(slow.fetch(URL))
