"""The errors of the server.

* ServerError
  * ConfigError           the server's own settings or files are not usable
    * Undecryptable       an encrypted value was moved, or what it is bound to was changed
  * StateUnavailable      the state's database does not answer, so every key is refused
  * IssuerUnavailable     the external authorization server publishes no usable keys
  * IssuerIncomplete      nothing says what its tokens have to be for
  * AccessDenied          authentication failed; the reason is for administrators only
    * TooManyFailures     not checked at all, after too many attempts
    * AccountChanged      the account's sessions have ended since the sign-in began
    * SecondFactorNeeded  the password is right, and a second factor has to follow
    * LocalSignInOff      passwords and passkeys are switched off beside OpenID Connect
  * OAuthError            a request of OAuth that is refused, with its code for the client
  * CallError             the call cannot be carried out; its text goes to the model
    * UnknownName         no such cluster, node, guest … is visible to the caller
    * ToolsetMissing      the role grants the tool, and the key lacks its toolset
    * InsufficientScope   the access token is for less than the call needs
    * BadArgument         an argument is wrong; the text names it
    * UnusableCluster     a cluster that was tried cannot be used
    * Conflict            another change was made at the same time
    * Precondition        Proxmox would refuse, or it would do harm
    * Frozen              an administrator stops all writes for now; the write was not sent
    * ConfirmationNeeded  a destructive call that was not confirmed
      * ApprovalNeeded    it waits for an administrator's approval
    * NotPermitted        the administrator's role or the service token does not permit it
    * RecentSignInNeeded  the administrator has to confirm who they are first
    * RightsChanged       the key was refused, or its rights changed, while the call ran
    * ServerStops         the server stopped while the call ran
    * StoreAway           the state's database stopped answering while the call ran
    * OverBudget          a limit of time, rows or rate is exceeded
      * Busy              too many requests of the same actor wait already
    * Unanswered          a write was sent, and its result is not known
    * PartlyDone          a write of several steps ended after the first one
    * Unrecorded          the audit cannot be written, so the call was not run
    * DoneUnrecorded      an administrator's change was made but could not be recorded

Proxmox's own errors are `proxmox_client.ProxmoxError`; the endpoint turns both into text.
"""

import re
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher, get_close_matches
from heapq import nlargest
from itertools import islice, pairwise
from string import ascii_lowercase, ascii_uppercase
from typing import Any, Final

from pvemcp_server.shown_names import shown_volume

_SUBJECT: Final = re.compile(r"^\w+ should ")  # of pydantic's sentences
_UNCOUNTABLE: Final = {"traffic", "content"}
_FOLD: Final = str.maketrans(ascii_uppercase, ascii_lowercase, "_- ")
_LONGEST_NAME: Final = 1_000  # characters; no name that is known has more
_COMPARED: Final = 100  # characters of a name: comparing takes quadratic time
_MOST_KNOWN: Final = 30_000  # names that are looked at at all
_MOST_COMPARED: Final = 100  # names: thousands would take seconds, in which nothing else runs
MOST_WRONG: Final = 10  # names that one error explains, however many are wrong: each takes time


class ServerError(Exception):
    """The base class of the errors of this server."""


class ConfigError(ServerError):
    """The server's own settings or files are not usable."""


class Undecryptable(ConfigError):
    """An encrypted value was moved to another row, or what it is bound to was changed."""


class StateUnavailable(ServerError):
    """The state's database does not answer, so permissions cannot be checked."""


class IssuerUnavailable(ServerError):
    """The keys of the external authorization server cannot be read, so no token is verified."""


class IssuerIncomplete(ServerError):
    """An external authorization server is set without an audience, so no token is verified."""


