"""`pvemcp status`: the state of each cluster, as soon as it answers."""

import typer

from pvemcp_server.admin.overview import Health, states
from pvemcp_server.cli.context import AsJson, administrator, as_they_come, to_json
from pvemcp_server.cli.operations import by_hand
from pvemcp_server.cli.terminal import no_cluster, one_line
from pvemcp_server.errors import counted
from pvemcp_server.store.records import ClusterKind


@by_hand("status")
async def status(as_json: AsJson = False) -> None:
    """Show the state of every cluster; exits with 1 when one does not answer."""
    async with administrator(writes=False) as context:
        clusters = await as_they_come(await states(context), None if as_json else _print)
    if as_json:
        typer.echo(to_json(clusters))
    elif not clusters:
        typer.echo(no_cluster())
    if not all(cluster.reachable for cluster in clusters):
        raise typer.Exit(1)


def _print(health: Health) -> None:
    word, colour = ("answers", "green") if health.reachable else ("silent", "red")
    if health.kind is ClusterKind.PBS:
        known, none = bool(health.datastores), "no datastores"
        figures = f"datastores {', '.join(health.datastores)}"
    else:
        known, none = health.nodes_total > 0, "no nodes"
        figures = (
            f"{health.nodes_online} of {counted(health.nodes_total, 'node')} online, "
            f"{health.guests_running} of {counted(health.guests_total, 'guest')} running or paused"
        )
    text = ". ".join(filter(None, (figures if known else "", health.trouble)))
    line = f"{health.name}: {text or none}"
    typer.echo(f"{typer.style(f'{word:8}', fg=colour)}{one_line(line)}")
