"""Open files: how a process shares out those it may have."""

import pytest

from pvemcp_server.open_files import OTHER_FILES, shares

CASES = {64: (32, 16), 256: (128, 64), 512: (256, 192), 1024: (768, 192), -1: (2000, 2000)}


@pytest.mark.parametrize("files", [*CASES, 4096, 10**6])
def test_clients_and_clusters_leave_files_for_everything_else(files):
    shared = shares(files)
    assert shared == CASES.get(files, (2000, 2000))
    assert files < 0 or sum(shared) <= files - min(OTHER_FILES, files // 4)
