"""The setting longest_key_life_days: new keys, changed keys, regenerated keys, and older ones."""

from datetime import UTC, datetime, timedelta

import pytest

from pvemcp_server.program_name import this_command

pytestmark = pytest.mark.anyio
DAYS = 30


def day(days: int) -> str:
    return (datetime.now(UTC) + timedelta(days=days)).date().isoformat()


def moment(days: int) -> str:
    return f"{day(days)}T12:00:00+00:00"


async def limit(front) -> None:
    changed = await front.api("PATCH", "/settings", json={"longest_key_life_days": DAYS})
    assert changed.status_code == 200


@pytest.mark.parametrize("expires", [None, moment(DAYS + 1), "9999-12-31T00:00:00+00:00"])
async def test_a_key_that_lives_too_long_is_neither_made_nor_extended(front, expires):
    await limit(front)
    made = await front.api("POST", "/keys", json={"name": "k", "expires": expires})
    allowed = await front.api("POST", "/keys", json={"name": "k", "expires": moment(DAYS)})
    extended = await front.api("PATCH", "/keys/k", json={"expires": expires})
    for refused in (made, extended):
        assert refused.status_code == 422
        assert f"{day(DAYS)} at the latest, by the setting" in refused.json()["error"]
    assert allowed.status_code == 201
    assert "A regenerated key may expire later." in extended.json()["error"]
    shortened = await front.api("PATCH", "/keys/k", json={"expires": moment(1)})
    assert shortened.status_code == 200


async def test_the_form_names_the_latest_day_and_its_last_second_is_accepted(front):
    await limit(front)
    form = (await front.get("/admin/keys")).text
    assert f"At the latest {day(DAYS)}" in form
    assert f'required max="{day(DAYS)}"' in form
    refused = await front.post("/admin/keys", name="k")
    assert "expires: is needed" in refused.text
    made = await front.post("/admin/keys", name="k", expires=day(DAYS))
    assert "pvemcp_" in made.text


async def test_older_keys_are_named_stay_usable_and_end_when_regenerated(front):
    for name, expires in (("forever", None), ("long", moment(400)), ("short", moment(5))):
        await front.api("POST", "/keys", json={"name": name, "expires": expires})
    await limit(front)
    (notice,) = (await front.api("GET", "/notices")).json()
    assert notice["message"].endswith("the setting allows: forever, long.")
    (report,) = (await front.api("POST", "/doctor")).json()
    (finding,) = report["findings"]
    assert finding["text"].endswith("allows: forever, long.")
    renamed = await front.post("/admin/keys/long/change", name="longer", expires=day(400))
    assert renamed.status_code == 204  # its expiry is unchanged
    for name in ("forever", "longer"):
        assert "required max=" not in (await front.get(f"/admin/keys/{name}/edit")).text
        shown = (await front.api("POST", f"/keys/{name}/regenerate")).json()
        assert shown["expires"].startswith(day(DAYS))
    short = (await front.api("POST", "/keys/short/regenerate")).json()
    assert short["expires"].startswith(day(5))
    assert (await front.api("POST", "/doctor")).json() == []


async def test_without_a_limit_keys_may_live_for_ever(front):
    made = await front.api("POST", "/keys", json={"name": "k"})
    assert (made.status_code, made.json()["expires"]) == (201, None)
    shown = (await front.api("POST", "/keys/k/regenerate")).json()
    assert shown["expires"] is None


async def test_a_service_token_lives_no_longer_than_a_key(front):
    token = {"name": "old", "scopes": ["keys:read"]}
    await front.api("POST", "/tokens", json=token)
    await limit(front)
    (notice,) = (await front.api("GET", "/notices")).json()
    assert notice["message"] == "Service tokens that live longer than the setting allows: old."
    (report,) = (await front.api("POST", "/doctor")).json()
    assert report["findings"][0]["fix"] == [f"{this_command()} tokens revoke old"]
    long = await front.api("POST", "/tokens", json={**token, "name": "b", "expires": moment(31)})
    assert f"{day(DAYS)} at the latest, by the setting" in long.json()["error"]
    default = await front.api("POST", "/tokens", json={**token, "name": "c"})
    assert default.json()["expires"].startswith(day(DAYS))
