"""Records writes for `test_kill.py`, as many as its argument says or until it is killed.

It prints the id of each call after its intent is stored, when Proxmox would be called.
"""

import sys

import anyio

from pvemcp_server.audit import Audit, Event, Outcome, open_audit
from pvemcp_server.config import Config
from pvemcp_server.store import open_store

TASKS = 8


async def write(audit: Audit, numbers: range) -> None:
    for number in numbers:
        event = Event(tool="ChangeVmState", arguments={"vmid": 100, "number": number})
        call = await audit.intent(event)
        sys.stdout.write(f"{call}\n")
        sys.stdout.flush()
        await audit.outcome(call, Event(tool="ChangeVmState", outcome=Outcome.OK))
        await audit.call(Event(tool="ListVms"))


async def main(writes: int) -> None:
    async with (
        open_store(Config.load()) as store,
        open_audit(store, lambda: 180) as audit,
        anyio.create_task_group() as tasks,
    ):
        for task in range(TASKS):
            tasks.start_soon(write, audit, range(task, writes, TASKS))


if __name__ == "__main__":
    anyio.run(main, int(sys.argv[1]))
