"""Settings: declared once, checked, and the same in every process."""

import pytest

from pvemcp_server.errors import BadArgument, UnknownName
from pvemcp_server.settings import Settings, Values, declared
from pvemcp_server.store import Store

pytestmark = pytest.mark.anyio


@pytest.fixture
def settings(store: Store) -> Settings:
    return Settings(store)


async def test_the_endpoint_is_off_and_answers_compactly_at_first(settings: Settings):
    values = await settings.current()
    assert (values.enabled, values.output_format) == (False, "JsonCompact")
    assert (values.confirm_destructive, values.unconfirmed_destructive) == ("ask", "deny")
    assert (values.audit_retention_days, values.inventory_freshness_seconds) == (180, 10)


async def test_a_change_counts_here_and_in_other_processes(settings: Settings, other_store: Store):
    other = Settings(other_store)
    await other.current()
    changed = await settings.change({"enabled": True, "row_cap": 50}, by="ada")
    assert (changed.enabled, changed.row_cap) == (True, 50)
    await other_store.watch.poll()
    assert other.values == changed


async def test_who_changed_a_setting_is_kept(settings: Settings, store: Store):
    await settings.change({"row_cap": 50}, by="ada")
    await settings.change({"row_cap": 60}, by="bob")
    [record] = await store.settings.all()
    assert (record.name, record.value, record.changed_by) == ("row_cap", 60, "bob")


async def test_listeners_hear_what_was_and_what_is_and_only_of_changes(
    settings: Settings, other_store: Store
):
    heard: list[tuple[bool, bool]] = []
    other = Settings(other_store)
    await other.current()

    async def listener(before: Values, after: Values) -> None:
        heard.append((before.enabled, after.enabled))

    other.on_change(listener)
    await settings.change({"enabled": True}, by="ada")
    await other_store.watch.poll()
    await settings.change({"enabled": True}, by="ada")
    await other_store.watch.poll()
    assert heard == [(False, True)]


@pytest.mark.parametrize(
    ("values", "argument"),
    [
        ({"row_cap": 1}, "row_cap"),
        ({"row_cap": "many"}, "row_cap"),
        ({"output_format": "Yaml"}, "output_format"),
        ({"enabled": None}, "enabled"),
        ({"enabled": True, "audit_retention_days": 0}, "audit_retention_days"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_values_out_of_bounds_change_nothing(settings: Settings, values: dict, argument: str):
    with pytest.raises(BadArgument) as refused:
        await settings.change(values, by="ada")
    assert refused.value.argument == argument
    assert await settings.current() == Values()


async def test_an_unknown_setting_is_answered_with_the_nearest(settings: Settings):
    with pytest.raises(UnknownName, match="Did you mean row_cap"):
        await settings.change({"row_cup": 5}, by="ada")


async def test_a_stored_value_this_version_does_not_accept_is_left_aside(
    settings: Settings, store: Store, caplog: pytest.LogCaptureFixture
):
    await store.settings.put({"row_cap": -1, "of_old": 3, "protected_tags": ["gold"]}, "ada")
    values = await settings.current()
    assert (values.row_cap, values.protected_tags) == (Values().row_cap, ("gold",))
    assert "row_cap" in caplog.text


def test_every_setting_says_what_it_is():
    for setting in declared():
        assert setting.title, setting.name
        assert setting.description.endswith("."), setting.name
        assert setting.group in {"Endpoint", "Limits", "Safety", "Records"}
        assert {"type", "enum"} & setting.schema.keys(), setting.name


def test_the_pages_get_choices_and_limits_from_the_declaration():
    by_name = {setting.name: setting for setting in declared()}
    assert by_name["output_format"].schema["enum"] == ["JsonCompact", "JsonNormal", "Toon", "Csv"]
    assert by_name["row_cap"].schema == {"type": "integer", "minimum": 10, "maximum": 100_000}
    assert by_name["enabled"].default is False
