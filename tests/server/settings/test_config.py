"""Configuration from environment, files and options."""

from pathlib import Path

import pytest

from pvemcp_server import config as config_module
from pvemcp_server.config import Config
from pvemcp_server.errors import ConfigError


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CREDENTIALS_DIRECTORY", "PVEMCP_PORT", "PVEMCP_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)


CHECKOUT = Path(__file__).parents[3]


def test_the_defaults_are_loopback_and_sqlite_in_var():
    config = Config.load()
    assert (config.host, config.port, config.state_dir) == ("127.0.0.1", 8811, CHECKOUT / "var")
    assert config.database == f"sqlite+aiosqlite:///{CHECKOUT}/var/pvemcp.sqlite3"


def test_an_installed_package_keeps_its_state_in_the_users_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(config_module, "__file__", str(tmp_path / "a/b/c/d/e/config.py"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert Config.load().state_dir == tmp_path / ".local/state/pvemcp"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")  # the specification ignores such a path
    assert Config.load().state_dir == tmp_path / ".local/state/pvemcp"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "states"))
    assert Config.load().state_dir == tmp_path / "states/pvemcp"


def test_options_override_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PVEMCP_PORT", "9000")
    assert Config.load().port == 9000
    assert Config.load(port=9001).port == 9001


def test_systemd_credentials_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "pvemcp_master_key").write_text("ab" * 32)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert Config.load().master_key.get_secret_value() == "ab" * 32


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PVEMCP_ALLOWED_HOSTS", "mcp.example.org, other.example.org:8443")
    monkeypatch.setenv("PVEMCP_TRUSTED_PROXIES", "10.1.2.3/8,::1")
    config = Config.load()
    assert config.allowed_hosts == ("mcp.example.org", "other.example.org:8443")
    assert config.trusted_proxies == ("10.0.0.0/8", "::1/128")


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("sqlite:////var/lib/state.db", "sqlite+aiosqlite:////var/lib/state.db"),
        ("postgres://u:p@db/x", "postgresql+asyncpg://u:p@db/x"),
        ("postgresql+psycopg://u@db/x", "postgresql+asyncpg://u@db/x"),
    ],
)
def test_a_database_url_gets_our_driver(url: str, driver: str):
    assert Config.load(database_url=url).database == driver


def test_other_databases_are_refused():
    with pytest.raises(ConfigError, match="sqlite:/// or postgresql://"):
        _ = Config.load(database_url="mysql://u:planted@db/x").database


def test_a_wrong_value_is_named_and_not_repeated(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PVEMCP_PORT", "planted-secret")
    with pytest.raises(ConfigError) as refused:
        Config.load()
    assert "PVEMCP_PORT" in str(refused.value)
    assert "planted-secret" not in str(refused.value)


def test_the_repr_contains_no_secrets():
    config = Config.load(
        master_key="ab" * 32, admin_password="planted", database_url="postgresql://u:planted@db/x"
    )
    assert "planted" not in repr(config)
    assert "abab" not in repr(config)
