"""Open approvals: what changes rights or keys makes them void, in its own transaction."""

from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement
from sqlalchemy.ext.asyncio import AsyncConnection

from pvemcp_server.store import records
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.records import ApprovalState

OPEN: Final = (ApprovalState.WAITING, ApprovalState.APPROVED)


async def void_open(connection: AsyncConnection, holders: ColumnElement[bool]) -> None:
    """Make the open approvals of these holders void, in the transaction that changes them."""
    table = records.approvals
    await connection.execute(
        table.update().where(is_open(utc_now()) & holders).values(state=ApprovalState.VOID)
    )


def is_open(now: datetime) -> ColumnElement[bool]:
    """Return the condition of approvals that wait, for a decision or for the client."""
    table = records.approvals
    unanswered = table.c.answered.is_(None) & (table.c.expires > now)
    return table.c.state.in_(OPEN) & unanswered
