"""Bulk actions: one worker sends each guest's request; what it logs is as recorded on 9.2.11."""

import pytest

from proxmox_client.emulator.state.guest import Kind
from proxmox_client.emulator.state.user_config import AclEntry, Token, User

pytestmark = pytest.mark.anyio
SECRET = "00000000-0000-0000-0000-000000000001"
BULK = "/cluster/bulk-action/guest"


def of_type(lab, type_):
    """Return the VMIDs of the tasks of a type, by their nodes."""
    return {(t.node, int(t.id)) for t in lab.state.tasks.values() if t.type == type_}


async def run(admin, action, **params):
    """Return the outcome of a bulk action and the lines of its log."""
    status = await admin.task("POST", f"{BULK}/{action}", **params)
    return status["exitstatus"], await admin.log(status["upid"])


async def test_each_guest_gets_a_task_of_its_own_on_its_node(admin, lab):
    guests = lab.state.guests
    vms = [vmid for vmid, each in guests.items() if each.kind is Kind.QEMU and each.running][:2]
    vms += [vmid for vmid, each in guests.items() if each.kind is Kind.LXC and each.running][:1]
    outcome, lines = await run(admin, "shutdown", vms=vms, timeout=9)
    assert outcome == "OK"
    assert lines[0] == f"Shutting down guests: {', '.join(map(str, vms))}"
    kinds = {"qemu": "VM", "lxc": "CT"}
    words = {f"{kinds[guests[vmid].kind.value]} {vmid}" for vmid in vms}
    assert {*lines[1:-1]} == {f"Shutting down {each} (Timeout = 9 seconds)" for each in words}
    assert of_type(lab, "qmshutdown") == {(guests[vmid].node, vmid) for vmid in vms[:2]}
    assert of_type(lab, "vzshutdown") == {(guests[vms[2]].node, vms[2])}
    outcome, lines = await run(admin, "start", vms=vms)
    assert (outcome, {*lines[1:-1]}) == ("OK", {f"Starting {each}" for each in words})
    assert all(guests[vmid].running for vmid in vms)


async def test_guests_that_need_nothing_are_skipped_with_a_warning(admin, lab):
    guests = lab.state.guests
    first, second = [v for v, each in guests.items() if each.kind is Kind.QEMU][:2]
    guests[first].status = guests[second].status = "stopped"
    both = f"{first}, {second}"
    skipped = [f"WARN: Skipping VM {vmid}, not running." for vmid in (first, second)]
    for action, verb in (("suspend", "Suspending"), ("shutdown", "Shutting down")):
        outcome, lines = await run(admin, action, vms=[first, second])
        assert outcome == "WARNINGS: 2"
        assert lines == [f"{verb} guests: {both}", *skipped, "TASK WARNINGS: 2"]


async def test_a_vmid_that_does_not_exist_leaves_no_line(admin):
    assert await run(admin, "start", vms=[999]) == ("OK", ["Starting guests: 999", "TASK OK"])


async def test_a_failed_guest_is_named_at_the_end_and_stops_no_other(admin, lab):
    guests = lab.state.guests
    broken, whole = [v for v, each in guests.items() if each.kind is Kind.QEMU][:2]
    for vmid in (broken, whole):
        guests[vmid].status = "stopped"
    guests[broken].config["lock"] = "backup"
    outcome, lines = await run(admin, "start", vms=[broken, whole], **{"max-workers": 1})
    assert outcome == f"Some guests failed to start: {broken}"
    assert f"WARN: Starting VM {broken} failed: VM is locked (backup)" in lines
    assert guests[whole].running


async def test_the_order_of_the_startup_is_kept_and_reversed_at_shutdown(admin, lab):
    vms = [v for v, each in lab.state.guests.items() if each.kind is Kind.QEMU and each.running][:2]
    for order, vmid in zip((2, 1), vms, strict=True):
        lab.state.guests[vmid].config["startup"] = f"order={order},down=7"
    _, down = await run(admin, "shutdown", vms=vms, timeout=99)
    assert down[1:-1] == [f"Shutting down VM {vmid} (Timeout = 7 seconds)" for vmid in vms]
    _, up = await run(admin, "start", vms=vms)
    assert up[1:-1] == [f"Starting VM {vmid}" for vmid in reversed(vms)]


async def test_guests_are_migrated_one_at_a_time_unless_they_are_there(admin, lab):
    guests = lab.state.guests
    here = next(v for v, each in guests.items() if each.node == "pve2")
    there = next(v for v, each in guests.items() if each.node == "pve1" and not each.running)
    outcome, lines = await run(admin, "migrate", vms=[here, there], target="pve2")
    names = {v: f"{guests[v].kind.word} {v}" for v in (here, there)}
    assert outcome == "WARNINGS: 1"
    assert lines[0] == f"Migrating guests to pve2: {here}, {there}"
    assert f"WARN: {names[here]} already on pve2, skipping." in lines
    assert f"Migrating {names[there]}" in lines
    assert guests[there].node == "pve2"


async def test_a_list_in_one_value_and_a_missing_right_are_refused(
    admin, lab, open_client, reason_of
):
    refused = await admin.request("POST", f"{BULK}/start", vms="121,140")
    assert refused.json()["errors"] == {"vms[0]": "type check ('integer') failed - got '121,140'"}
    lab.state.user_config.users["aud@pve"] = User(
        "aud@pve", tokens={"reader": Token("reader", SECRET)}
    )
    lab.state.user_config.acl.append(AclEntry("/", "user", "aud@pve", "PVEAuditor"))
    lab.state.user_config.acl.append(AclEntry("/", "token", "aud@pve!reader", "PVEAuditor"))
    async with open_client(lab, ("aud@pve!reader", SECRET)) as auditor:
        refused = await auditor.request("POST", f"{BULK}/start", vms=[100])
    assert (refused.status_code, reason_of(refused)) == (
        403,
        "Permission check failed (/vms/100, VM.PowerMgmt)",
    )
