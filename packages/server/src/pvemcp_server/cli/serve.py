"""`pvemcp serve` and `pvemcp run`."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Annotated, Any

import typer

from pvemcp_server.cli import logs, quickstart
from pvemcp_server.cli.deferred_gc import deferred_gc
from pvemcp_server.cli.demo import Demo
from pvemcp_server.cli.listener import Listener, claimed
from pvemcp_server.cli.state import State, command, opened
from pvemcp_server.config import Config

Host = Annotated[str | None, typer.Option(help="Address to listen on.")]
Port = Annotated[int | None, typer.Option(help="Port to listen on.")]
app = typer.Typer()


@app.command()
@command
async def serve(host: Host = None, port: Port = None) -> None:
    """Serve the configured clusters until told to stop."""
    config = _configured(host=host, port=port)
    with claimed(config, alone=False) as listener:
        async with opened(listener.config) as state:
            await Demo(state).remove_clusters()
            await _serve(state, listener, partial(quickstart.first_administrator, state))


@app.command()
@command
async def run(
    host: Host = None,
    port: Port = None,
    demo_if_empty: Annotated[
        bool,
        typer.Option("--demo-if-empty", help="Emulate two clusters while none is configured."),
    ] = False,
) -> None:
    """Serve, and say how to connect; the shortest way from nothing to a first answer."""
    config = _configured(host=host, port=port)
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(claimed(config, alone=demo_if_empty))
        state = await stack.enter_async_context(opened(listener.config))
        demo = Demo(state)
        if demo_if_empty and await demo.is_needed():
            await stack.enter_async_context(demo.running())
        else:
            await demo.remove_clusters()
        await _serve(state, listener, partial(quickstart.greet, state, demo=demo.started))


async def _serve(state: State, listener: Listener, greet: Callable[[], Awaitable[Any]]) -> None:
    """Serve, and greet once clients are answered: a start that fails has shown no secret."""

    async def announce() -> None:
        await greet()
        await quickstart.tell_switch(state)

    await quickstart.check_administrator(state)
    with deferred_gc():
        # loaded while serving only: `pvemcp --help` need not wait for every library of the server
        from pvemcp_server.app import serve_until_stopped

    await serve_until_stopped(state, listener.sockets, announce)


def _configured(**options: Any) -> Config:
    given = {name: value for name, value in options.items() if value is not None}
    config = Config.load(**given)
    logs.configure(config)
    return config
