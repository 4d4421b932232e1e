"""Repository of answered questions: each answer counts once, in every process."""

from datetime import datetime

from sqlalchemy.dialects import postgresql, sqlite

from pvemcp_server.store import records
from pvemcp_server.store.database import Database
from pvemcp_server.store.records import AnsweredQuestion
from pvemcp_server.store.repository import Repository


class QuestionRepository(Repository[AnsweredQuestion]):
    """The nonces of answered questions."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, records.answered_questions, AnsweredQuestion)

    async def use(self, nonce: str, *, now: datetime, expires: datetime) -> bool:
        """Record the nonce as used; return False if it was used before.

        Of concurrent uses, also by other processes, exactly one returns True. Nonces that expired
        before `now` are deleted.
        """
        table = self.table
        dialect = sqlite if self.database.is_sqlite else postgresql
        new = dialect.insert(table).values(nonce=nonce, expires=expires)
        new = new.on_conflict_do_nothing(index_elements=["nonce"]).returning(table.c.nonce)
        async with self.database.writing() as connection:
            first = await connection.scalar(new)
            await connection.execute(table.delete().where(table.c.expires <= now))
        return first is not None
