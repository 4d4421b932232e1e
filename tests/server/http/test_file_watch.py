"""The watch over open files: the probe and a notice report a shortage, once."""

import os
import resource

import anyio
import pytest

from pvemcp_server import open_files
from pvemcp_server.audit import Event
from pvemcp_server.errors import Unrecorded
from pvemcp_server.http.file_watch import FileWatch

pytestmark = pytest.mark.anyio


LIMIT = 256


@pytest.fixture
def leave_free():
    """Return a function that opens files until so many may still be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, hard))
    held: list[int] = []

    def leave(free: int) -> None:
        while held:
            os.close(held.pop())
        used = open_files.open_files()
        held.extend(os.dup(0) for _ in range(LIMIT - used - free))

    yield leave
    leave(LIMIT)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_the_probe_fails_while_nearly_all_files_are_open(http, leave_free):
    leave_free(100)
    assert (await http.get("/readyz")).status_code == 200
    leave_free(open_files.SPARE_FILES - 4)
    refused = await http.get("/readyz")
    assert refused.status_code == 503
    assert refused.json() == {"status": "nearly all open files are in use"}
    leave_free(100)
    assert (await http.get("/readyz")).status_code == 200


async def test_the_probe_fails_while_the_audit_cannot_be_written(
    http, served, monkeypatch: pytest.MonkeyPatch
):
    class Full:
        def writing(self):
            raise OSError("the disk is full")

    audit = served.app.endpoint.services.audit
    with monkeypatch.context() as full:
        full.setattr(served.state.store.audit_log, "_database", Full())
        with pytest.raises(Unrecorded):
            await audit.intent(Event(tool="StartThing"))
        refused = await http.get("/readyz")
        assert refused.status_code == 503
        assert refused.json() == {"status": "the audit cannot be written"}
    with anyio.fail_after(10):  # no entry has to come: the server looks by itself
        while (await http.get("/readyz")).status_code != 200:  # noqa: ASYNC110 - of another task
            await anyio.sleep(0.05)
    assert await audit.verify() == []


async def test_a_shortage_is_logged_and_noted_once(served, leave_free, caplog):
    store = served.state.store
    watch = FileWatch(store)
    for free in (100, 4, 4, 100, 100, 4):
        leave_free(free)
        await watch.look()
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    [notice] = await store.notices.open()
    assert (notice.kind, notice.count) == ("open-files", 2)
    assert "open files are in use" in notice.message


async def test_a_process_that_may_open_no_file_reports_a_shortage(leave_free):
    leave_free(0)
    assert open_files.open_files() == LIMIT
    assert open_files.shortage()
