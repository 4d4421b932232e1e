"""`pvemcp doctor`: the checks of each cluster, in colour."""

from typing import Annotated, Final

import typer

from pvemcp_server.admin.doctor import Level, Report, examine
from pvemcp_server.cli.context import AsJson, administrator, printable, to_json
from pvemcp_server.cli.operations import by_hand

MARKS: Final = {
    Level.OK: ("ok  ", "green"),
    Level.WARN: ("look", "yellow"),
    Level.BAD: ("bad ", "red"),
}


@by_hand("doctor")
async def doctor(
    cluster: Annotated[str | None, typer.Option(help="One cluster; all when absent.")] = None,
    key: Annotated[str, typer.Option(help="Id or name: for its account and its tools.")] = "",
    as_json: AsJson = False,
) -> None:
    """Check reach, TLS, versions, clocks, nodes and rights; exits with 1 when a check fails."""
    async with administrator() as context:
        reports = await examine(context, cluster, key)
    if as_json:
        typer.echo(to_json(reports))
    else:
        _print(reports)
    if any(report.level is Level.BAD for report in reports):
        raise typer.Exit(1)


def _print(reports: list[Report]) -> None:
    for report in reports:
        title = f"{report.cluster} as {report.account or 'no account'}"
        typer.secho(title if report.cluster else "This server", bold=True)
        for finding in report.findings:
            mark, colour = MARKS[finding.level]
            typer.echo(
                f"  {typer.style(mark, fg=colour)}  {finding.topic}: {printable(finding.text)}"
            )
            for line in finding.fix:
                typer.echo(f"          {printable(line)}")
    if not any(report.cluster for report in reports):
        typer.echo("No cluster is configured: pvemcp clusters add.")
