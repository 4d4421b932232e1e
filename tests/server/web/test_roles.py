"""The page Roles: templates, suggestions, warnings about names that nothing has, summaries."""

import re

import pytest

from pvemcp_server.admin.roles import TEMPLATES, summary

pytestmark = pytest.mark.anyio
GRANT = {"0-tool": "ChangeVmState", "0-reach": "some"}


@pytest.mark.parametrize("name", TEMPLATES)
async def test_a_template_fills_the_form_and_is_saved_once_named(front, name):
    page = (await front.get(f"/admin/roles/new?template={name}")).text
    assert TEMPLATES[name].description in page
    form = re.findall(r'type="checkbox" name="([^"]+)" value="([^"]+)" checked', page)
    fields: dict[str, list[str]] = {}
    for field, value in form:
        fields.setdefault(field, []).append(value)
    for reach in re.findall(r'name="(\d+-reach)" value="some" checked', page):
        fields |= {reach: ["some"], reach.replace("reach", "pools"): ["web"]}
    for reach in re.findall(r'name="(\d+-reach)" value="everything" checked', page):
        fields[reach] = ["everything"]
    saved = await front.post("/admin/roles", name="Mine", **fields)
    assert saved.headers["hx-redirect"] == "/admin/roles?saved=Mine"
    role = await front.services.access.roles.get("Mine")
    assert len(role.grants) == len(TEMPLATES[name].grants)


async def test_names_of_the_clusters_are_suggested(equipped):
    page = (await equipped.get("/admin/roles/names")).text
    for kind, name in {"pools": "production", "nodes": "pve01", "vmids": "101"}.items():
        suggested = re.search(f'<datalist id="names-{kind}">(.*?)</datalist>', page)[1]
        assert f'value="{name}"' in suggested


async def test_a_name_that_nothing_has_is_reported_and_saved(equipped):
    fields = {**GRANT, "0-pools": "production prodction", "0-vmids": "101 99999"}
    draft = await equipped.post("/admin/roles/warnings", name="Shift", **fields)
    await equipped.post("/admin/roles", name="Shift", **fields)
    saved = await equipped.get("/admin/roles/Shift/warnings")
    for page in (draft.text, saved.text):
        assert "No pool &#39;prodction&#39; on" in page
        assert "Did you mean production?" in page
        assert "No VMID &#39;99999&#39;" in page
        assert page.count("banner") == 2
    role = await equipped.services.access.roles.get("Shift")
    assert role.grants[0].resources.pools == {"production", "prodction"}


@pytest.mark.parametrize(
    "fields", [{"0-vmids": "101 10x"}, {"0-tool": ""}, {"0-programs": "no/absolute/path"}]
)
async def test_an_unfinished_form_is_no_error_before_it_is_saved(front, fields):
    draft = await front.post("/admin/roles/warnings", name="Shift", **GRANT | fields)
    assert draft.status_code == 200
    assert "HX-Retarget" not in draft.headers


async def test_a_grant_without_names_is_not_asked_about(front):
    draft = await front.post("/admin/roles/warnings", name="", **{"0-reach": "some"})
    assert draft.text.strip() == ""
    everything = {"0-tool": "ListVms", "0-reach": "everything"}
    assert (await front.post("/admin/roles/warnings", **everything)).text.strip() == ""


async def test_names_on_a_cluster_without_an_answer_are_not_judged(front):
    await front.services.access.clusters.create(
        "gone",
        ["127.0.0.1:9"],
        token_id="mcp@pve!reader",
        secret="00000000-0000-0000-0000-000000000000",
    )
    await front.services.store.watch.poll()
    draft = await front.post("/admin/roles/warnings", **GRANT, **{"0-pools": "web"})
    assert "Cluster gone does not answer" in draft.text
    assert "No pool" not in draft.text


async def test_a_role_is_summed_up_in_two_lines():
    reads, changes = summary(
        [
            {"tools": ["*:read"]},
            {
                "tools": ["ChangeVmState", "BackupVm"],
                "clusters": ["prod"],
                "resources": {"pools": ["web"]},
            },
        ]
    )
    assert reads == "Reads: everything on every cluster."
    assert changes == "Changes: BackupVm, ChangeVmState on prod (pools web)."
    assert summary([{"tools": ["*:read"]}])[1] == "Changes: nothing."


async def test_the_rights_of_a_key_are_one_line_per_kind(equipped):
    await equipped.post("/admin/keys", name="k", role="Operator")
    (key,) = await equipped.services.access.keys.all()
    rights = (await equipped.get(f"/admin/keys/{key.id}/rights")).text
    assert re.findall(r'badge[^"]*">(\w+)</span> \d+ tools?', rights) == [
        "reads",
        "writes",
        "destroys",
    ]
    assert rights.count("everything on home-lab, prod") == 3
