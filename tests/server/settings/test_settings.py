"""Settings: declaration, checks, and changes in every process."""

import pytest

from pvemcp_server.errors import BadArgument, UnknownName
from pvemcp_server.settings import Settings, Values, declared_settings
from pvemcp_server.store import Store

pytestmark = pytest.mark.anyio

_GROUPS = {"Endpoint", "Limits", "Safety", "Attention", "Sign-in", "Connections", "Records"}


@pytest.fixture
def settings(store: Store) -> Settings:
    return Settings(store)


async def test_the_default_values(settings: Settings):
    values = await settings.current()
    assert (values.enabled, values.output_format) == (False, "JsonCompact")
    assert (values.confirm_destructive, values.unconfirmed_destructive) == ("ask", "approve")
    assert (values.audit_retention_days, values.inventory_freshness_seconds) == (180, 10)


async def test_a_change_applies_in_every_process(settings: Settings, other_store: Store):
    other = Settings(other_store)
    await other.current()
    changed = await settings.change({"enabled": True, "row_cap": 50}, by="ada")
    assert (changed.enabled, changed.row_cap) == (True, 50)
    await other_store.watch.poll()
    assert other.values == changed


async def test_the_author_of_a_change_is_stored(settings: Settings, store: Store):
    await settings.change({"row_cap": 50}, by="ada")
    await settings.change({"row_cap": 60}, by="bob")
    [record] = await store.settings.all()
    assert (record.name, record.value, record.changed_by) == ("row_cap", 60, "bob")


async def test_listeners_get_old_and_new_values_of_changes_only(
    settings: Settings, other_store: Store
):
    calls: list[tuple[bool, bool]] = []
    other = Settings(other_store)
    await other.current()

    async def listener(before: Values, after: Values) -> None:
        calls.append((before.enabled, after.enabled))

    other.on_change(listener)
    await settings.change({"enabled": True}, by="ada")
    await other_store.watch.poll()
    await settings.change({"enabled": True}, by="ada")
    await other_store.watch.poll()
    assert calls == [(False, True)]


@pytest.mark.parametrize(
    ("values", "argument"),
    [
        ({"row_cap": 1}, "row_cap"),
        ({"row_cap": "many"}, "row_cap"),
        ({"output_format": "Yaml"}, "output_format"),
        ({"enabled": None}, "enabled"),
        ({"enabled": True, "audit_retention_days": 0}, "audit_retention_days"),
        ({"audit_syslog": "logs.example"}, "audit_syslog"),
        ({"audit_syslog": "https://logs.example"}, "audit_syslog"),
        ({"audit_syslog": "tcp://ada:pw@logs.example"}, "audit_syslog"),
        ({"audit_syslog": "tcp://logs.example:601/x"}, "audit_syslog"),
        ({"audit_syslog": "tcp://:601"}, "audit_syslog"),
        ({"audit_syslog": "tcp://\n127.0.0.1:601"}, "audit_syslog"),
        ({"audit_syslog": "tc\tp://logs.example:601"}, "audit_syslog"),
        ({"audit_syslog": "tcp://logs.example:601#"}, "audit_syslog"),
        ({"audit_syslog_fingerprint": "AB:CD"}, "audit_syslog_fingerprint"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_an_invalid_value_changes_nothing(settings: Settings, values: dict, argument: str):
    with pytest.raises(BadArgument) as refused:
        await settings.change(values, by="ada")
    assert refused.value.argument == argument
    assert await settings.current() == Values()


async def test_an_unknown_setting_error_suggests_a_similar_one(settings: Settings):
    with pytest.raises(UnknownName, match="Did you mean row_cap"):
        await settings.change({"row_cup": 5}, by="ada")


async def test_an_invalid_stored_value_is_replaced_by_the_default(
    settings: Settings, store: Store, caplog: pytest.LogCaptureFixture
):
    await store.settings.put({"row_cap": -1, "of_old": 3, "protected_tags": ["gold"]}, "ada")
    values = await settings.current()
    assert (values.row_cap, values.protected_tags) == (Values().row_cap, ("gold",))
    assert "row_cap" in caplog.text


def test_every_setting_is_described():
    for setting in declared_settings():
        assert setting.title, setting.name
        assert setting.description.endswith("."), setting.name
        assert setting.group in _GROUPS
        assert {"type", "enum"} & setting.schema.keys(), setting.name


def test_a_declaration_contains_choices_and_limits():
    by_name = {setting.name: setting for setting in declared_settings()}
    assert by_name["output_format"].schema["enum"] == ["JsonCompact", "JsonNormal", "Toon", "Csv"]
    assert by_name["row_cap"].schema == {"type": "integer", "minimum": 10, "maximum": 100_000}
    assert by_name["enabled"].default is False


async def test_a_list_that_is_none_is_refused_with_its_form(settings: Settings):
    for setting in declared_settings():
        if setting.schema.get("type") == "array":
            with pytest.raises(BadArgument) as refused:
                await settings.change({setting.name: "a,b"}, by="ada")
            assert (
                str(refused.value) == f'{setting.name}: it is a list, written in JSON: ["a","b"].'
            )
