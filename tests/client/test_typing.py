"""Strict mypy on code that uses the client."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

USE = """
from proxmox_client import Client, Qemu, TaskProgress

def show(now: TaskProgress) -> None:
    print(now.percent, now.lines)

async def use(client: Client) -> int | None:
    guest = await client.guest(100)
    reveal_type(await guest.config())
    reveal_type(await guest.snapshots())
    task = await guest.create_snapshot("one")
    reveal_type((await task.wait(progress=show)).warnings)
    if isinstance(guest, Qemu):
        await guest.migrate("pve2", online=True)
    reveal_type((await client.node("pve1").rrd("hour"))[0].cpu)
    await client.node("pve1").rrd("century")
    await guest.create_snapshot("one", memory=True)
    return (await client.cluster.resources("vm")).guests[0].memory
"""


def test_results_are_typed_and_wrong_arguments_are_errors(tmp_path):
    file = tmp_path / "use.py"
    file.write_text(USE)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), str(file)]
    output = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path).stdout
    notes = [
        line.partition("Revealed type is ")[2] for line in output.splitlines() if "Revealed" in line
    ]
    assert notes == [
        '"proxmox_client.api.configs.QemuConfig | proxmox_client.api.configs.LxcConfig"',
        '"list[proxmox_client.api.guests.Snapshot]"',
        '"int"',
        '"float | None"',
    ]
    wrong = [line for line in output.splitlines() if "error:" in line]
    assert ["rrd" in wrong[0], "memory" in wrong[1]] == [True, True]
    assert len(wrong) == 3, "rrd once, memory for a machine and for a container"
