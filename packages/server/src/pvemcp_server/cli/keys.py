"""`pvemcp keys`: who may call."""

from typing import Annotated, Any

import typer

from pvemcp_server.admin import keys
from pvemcp_server.admin.client_setup import Connection, endpoint_url
from pvemcp_server.cli.context import AsJson, acting, tell, tell_rows
from pvemcp_server.cli.options import Given, taking
from pvemcp_server.cli.state import command

app = typer.Typer(help="Make, change and withdraw API keys.", no_args_is_help=True)

Key = Annotated[str, typer.Argument(help="Id or name of the key.")]
# What takes back an expiry, networks and a format of its own
CLEARED: dict[str, tuple[Any, Any]] = {
    "expires": ("never", None),
    "allow_from": (["any"], []),
    "output_format": ("any", None),
}
OPTIONS = {
    "role": Annotated[
        str | None, typer.Option(help="Its role; a new key is Read-only unless told.")
    ],
    "clusters": Annotated[
        list[str] | None, typer.Option("--cluster", help="Cluster it reaches; repeat it. * is all.")
    ],
    "toolset": Annotated[
        list[str] | None,
        typer.Option("--tool", help="Tool it is narrowed to; repeat it. * is all."),
    ],
    "expires": Annotated[str | None, typer.Option(help="2027-01-31T00:00:00+00:00, or never.")],
    "allow_from": Annotated[
        list[str] | None,
        typer.Option(help="Network it may come from, as 10.0.0.0/8; repeat it. any is all."),
    ],
    "output_format": Annotated[
        str | None,
        typer.Option(
            "--format", help="JsonCompact, JsonNormal, Toon or Csv; any is as in settings."
        ),
    ],
}
COLUMNS = ("id", "name", "role", "clusters", "enabled", "expires", "last_used")


@app.command("list")
@command
async def list_keys(as_json: AsJson = False) -> None:
    """All keys, without their secrets."""
    async with acting() as by:
        tell_rows(await keys.list_keys(by), COLUMNS, as_json=as_json)


@app.command()
@command
@taking(OPTIONS)
async def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    given: Given,
    as_json: AsJson = False,
) -> None:
    """A new key; its secret is shown this once."""
    async with acting() as by:
        made = await keys.create_key(by, keys.KeyFields(name=name, **_meant(given)))
        tell(made, _shown(made, endpoint_url(by.services.config)), as_json=as_json)


@app.command()
@command
async def regenerate(key: Key, as_json: AsJson = False) -> None:
    """The same key with a new secret; the old one is refused at once."""
    async with acting() as by:
        made = await keys.regenerate_key(by, key)
        tell(made, _shown(made, endpoint_url(by.services.config)), as_json=as_json)


@app.command()
@command
@taking({"name": Annotated[str | None, typer.Option(help="Its new name.")], **OPTIONS})
async def change(key: Key, given: Given, as_json: AsJson = False) -> None:
    """Change what is given; the rest stays."""
    async with acting() as by:
        changed = await keys.change_key(by, key, keys.KeyChanges(**_meant(given)))
        tell(changed, f"Changed {changed.name}.", as_json=as_json)


@app.command()
@command
async def enable(key: Key, as_json: AsJson = False) -> None:
    """Let the key in again."""
    async with acting() as by:
        changed = await keys.change_key(by, key, keys.KeyChanges(enabled=True))
        tell(changed, f"Enabled {changed.name}.", as_json=as_json)


@app.command()
@command
async def disable(key: Key, as_json: AsJson = False) -> None:
    """Refuse the key until it is enabled again."""
    async with acting() as by:
        changed = await keys.change_key(by, key, keys.KeyChanges(enabled=False))
        tell(changed, f"Disabled {changed.name}.", as_json=as_json)


@app.command()
@command
async def remove(key: Key, as_json: AsJson = False) -> None:
    """Withdraw the key for good."""
    async with acting() as by:
        await keys.remove_key(by, key)
        tell({"removed": key}, f"Removed {key}.", as_json=as_json)


@app.command()
@command
async def rights(key: Key, as_json: AsJson = False) -> None:
    """Every tool the key may call and, per cluster, what it reaches."""
    async with acting() as by:
        found = await keys.effective_rights(by, key)
        shown = found if as_json else [_in_words(one) for one in found]
        tell_rows(shown, ("tool", "effect", "clusters"), as_json=as_json)


def _meant(given: Given) -> Given:
    """The options with the words that clear something as what they stand for."""
    cleared = {name: empty for name, (word, empty) in CLEARED.items() if given.get(name) == word}
    return {**given, **cleared}


def _in_words(right: keys.ToolRight) -> keys.ToolRight:
    """The right with its clusters as a person reads them."""
    reached = (f"{name}: {_reach(found)}" for name, found in right.clusters.items())
    return right.model_copy(update={"clusters": " · ".join(reached) or "no cluster"})


def _reach(resources: dict[str, Any]) -> str:
    if "everything" in resources:
        return "everything"
    return "; ".join(f"{kind} {', '.join(map(str, one))}" for kind, one in resources.items())


def _shown(made: keys.ShownKey, url: str) -> str:
    return (
        f"Key {made.name} ({made.id}), role {made.role}, shown once:\n\n  {made.secret}\n\n"
        f"Endpoint: {Connection(url, made.secret).url_with_key}"
    )
