"""Whether a call that loses data may go on: a person decides, or a setting if none can be asked."""

from typing import Protocol

from pvemcp_server.errors import ConfirmationNeeded
from pvemcp_server.pipeline.decisions import Decision
from pvemcp_server.pipeline.sanitize import clean_line
from pvemcp_server.settings import Values

QUESTION_CHARACTERS = 1_000


class Asker(Protocol):
    async def ask(self, question: str) -> Decision: ...


async def confirm(asker: Asker, sentence: str, settings: Values) -> None:
    """Returns when the call may go on; raises ConfirmationNeeded when it may not."""
    if settings.confirm_destructive == "allow":
        return
    if settings.confirm_destructive == "deny":
        raise ConfirmationNeeded(
            "Calls that lose data are switched off here; nothing was changed.",
            hint="An administrator can allow them: setting 'Destructive calls'.",
        )
    question = clean_line(sentence, QUESTION_CHARACTERS)
    match await asker.ask(question):
        case Decision.NO:
            raise ConfirmationNeeded("The person did not agree; nothing was changed.")
        case Decision.NO_ANSWER:
            raise ConfirmationNeeded(
                "The client was asked for a person's agreement and gave no decision; nothing was "
                "changed.",
                hint="Repeat the call to ask again.",
            )
        case Decision.CANNOT_ASK if settings.unconfirmed_destructive == "deny":
            raise ConfirmationNeeded(
                f"This needs a person's agreement, and this client cannot ask for it: {question} "
                "Nothing was changed.",
                hint="Use a client with MCP elicitation, or have an administrator allow it by the "
                "setting 'Destructive calls without confirmation'.",
            )
