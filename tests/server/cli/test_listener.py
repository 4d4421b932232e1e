"""The sockets of a start."""

import socket

import pytest

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


def test_each_worker_has_a_port_for_its_figures(tmp_path):
    config = Config(state_dir=tmp_path, port=0, metrics_port=0)
    with claimed(config, alone=True, workers=3) as listener:
        ports = {sockets[0].getsockname()[1] for sockets in listener.metrics}
    assert len(ports - {listener.config.port}) == 3
    with claimed(config.model_copy(update={"metrics_port": None}), alone=True, workers=3) as other:
        assert not other.metrics


def test_a_port_of_any_worker_for_its_figures_that_is_taken_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = Config(state_dir=tmp_path, port=0, metrics_port=port - 1)
        with (
            pytest.raises(ConfigError, match=rf"port {port}: another program .* PVEMCP_METRICS_"),
            claimed(config, alone=True, workers=2),
        ):
            pass


@pytest.mark.parametrize(
    ("port", "metrics_port", "problem"),
    [(9812, 9811, "PVEMCP_PORT 9812 would be"), (0, 65535, "choose one up to 65534")],
)
def test_the_ports_of_workers_for_their_figures_are_checked(tmp_path, port, metrics_port, problem):
    config = Config(state_dir=tmp_path, port=port, metrics_port=metrics_port)
    with pytest.raises(ConfigError, match=problem), claimed(config, alone=True, workers=2):
        pass