class AccessDenied(ServerError):
    """Authentication failed. `reason` is for audit and administrators, never for the caller.

    `key_id` and `name` say which key or service token was attempted, where it exists.
    """

    def __init__(self, reason: str, *, key_id: str | None = None, name: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.key_id = key_id
        self.name = name


class OAuthError(ServerError):
    """A request of OAuth that is refused; `error` is the code of its RFC, the text is for users."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(description)
        self.error = error
        self.description = description
        self.status = status


class TooManyFailures(AccessDenied):
    """Not checked at all, after too many attempts; not audited one by one.

    After `seconds` another try may be checked.
    """

    def __init__(self, reason: str, *, seconds: float) -> None:
        super().__init__(reason)
        self.seconds = seconds


class SecondFactorNeeded(AccessDenied):
    """The password is right, or the issuer agrees; a second factor has to follow.

    It counts for this generation of the account only.
    """

    def __init__(self, admin_id: int, generation: int) -> None:
        super().__init__("a second factor is needed")
        self.admin_id = admin_id
        self.generation = generation


class AccountChanged(AccessDenied):
    """The sessions of the account have ended since the sign-in began, as with a new password."""

    def __init__(self) -> None:
        super().__init__("the account has changed since the sign-in began")


class LocalSignInOff(AccessDenied):
    """Passwords and passkeys are switched off beside OpenID Connect; not audited one by one."""

    def __init__(self) -> None:
        super().__init__("local sign-in is switched off")


class CallError(ServerError):
    """The call cannot be carried out: a fact and, as `hint`, the next step."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()


class UnknownName(CallError):
    """No such name is visible to the caller; the hint suggests similar visible names.

    `where` names the scope of the search, such as "on lab". `blind` is the hint when no name is
    visible at all, and `more` counts visible names that `known` leaves out.
    """

    def __init__(
        self,
        kind: str,
        name: object,
        known: Iterable[object],
        *,
        where: str = "",
        blind: str = "",
        more: int = 0,
    ) -> None:
        self.kind, self.name = kind, str(name)
        every = {str(name) for name in known} - {""}  # a guest may have no name
        names = sorted(islice(every, _MOST_KNOWN))
        more += len(every) - len(names)
        near = nearest(self.name, names)
        shown = near or names[:10]
        ask = "Did you mean" if near else "There is" if len(shown) == 1 else "There are"
        more = 0 if near else len(names) - len(shown) + more
        end = "?" if near else f" and {more} more." if more else "."
        listed = ", ".join(map(shown_volume, shown))  # a host may have chosen them
        hint = f"{ask} {listed}{end}" if shown else blind
        super().__init__(f"No {kind} {name!r} {where}".rstrip() + ".", hint=hint)


class BadArgument(CallError):
    """An argument is wrong; `argument` is its dotted name."""

    def __init__(self, argument: str, message: str, *, hint: str = "") -> None:
        super().__init__(f"{argument}: {message}", hint=hint)
        self.argument = argument


class UnusableCluster(CallError):
    """A cluster that was tried cannot be used; `about` is the field to correct, if it is known."""

    def __init__(self, message: str, *, hint: str = "", about: str = "") -> None:
        super().__init__(message, hint=hint)
        self.about = about


class Conflict(CallError):
    """A change that another change made impossible at the same time; nothing was changed."""


class Precondition(CallError):
    """Proxmox would refuse, or the call would do harm; nothing was changed."""


class Frozen(CallError):
    """An administrator stops all writes for now; the write was not sent."""


class ConfirmationNeeded(CallError):
    """A destructive call that was not confirmed; nothing was changed."""


class ApprovalNeeded(ConfirmationNeeded):
    """A destructive call that waits for an administrator's approval; nothing was changed yet."""


class ToolsetMissing(CallError):
    """The role grants the tool, and the key lacks its toolset; `add` is how it gets it."""

    def __init__(self, tool: str, toolset: str, add: str) -> None:
        super().__init__(
            f"{tool} is in the toolset {toolset}, which this key lacks.",
            hint=f"An administrator can add it, on the page API Access or with `{add}`.",
        )


class InsufficientScope(CallError):
    """The access token of a connection is for less than the call needs."""

    def __init__(self, tool: str, scope: str) -> None:
        super().__init__(
            f"This connection may not do this: {tool} needs the scope {scope}. Nothing was sent.",
            hint=f"Connect again and ask for {scope}, or tick it when the server asks for consent.",
        )
        self.scope = scope


class NotPermitted(CallError):
    """The administrator's role, or the scopes of the service token, do not permit an operation."""


class RecentSignInNeeded(CallError):
    """An operation of weight, and the session was not verified lately; nothing was changed."""

    def __init__(self) -> None:
        super().__init__(
            "This needs a recent sign-in; nothing was changed.",
            hint="Confirm that it's you, and send it again.",
        )


_GIVEN_UP = "Tasks already started go on in Proxmox: check ListTasks before you repeat a write."


class RightsChanged(CallError):
    """The key of a running call is not accepted any more, or its rights have changed."""

    def __init__(self) -> None:
        super().__init__(
            "The rights of this key changed while the call ran, so it was given up.",
            hint=_GIVEN_UP,
        )


class ServerStops(CallError):
    """The server stops before a running call has ended."""

    def __init__(self) -> None:
        super().__init__("The server is shutting down and gave up this call.", hint=_GIVEN_UP)


class StoreAway(CallError):
    """The state's database does not answer during a call; it may do so again in seconds."""

    def __init__(self, *, was_sent: bool) -> None:
        super().__init__(
            "The server's database does not answer, so this call was given up.",
            hint=_GIVEN_UP if was_sent else "Nothing was changed. Try again in a few seconds.",
        )


class OverBudget(CallError):
    """A limit of time, rows or rate is exceeded; after `seconds` another try may succeed."""

    def __init__(self, message: str, *, hint: str = "", seconds: float = 1) -> None:
        super().__init__(message, hint=hint)
        self.seconds = seconds


class Busy(OverBudget):
    """Too many requests of the same actor wait for their turn already."""


class Unanswered(CallError):
    """A write was sent and got no answer: it may have been carried out."""

    def __init__(
        self, reason: str, *, hint: str = "Look with ListTasks before trying again."
    ) -> None:
        super().__init__(f"{reason} Whether it was carried out is not known.", hint=hint)


class PartlyDone(CallError):
    """A write of several steps failed after it had made something, which `undo` removes."""

    def __init__(self, message: str, undo: str) -> None:
        super().__init__(message, hint=f"Go on from there, or undo it: {undo}.")


class DoneUnrecorded(CallError):
    """An administrator's change was made, but could not be recorded in the audit."""

    def __init__(self, action: str) -> None:
        super().__init__(
            f"{action} was done, but it cannot be recorded in the audit.",
            hint="The server's log says why.",
        )


class Unrecorded(CallError):
    """The audit cannot be written; nothing was changed, and no data is returned."""

    def __init__(self) -> None:
        super().__init__(
            "The call cannot be recorded in the audit, so it is refused; nothing was changed.",
            hint="Try again later, or ask the administrator.",
        )


def value_fact(error: Mapping[str, Any]) -> str:
    """Return what is wrong with a value as a sentence, from one of pydantic's errors."""
    if error["type"].startswith("bool_"):
        return "must be true or false."
    if error["type"].startswith("int_"):
        return "must be a whole number."
    if error["type"] == "string_unicode":
        return "must be text in UTF-8."
    if error["type"] in ("dict_type", "model_type"):
        return "must be an object."
    if error["type"].startswith(("date_", "datetime_")):
        return "must be a date or a time, as 2027-01-31 or 2027-01-31T08:00:00+01:00."
    return fact_of(error["msg"])


def fact_of(message: str) -> str:
    """Return a message of pydantic as a sentence without a subject."""
    text = message.removeprefix("Value error, ").partition(", unable to ")[0]
    return _SUBJECT.sub("must ", text).removesuffix(".") + "."


def plural(what: str) -> str:
    """Return the plural of a description such as "configuration of guest"."""
    words = what.split(" of ")
    return " of ".join(w if w.endswith("s") or w in _UNCOUNTABLE else f"{w}s" for w in words)


def counted(number: int, what: str) -> str:
    """Return the number with its noun: "1 row", "2 rows"."""
    return f"{number} {what if number == 1 else plural(what)}"


def folded(name: str) -> str:
    """Return the name in lower case, without underscores, dashes and spaces.

    Only ASCII letters are folded: no other character may become equal to one of our names. A text
    too long for a name is returned unchanged, as it would be folded again for each known name.
    """
    return name.translate(_FOLD) if len(name) <= _LONGEST_NAME else name


def nearest(name: str, known: Iterable[str], most: int = 3, *, likeness: float = 0.5) -> list[str]:
    """Return the known names that resemble `name` at least so much, the most similar first.

    Of many names, those that share most pairs of letters with it are compared.
    """
    by_folded: dict[str, list[str]] = {}
    for candidate in known:
        by_folded.setdefault(folded(candidate[:_COMPARED]), []).append(candidate)
    folded_name = folded(name[:_COMPARED])
    compared = list(by_folded)
    if len(compared) > _MOST_COMPARED:
        pairs = set(pairwise(folded_name))
        compared = nlargest(
            _MOST_COMPARED, compared, lambda other: len(pairs & set(pairwise(other)))
        )
    similar = get_close_matches(folded_name, compared, most, cutoff=likeness)
    ratios = [SequenceMatcher(None, match, folded_name).ratio() for match in similar]
    # drop names that are much less similar than the best match
    close = [m for m, ratio in zip(similar, ratios, strict=True) if ratio > ratios[0] - 0.2]
    return [candidate for match in close for candidate in by_folded[match]][:most]
