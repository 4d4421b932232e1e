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
from pvemcp_server.cli.state import State, command, open_state
from pvemcp_server.cli.workers import Workers as WorkerProcesses
from pvemcp_server.cli.workers import check_workers
from pvemcp_server.config import Config

Host = Annotated[str | None, typer.Option(help="Address to listen on.")]
Port = Annotated[int | None, typer.Option(help="Port to listen on.")]
Workers = Annotated[
    int,
    typer.Option(min=1, max=64, help="Processes that serve this port together; with PostgreSQL."),
]
app = typer.Typer()


@app.command()
@command
async def serve(host: Host = None, port: Port = None, workers: Workers = 1) -> None:
    """Serve the configured clusters until stopped."""
    config = _configure(host=host, port=port)
    check_workers(config, workers)
    with claimed(config, alone=False, workers=workers) as listener:
        async with open_state(listener.config) as state:
            await Demo(state).remove_clusters()
            welcome = partial(quickstart.print_welcome, state, demo=False)
            if workers == 1:
                await _serve(state, listener, welcome)
            else:
                await quickstart.check_administrator(state)
                await WorkerProcesses(listener, workers).run(welcome)


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
    """Serve, and print how to connect: the shortest way to a first answer."""
    config = _configure(host=host, port=port)
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(claimed(config, alone=demo_if_empty))
        state = await stack.enter_async_context(open_state(listener.config))
        demo = Demo(state)
        if demo_if_empty and await demo.is_needed():
            await stack.enter_async_context(demo.running())
        else:
            await demo.remove_clusters()
        await _serve(state, listener, partial(quickstart.print_welcome, state, demo=demo.started))


async def _serve(state: State, listener: Listener, welcome: Callable[[], Awaitable[Any]]) -> None:
    """Serve. Print the welcome, which shows secrets, only when the server accepts clients: a start
    that fails then shows none."""
    await quickstart.check_administrator(state)
    with deferred_gc():
        # imported here: `pvemcp --help` must not wait for every library of the server
        from pvemcp_server.app import serve_until_stopped

    await serve_until_stopped(state, listener.sockets, welcome, *listener.metrics)


def _configure(**options: Any) -> Config:
    config = Config.load(**{k: value for k, value in options.items() if value is not None})
    logs.configure(config)
    return config
