"""Passkeys (WebAuthn): the options for a browser, and the check of its answer.

The library is imported on first use: only administrators with a passkey need it.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pvemcp_server.errors import AccessDenied

if TYPE_CHECKING:
    from webauthn.helpers.structs import PublicKeyCredentialDescriptor

LONGEST_ANSWER: Final = 32 * 1024
TIMEOUT_MS: Final = 300_000  # how long the browser waits for the user


@dataclass(frozen=True, slots=True)
class RelyingParty:
    """The site that passkeys are made for: its host name, and the origin of its pages."""

    id: str
    origin: str


@dataclass(frozen=True, slots=True)
class NewPasskey:
    """A passkey that a browser has made."""

    credential: str
    public_key: str = field(repr=False)
    counter: int


@dataclass(frozen=True, slots=True)
class Assertion:
    """A browser's answer to the request for a passkey; `challenge` is the request's."""

    party: RelyingParty
    challenge: str = field(repr=False)
    answer: str = field(repr=False)

    @property
    def credential(self) -> str:
        """The id of the passkey that answers; empty in a malformed answer."""
        try:
            answer = json.loads(self.answer[:LONGEST_ANSWER])
        except (ValueError, RecursionError):
            return ""
        return str(answer.get("id", "")) if isinstance(answer, dict) else ""


def creation_options(
    party: RelyingParty, name: str, user: bytes, challenge: str, known: Iterable[str]
) -> str:
    """Return the options of `navigator.credentials.create()` as JSON.

    `user` is the opaque id of the administrator; `known` are their passkeys, not to be made twice.
    """
    from webauthn import generate_registration_options, options_to_json
    from webauthn.helpers.structs import (
        AuthenticatorSelectionCriteria,
        ResidentKeyRequirement,
        UserVerificationRequirement,
    )

    options = generate_registration_options(
        rp_id=party.id,
        rp_name=f"pvemcp on {party.id}",
        user_name=name,
        user_id=user,
        challenge=challenge.encode(),
        timeout=TIMEOUT_MS,
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.PREFERRED,
            user_verification=UserVerificationRequirement.PREFERRED,
        ),
        exclude_credentials=_descriptors(known),
    )
    return options_to_json(options)


def verify_creation(party: RelyingParty, challenge: str, answer: str) -> NewPasskey:
    """Return the passkey that the browser has made; raise AccessDenied for a wrong answer."""
    from webauthn import verify_registration_response
    from webauthn.helpers import bytes_to_base64url

    with _checked(answer):
        made = verify_registration_response(
            credential=answer,
            expected_challenge=challenge.encode(),
            expected_rp_id=party.id,
            expected_origin=party.origin,
        )
    public_key = bytes_to_base64url(made.credential_public_key)
    return NewPasskey(bytes_to_base64url(made.credential_id), public_key, made.sign_count)


def request_options(
    party: RelyingParty, challenge: str, credentials: Iterable[str] = (), *, alone: bool = False
) -> str:
    """Return the options of `navigator.credentials.get()` as JSON.

    `alone`: the passkey replaces the password, so the authenticator has to verify the user.
    """
    from webauthn import generate_authentication_options, options_to_json
    from webauthn.helpers.structs import UserVerificationRequirement

    verification = UserVerificationRequirement
    options = generate_authentication_options(
        rp_id=party.id,
        challenge=challenge.encode(),
        timeout=TIMEOUT_MS,
        allow_credentials=_descriptors(credentials),
        user_verification=verification.REQUIRED if alone else verification.PREFERRED,
    )
    return options_to_json(options)


def verify_assertion(assertion: Assertion, public_key: str, counter: int, *, alone: bool) -> int:
    """Return the new signature count; raise AccessDenied for a wrong answer."""
    from webauthn import base64url_to_bytes, verify_authentication_response

    with _checked(assertion.answer):
        verified = verify_authentication_response(
            credential=assertion.answer,
            expected_challenge=assertion.challenge.encode(),
            expected_rp_id=assertion.party.id,
            expected_origin=assertion.party.origin,
            credential_public_key=base64url_to_bytes(public_key),
            credential_current_sign_count=counter,
            require_user_verification=alone,
        )
    return verified.new_sign_count


@contextmanager
def _checked(answer: str) -> Iterator[None]:
    """Raise AccessDenied for whatever the library's parsers find wrong with an answer."""
    from webauthn.helpers.exceptions import WebAuthnException

    if len(answer) > LONGEST_ANSWER:
        raise AccessDenied("wrong passkey")
    malformed = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
    try:
        yield
    except (WebAuthnException, *malformed) as wrong:
        raise AccessDenied("wrong passkey") from wrong


def _descriptors(credentials: Iterable[str]) -> list["PublicKeyCredentialDescriptor"]:
    from webauthn import base64url_to_bytes
    from webauthn.helpers.structs import PublicKeyCredentialDescriptor

    return [PublicKeyCredentialDescriptor(id=base64url_to_bytes(each)) for each in credentials]
