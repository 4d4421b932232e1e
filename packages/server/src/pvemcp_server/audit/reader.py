"""Reads the audit: pages, exports, counts, and whether the chain holds."""

import csv
import io
import json
from collections.abc import AsyncIterator
from dataclasses import asdict, fields, replace
from datetime import datetime
from typing import Any

from pvemcp_formats import guard_formulas
from pvemcp_server.audit.event import Entry, Kind
from pvemcp_server.store import Store
from pvemcp_server.store.audit_chain import Finding, Mark
from pvemcp_server.store.audit_search import AuditFilter

EXPORT_PAGE = 500
FIELDS = tuple(field.name for field in fields(Entry))
EVERYTHING = AuditFilter()


class AuditReader:
    """What may be asked of the audit."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def find(self, which: AuditFilter = EVERYTHING, limit: int = 50) -> list[Entry]:
        """Entries, newest first; the next page is `before` the last one's seq."""
        rows = await self._store.audit_search.find(which, limit)
        return [
            Entry(
                **{
                    **row,
                    "kind": Kind(row["kind"]),
                    "arguments": json.loads(row["arguments"] or "{}"),
                }
            )
            for row in rows
        ]

    async def counts(
        self, since: datetime, until: datetime, seconds: int
    ) -> list[tuple[datetime, str | None, int]]:
        """(beginning of the span, outcome, number of calls) for charts."""
        return await self._store.audit_search.counts(since, until, seconds)

    async def head(self) -> Mark:
        return await self._store.audit_log.head()

    async def verify(self, expected: Mark | None = None) -> list[Finding]:
        """Every edit, deletion and reordering; nothing when the chain is whole."""
        return await self._store.audit_log.verify(expected)

    async def export_json(self, which: AuditFilter = EVERYTHING) -> AsyncIterator[str]:
        """One JSON object a line, newest first."""
        async for entry in self._every(which):
            yield json.dumps(_flat(entry), ensure_ascii=False) + "\n"

    async def export_csv(self, which: AuditFilter = EVERYTHING) -> AsyncIterator[str]:
        """RFC 4180 with a header; a text that a spreadsheet would compute gets a leading quote."""
        yield ",".join(FIELDS) + "\r\n"
        async for entry in self._every(which):
            line = io.StringIO()
            values = {**_flat(entry), "arguments": json.dumps(entry.arguments)}
            csv.writer(line).writerow(guard_formulas([values])[0].values())
            yield line.getvalue()

    async def _every(self, which: AuditFilter) -> AsyncIterator[Entry]:
        while page := await self.find(which, EXPORT_PAGE):
            for entry in page:
                yield entry
            which = replace(which, before=page[-1].seq)


def _flat(entry: Entry) -> dict[str, Any]:
    return {**asdict(entry), "at": entry.at.isoformat()}
