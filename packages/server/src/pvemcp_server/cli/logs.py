"""Logging: the lines of all libraries in one format, on stderr, without secrets."""

import io
import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import structlog

from pvemcp_server.audit import current_call
from pvemcp_server.audit.mask import NAMES_OF_VALUES
from pvemcp_server.config import Config
from pvemcp_server.store.key_format import KEY_LIKE

HIDDEN = "***"
# of a query: what a callback of OAuth and OpenID Connect carries, and by its name a secret
_PARAMETER: Final = re.compile(
    rf"([?&](?:code|state|session_?id|code_verifier|[\w-]{{0,40}}(?:{NAMES_OF_VALUES})[\w-]{{0,40}})=)"
    r"[^\s&\"'#]+",
    re.IGNORECASE,
)
_SESSION_ID: Final = re.compile(r"(?<![\w-])([\w-]{8})[\w-]{24,}")  # the SDK logs those of clients
# These log every request or frame; calls are in the audit
VERBOSE = (
    "uvicorn.error",
    "alembic",
    "httpcore2",
    "httpx2",
    "mcp",
    "sse_starlette",
    "aiosqlite",
    "asyncio",
)


def configure(config: Config) -> None:
    """Send all logging through one handler, as text for people or JSON for collectors."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter_of(config))
    logging.basicConfig(handlers=[handler], level=config.log_level.upper(), force=True)
    for name in VERBOSE:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


def formatter_of(config: Config) -> logging.Formatter:
    """Return the formatter of the configured format.

    Messages and traces may hold text of Proxmox or of a client: as text, only a record begins a
    line with its time, and nothing gives a terminal orders. JSON escapes by itself.
    """
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        _add_call,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Any] = [structlog.processors.JSONRenderer()]
    if config.log_format == "text":
        # the pretty tracebacks show local values, and those may be secrets
        colors = sys.stderr.isatty()
        console = structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=_indented_trace)
        last = [_on_one_line, console]
    else:
        shared.append(structlog.processors.format_exc_info)
    return MaskingFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )


def _add_call(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the id that the audit has of the running call."""
    if call := current_call.get():
        event["call_id"] = call
    return event


def _on_one_line(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {**event, "event": _escaped(str(event["event"]))}


def _indented_trace(stream: TextIO, exc_info: Any) -> None:
    """Write the trace with each line indented, so that none passes for a record."""
    trace = io.StringIO()
    structlog.dev.plain_traceback(trace, exc_info)
    lines = trace.getvalue().rstrip("\n").split("\n")
    stream.write("\n".join(f"  {_escaped(line)}" for line in lines))


def _escaped(text: str) -> str:
    """Return the text with what is not printable as an escape sequence of Python."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


class MaskingFormatter(structlog.stdlib.ProcessorFormatter):
    """The formatter of every line: it masks API keys and more, also what a library logs."""

    def format(self, record: logging.LogRecord) -> str:
        """Format the record; mask keys, and in URLs what signs in or names a session."""
        line = KEY_LIKE.sub(HIDDEN, super().format(record))
        if record.name.partition(".")[0] == "mcp":
            line = _SESSION_ID.sub(rf"\1{HIDDEN}", line)
        return _PARAMETER.sub(rf"\1{HIDDEN}", line)
