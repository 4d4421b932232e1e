"""`pvemcp doctor`: the checks of each cluster, in colour."""

from typing import Annotated, Final

import typer

from pvemcp_server.admin.doctor import Level, Report, reports
from pvemcp_server.admin.tools import NO_KEY
from pvemcp_server.cli.completion import complete
from pvemcp_server.cli.context import AsJson, administrator, as_they_come, to_json
from pvemcp_server.cli.operations import by_hand
from pvemcp_server.cli.terminal import no_cluster, one_line

MARKS: Final = {
    Level.OK: ("ok  ", "green"),
    Level.WARN: ("look", "yellow"),
    Level.BAD: ("bad ", "red"),
}


@by_hand("doctor")
async def doctor(
    cluster: Annotated[
        str | None,
        typer.Option(help="One cluster; all when absent.", autocompletion=complete("cluster")),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Id or name: for its account and its tools.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check reach, TLS, versions, clocks, nodes and rights; exits with 1 when a check fails."""
    async with administrator(writes=False) as context:
        pending = await reports(context, cluster, key or NO_KEY)
        done = await as_they_come(pending, None if as_json else _print)
    if as_json:
        typer.echo(to_json([report for report in done if report.findings]))
    elif not any(report.cluster for report in done):
        typer.echo(no_cluster())
    if any(report.level is Level.BAD for report in done):
        raise typer.Exit(1)


def _print(report: Report) -> None:
    if not report.findings:
        return
    title = f"{report.cluster} as {report.account or 'no account'}"
    typer.secho(one_line(title) if report.cluster else "This server", bold=True)
    for finding in report.findings:
        mark, colour = MARKS[finding.level]
        text = f"{finding.topic}: {finding.text}"
        typer.echo(f"  {typer.style(mark, fg=colour)}  {one_line(text)}")
        for line in finding.fix:
            typer.echo(f"          {one_line(line)}")
