"""Write the table of figures in docs/users/monitoring.md: `python scripts/make_docs_figures.py`."""

from pathlib import Path

from pvemcp_server.telemetry.figures import FIGURES

PAGE = Path(__file__).parents[1] / "docs" / "users" / "monitoring.md"
BEGIN, END = "<!-- figures: generated -->\n", "<!-- end of figures -->"


def table() -> str:
    """Return the table of all figures."""
    rows = [
        f"| `{figure.name}` | {figure.kind} | {', '.join(figure.labels)} | {figure.description} |"
        for figure in FIGURES
    ]
    return "\n".join(["| figure | kind | labels | |", "|---|---|---|---|", *rows])


def page(text: str) -> str:
    """Return the page with the present table."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
