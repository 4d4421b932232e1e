"""Log lines of every library in one shape, on stderr, without secrets."""

import logging
import sys
from typing import Any

import structlog

from pvemcp_server.config import Config
from pvemcp_server.store.key_format import KEY_PATTERN

HIDDEN = "***"
# They tell of every request or frame; the audit has what matters
TALKATIVE = ("alembic", "httpcore2", "httpx2", "mcp", "sse_starlette", "aiosqlite", "asyncio")


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
        Masking(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    logging.basicConfig(handlers=[handler], level=config.log_level.upper(), force=True)
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


class Masking(structlog.stdlib.ProcessorFormatter):
    """The last look at every line: whatever a library may have written, no key leaves."""

    def format(self, record: logging.LogRecord) -> str:
        return KEY_PATTERN.sub(HIDDEN, super().format(record))
