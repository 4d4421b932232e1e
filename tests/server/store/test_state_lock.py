"""The lock of the state folder, exclusive or shared."""

import sys
from contextlib import ExitStack

import pytest

from pvemcp_server.config import Config
from pvemcp_server.errors import ConfigError
from pvemcp_server.store.state_lock import check_unlocked, state_lock

shared_locks = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no shared locks")


@pytest.mark.parametrize(
    ("first", "second", "starts"),
    [
        pytest.param(True, True, True, marks=shared_locks),
        pytest.param(True, False, False, marks=shared_locks),
        (False, True, False),
        (False, False, False),
    ],
)
def test_only_shared_locks_can_be_held_concurrently(tmp_path, first, second, starts):
    config = Config(state_dir=tmp_path)
    with ExitStack() as stack:
        stack.enter_context(state_lock(config, shared=first))
        if starts:
            stack.enter_context(state_lock(config, shared=second))
        else:
            with pytest.raises(ConfigError, match=r"already runs .* at http://127\.0\.0\.1:8811"):
                stack.enter_context(state_lock(config, shared=second))


def test_a_released_lock_can_be_taken(tmp_path):
    config = Config(state_dir=tmp_path)
    with state_lock(config, shared=False), pytest.raises(ConfigError):
        check_unlocked(config, shared=True)
    check_unlocked(config, shared=False)
    with state_lock(config, shared=False):
        pass


@shared_locks
def test_what_needs_the_state_alone_is_refused_beside_a_server_that_shares_it(tmp_path):
    config = Config(state_dir=tmp_path)
    with state_lock(config, shared=True):
        check_unlocked(config, shared=True)
        with pytest.raises(ConfigError, match="already runs"):
            check_unlocked(config, shared=False)


def test_checking_the_lock_creates_no_folder(tmp_path):
    check_unlocked(Config(state_dir=tmp_path / "none"), shared=False)
    assert not (tmp_path / "none").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions")
@pytest.mark.parametrize(("mode", "warned"), [(0o700, False), (0o755, False), (0o777, True)])
def test_a_state_folder_that_every_user_may_write_is_warned_of(tmp_path, caplog, mode, warned):
    tmp_path.chmod(mode)
    with state_lock(Config(state_dir=tmp_path), shared=False):
        pass
    assert ("chmod o-w" in caplog.text) == warned


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions")
@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True)])
def test_a_master_key_that_every_user_may_read_is_warned_of(tmp_path, caplog, mode, warned):
    key = tmp_path / "master.key"
    key.write_text("00" * 32)
    key.chmod(mode)
    with state_lock(Config(state_dir=tmp_path, master_key_file=key), shared=False):
        pass
    assert ("chmod 600" in caplog.text) == warned
