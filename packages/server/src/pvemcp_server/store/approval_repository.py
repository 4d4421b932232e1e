"""Repositories of approvals, and of the webhook that is notified of them."""

import json
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import func, select

from pvemcp_server.store import records
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.connection_repositories import of_holder
from pvemcp_server.store.database import Database
from pvemcp_server.store.open_approvals import has_time, is_open
from pvemcp_server.store.records import ApprovalRecord, ApprovalState, WebhookRecord
from pvemcp_server.store.repository import Repository
from pvemcp_server.store.vault import Vault

MOST_WAITING: Final = 20  # of one key, or of all connections of a user
KEPT: Final = timedelta(days=7)  # after the end of their lifetime, for the page


class ApprovalRepository(Repository[ApprovalRecord]):
    """Approvals: calls that wait for an administrator, and decisions that wait for the client."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, records.approvals, ApprovalRecord)

    async def ask(
        self, holder: str, *, now: datetime, **values: Any
    ) -> tuple[ApprovalRecord, bool] | None:
        """Return the open approval of this call and plan, and whether it is new.

        Return None when MOST_WAITING others of the holder wait, who is a key or a user. An open
        approval of the same call with another plan ends: it can never be used.
        """
        table, keys = self.table, records.keys
        opened = is_open(now)
        same_call = (
            opened
            & (table.c.key_id == values["key_id"])
            & (table.c.call_digest == values["call_digest"])
        )
        async with self.database.writing() as connection:
            # concurrent calls of the holder, also in other processes, wait for each other here
            first = select(keys.c.id).where(of_holder(keys.c.id, holder)).order_by(keys.c.id)
            await connection.execute(first.limit(1).with_for_update())
            same_plan = table.c.plan_digest == values["plan_digest"]
            query = select(table).where(same_call & same_plan).limit(1)
            if row := (await connection.execute(query)).mappings().first():
                return self._read(row), False
            # removed, not kept: a plan that changes with each call must not fill the table
            waiting = table.c.state == ApprovalState.WAITING
            await connection.execute(table.delete().where(same_call & waiting))
            await connection.execute(
                table.update().where(same_call).values(state=ApprovalState.VOID)
            )
            await connection.execute(table.delete().where(table.c.expires <= now - KEPT))
            others = opened & waiting & of_holder(table.c.key_id, holder)
            count = select(func.count()).select_from(table).where(others)
            if (await connection.scalar(count) or 0) >= MOST_WAITING:
                return None
            values |= {"state": ApprovalState.WAITING, "created": now}
            return await self.add_in(connection, **values), True

    async def answer(
        self, state: ApprovalState, *, now: datetime, **equals: str
    ) -> ApprovalRecord | None:
        """Use up a decision and return it; None when there is none.

        Of concurrent uses, also by other processes, exactly one gets it: one conditional UPDATE.
        """
        table = self.table
        unused = (table.c.state == state) & table.c.answered.is_(None) & has_time(now)
        use = table.update().where(unused, *self._where(equals)).values(answered=now)
        async with self.database.writing() as connection:
            row = (await connection.execute(use.returning(table))).mappings().first()
        return None if row is None else self._read(row)

    async def decide(
        self, number: int, state: ApprovalState, *, by: str, now: datetime, expires: datetime
    ) -> ApprovalRecord | None:
        """Decide a waiting approval; return None when it does not wait, or not any more."""
        table = self.table
        waits = (table.c.state == ApprovalState.WAITING) & has_time(now)
        decision = {"state": state, "decided": now, "decided_by": by, "expires": expires}
        update = table.update().where(table.c.id == number, waits).values(**decision)
        async with self.database.writing() as connection:
            row = (await connection.execute(update.returning(table))).mappings().first()
        return None if row is None else self._read(row)

    async def waiting(self, now: datetime) -> list[ApprovalRecord]:
        """Return the approvals that wait, the oldest first."""
        table = self.table
        query = select(table).where(table.c.state == ApprovalState.WAITING, has_time(now))
        async with self.database.reading() as connection:
            rows = (await connection.execute(query.order_by(table.c.id))).mappings()
            return [self._read(row) for row in rows]

    async def given(self, tool: str, cluster: str, limit: int) -> list[ApprovalRecord]:
        """Return the approvals of a tool's calls that were given, the newest first."""
        table = self.table
        given = table.c.decided.is_not(None) & (table.c.state != ApprovalState.DECLINED)
        own = self._where({"tool": tool, "cluster": cluster})
        query = select(table).where(given, *own).order_by(table.c.decided.desc()).limit(limit)
        async with self.database.reading() as connection:
            rows = (await connection.execute(query)).mappings()
            return [self._read(row) for row in rows]

    async def ended(self, now: datetime, limit: int) -> list[ApprovalRecord]:
        """Return the approvals that do not wait any more, the newest first."""
        table = self.table
        waits = (table.c.state == ApprovalState.WAITING) & has_time(now)
        query = select(table).where(~waits).order_by(table.c.id.desc()).limit(limit)
        async with self.database.reading() as connection:
            rows = (await connection.execute(query)).mappings()
            return [self._read(row) for row in rows]


class WebhookRepository(Repository[WebhookRecord]):
    """The webhook: none or one. URL and secret are encrypted together."""

    def __init__(self, database: Database, vault: Vault) -> None:
        super().__init__(database, records.webhooks, WebhookRecord)
        self._vault = vault

    async def replace(self, receiver: str, url: str, secret: str) -> WebhookRecord:
        """Set the webhook; the old one, if any, ends."""
        table = self.table
        async with self.database.writing() as connection:
            await connection.execute(table.delete())
            added = await self.add_in(connection, receiver=receiver, created=utc_now(), sealed=b"")
            # the encryption is bound to the row's id, which exists only after the insert
            plain = json.dumps([url, secret])
            sealed = self._vault.encrypt(plain, table.name, added.id, "sealed")
            await self.change_in(connection, added.id, sealed=sealed)
        return added

    async def opened(self, webhook: WebhookRecord) -> tuple[str, str] | None:
        """Return URL and secret in plain text, to send to it; None when it was removed."""
        table = self.table
        query = select(table.c.sealed).where(table.c.id == webhook.id)
        async with self.database.reading() as connection:
            sealed = await connection.scalar(query)
        if sealed is None:
            return None
        plain = await self._vault.decrypt(sealed, table.name, webhook.id, "sealed")
        url, secret = json.loads(plain)
        return url, secret
