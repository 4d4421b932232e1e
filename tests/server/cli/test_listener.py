"""The sockets of a start."""

import socket

import pytest

from pvemcp_server.cli.listener import claimed
from pvemcp_server.config import Config


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")
def test_all_addresses_are_those_of_ipv6_and_ipv4(tmp_path):
    config = Config.load(host="::", port=0, state_dir=tmp_path)
    with claimed(config, alone=True) as listener:
        assert listener.config.port
        for address in ("127.0.0.1", "::1"):
            socket.create_connection((address, listener.config.port)).close()
        families = [opened.family for opened in listener.sockets]
    assert families == [socket.AF_INET6, socket.AF_INET]  # no IPv4 client as a mapped address
