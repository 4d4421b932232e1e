"""The sockets of a start."""

import socket

import pytest
from tests.ports import free_port

from pvemcp_server.cli.listener import claimed
from pvemcp_server.config import Config
from pvemcp_server.errors import ConfigError


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


def test_each_process_has_a_port_of_its_own_for_its_figures(tmp_path):
    config = Config.load(port=0, metrics_port=0, state_dir=tmp_path)
    with claimed(config, alone=True, processes=3) as listener:
        ports = {opened.getsockname()[1] for (opened,) in listener.metrics}
    assert len(ports) == 3
    assert listener.config.port not in ports


def test_the_ports_of_figures_follow_the_configured_one(tmp_path):
    first = free_port(following=1)
    config = Config.load(port=0, metrics_port=first, state_dir=tmp_path)
    with claimed(config, alone=True, processes=2) as listener:
        ports = [opened.getsockname()[1] for (opened,) in listener.metrics]
    assert ports == [first, first + 1]


def test_more_processes_than_ports_for_their_figures_are_refused(tmp_path):
    config = Config.load(port=0, metrics_port=65534, state_dir=tmp_path)
    with (
        pytest.raises(ConfigError, match="65533 or a lower one"),
        claimed(config, alone=True, processes=3),
    ):
        pass
