"""URLs that a node may download from."""

from ipaddress import ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pvemcp_server.errors import CallError, Precondition
from pvemcp_server.link_local import METADATA
from pvemcp_server.toolkit.download_urls import (
    DownloadRules,
    check_download,
    host_of,
    is_listed,
    resolve,
)

pytestmark = pytest.mark.anyio

PUBLIC = "https://images.example.com/debian.iso"


def names(*addresses):
    async def answer(host, port):
        return [ip_address(one) for one in addresses]

    return answer


async def test_an_https_address_that_leads_to_the_internet_is_allowed():
    assert await check_download(PUBLIC, DownloadRules(), names("93.184.216.34")) == (
        "images.example.com is not a listed download host; it learns this address."
    )


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.9",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",  # noqa: S104 - an address to refuse, not to bind
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fc00::5",
        "ff02::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:7f00:1::",
        "::7f00:1",
        "fec0::1",
        "64:ff9b:1::7f00:1",
    ],
)
async def test_a_name_with_a_private_address_is_refused(address):
    with pytest.raises(CallError, match=r"not public|link-local or metadata"):
        await check_download(PUBLIC, DownloadRules(), names("93.184.216.34", address))


@pytest.mark.parametrize("rules", [DownloadRules(), DownloadRules(private=True)])
@pytest.mark.parametrize(
    "address",
    [
        *sorted(map(str, METADATA)),
        "169.254.169.254",
        "fe80::1",
        "::ffff:a9fe:a9fe",
        "2002:a83f:8110::",
    ],
)
async def test_metadata_is_refused_also_where_private_addresses_are_allowed(rules, address):
    with pytest.raises(CallError, match="link-local or metadata"):
        await check_download(PUBLIC, rules, names("93.184.216.34", address))
    host = "images.example.com"
    assert await check_download(PUBLIC, DownloadRules(hosts=(host,)), names(address)) == ""


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "2130706433", "0x7f.1", "017700000001", "127.1", "[::1]", "[::ffff:7f00:1]"],
)
async def test_an_address_in_an_odd_notation_is_refused(host):
    with pytest.raises(CallError):
        await check_download(f"https://{host}/x.iso", DownloadRules(), resolve)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://images.example.com/x.iso", "https://"),
        ("ftp://images.example.com/x.iso", "https://"),
        ("file:///etc/shadow", "https://"),
        ("https:///x.iso", "no host"),
        ("https://user:secret@images.example.com/x.iso", "user name"),
        ("https://images.example.com\\@10.0.0.1/x.iso", "backslash"),
        ("https://images.example.com:99999/x.iso", "source"),
        ("https://[::1/x.iso", "source"),
        ("https://images.example.com/x\n.iso", "control"),
        ("https://127%2e0%2e0%2e1.example.com/x.iso", "not a host name"),
        ("https://example.org%2f.example.com/x.iso", "not a host name"),
        ("https://[fe80::1%25eth0]/x.iso", "not a host name"),
        ("https://fa\u00df.example/x.iso", "not a host name of ASCII letters"),
        ("https://\uff11\uff12\uff17.0.0.1/x.iso", "not a host name of ASCII letters"),
        ("https://localhost/x.iso", "not"),
        ("https://nas.lan/x.iso", "does not resolve"),
        ("https://nas/x.iso", "does not resolve"),
        ("https://1.2.3.4.5/x.iso", "does not resolve"),
    ],
)
async def test_an_invalid_url_is_refused_with_the_reason(url, says):
    resolver = names() if "localhost" not in url else names("127.0.0.1")
    with pytest.raises(CallError, match=says):
        await check_download(url, DownloadRules(), resolver)


@pytest.mark.parametrize("rules", [DownloadRules(), DownloadRules(private=True)])
@pytest.mark.parametrize("host", ["images.example.com", "10.0.0.1.nip.io", "nas.lan", "nas"])
async def test_a_name_that_does_not_resolve_is_refused_unless_it_is_listed(rules, host):
    url = f"https://{host}/x.iso"
    with pytest.raises(CallError, match="does not resolve here"):
        await check_download(url, rules, names())
    assert await check_download(url, DownloadRules(hosts=(host,)), names()) == ""


async def test_an_allow_list_names_the_only_hosts_and_trusts_them():
    rules = DownloadRules(hosts=("*.example.com", "nas.lan"))
    assert await check_download("https://nas.lan/x.iso", rules, names("10.0.0.1")) == ""
    assert await check_download(PUBLIC, rules, names()) == ""
    by_address = DownloadRules(hosts=("2001:db8::5",))
    assert await check_download("https://[2001:db8::5]/x.iso", by_address, names()) == ""
    for host in ("example.org%2f.example.com", "stra\u00dfe.example.com"):
        with pytest.raises(CallError, match="not a host name"):
            await check_download(f"https://{host}/x.iso", rules, names())
    with pytest.raises(CallError, match=r"Allowed are \*\.example\.com, nas\.lan"):
        await check_download("https://example.org/x.iso", rules, names("93.184.216.34"))


async def test_plain_http_and_private_addresses_are_allowed_by_setting():
    rules = DownloadRules(plain_http=True, private=True)
    assert "it learns" in await check_download("http://10.0.0.1/x.iso", rules, names("10.0.0.1"))


@given(st.ip_addresses(v=4))
@example(ip_address("192.0.0.192"))  # Oracle's metadata service, which Python calls global
async def test_embedded_private_addresses_are_refused(address):
    wrapped = ip_address(f"::ffff:{address}")
    try:
        await check_download(PUBLIC, DownloadRules(), names(str(address), str(wrapped)))
    except CallError:
        assert not address.is_global or address.is_multicast or address in METADATA
    else:
        assert address.is_global
        assert address not in METADATA


@pytest.mark.parametrize("url", ["", "http://[x", "http://[::1", "//", "no URL"])
def test_what_is_no_url_has_no_host_and_is_not_listed(url):
    assert host_of(url) == ""
    with pytest.raises(Precondition):
        is_listed(host_of(url), DownloadRules(hosts=("download.proxmox.com",)))
