"""Logging: the lines of all libraries in one format, on stderr, without secrets."""

import logging
import sys
from typing import Any

import structlog

from pvemcp_server.config import Config
from pvemcp_server.store.key_format import KEY_PATTERN

HIDDEN = "***"
# These log every request or frame; calls are in the audit
VERBOSE = ("alembic", "httpcore2", "httpx2", "mcp", "sse_starlette", "aiosqlite", "asyncio")


def configure(config: Config) -> None:
    """Send all logging through one handler, as text for people or JSON for collectors."""
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: Any = structlog.processors.JSONRenderer()
    if config.log_format == "text":
        # the pretty tracebacks show local values, and those may be secrets
        plain = structlog.dev.plain_traceback
        last = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
    else:
        shared.append(structlog.processors.format_exc_info)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        MaskingFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    logging.basicConfig(handlers=[handler], level=config.log_level.upper(), force=True)
    for name in VERBOSE:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


class MaskingFormatter(structlog.stdlib.ProcessorFormatter):
    """The formatter of every line: it masks API keys, also those that a library logs."""

    def format(self, record: logging.LogRecord) -> str:
        """Format the record and mask keys in the line."""
        return KEY_PATTERN.sub(HIDDEN, super().format(record))
