"""Open approvals: what changes rights or keys makes them void, in its own transaction."""

from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, func
from sqlalchemy.ext.asyncio import AsyncConnection

from pvemcp_server.store import records
from pvemcp_server.store.columns import CLOCK_SKEW, utc_now
from pvemcp_server.store.records import ApprovalState

OPEN: Final = (ApprovalState.WAITING, ApprovalState.APPROVED)


async def void_open(connection: AsyncConnection, holders: ColumnElement[bool]) -> None:
    """Make the open approvals of these holders void, in the transaction that changes them."""
    table = records.approvals
    # also of one that began in the future: it would have its time once the clock is right again
    opened = _is_unanswered() & (table.c.expires > utc_now())
    await connection.execute(
        table.update().where(opened & holders).values(state=ApprovalState.VOID)
    )


def is_open(now: datetime) -> ColumnElement[bool]:
    """Return the condition of approvals that wait, for a decision or for the client."""
    return _is_unanswered() & has_time(now)


def has_time(now: datetime) -> ColumnElement[bool]:
    """Return the condition of approvals whose lifetime runs.

    That of one which began, or was decided, in the future does not: the clock was set back since.
    """
    table = records.approvals
    begun = func.coalesce(table.c.decided, table.c.created)
    return (table.c.expires > now) & (begun < now + CLOCK_SKEW)


def _is_unanswered() -> ColumnElement[bool]:
    table = records.approvals
    return table.c.state.in_(OPEN) & table.c.answered.is_(None)
