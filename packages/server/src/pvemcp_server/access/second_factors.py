"""Second factors of administrators: codes of an authenticator app, passkeys and recovery codes."""

import hmac
import re
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from pvemcp_server.access import passkeys
from pvemcp_server.access.names import check_name
from pvemcp_server.access.passkeys import Assertion, NewPasskey, RelyingParty
from pvemcp_server.errors import (
    AccessDenied,
    AccountChanged,
    BadArgument,
    Undecryptable,
    UnknownName,
)
from pvemcp_server.store import Store
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.records import AdminRecord, FactorKind, SecondFactorRecord

ISSUER: Final = "pvemcp"  # the name of the account in an authenticator app
STEP_SECONDS: Final = 30
DRIFT_STEPS: Final = 1  # a clock may be wrong by so many steps, either way
MOST_FACTORS: Final = 10  # of one administrator
RECOVERY_CODES: Final = 10
_LETTERS: Final = "abcdefghjkmnpqrstuvwxyz23456789"  # none that look alike
_TOTP_CODE: Final = re.compile(r"[0-9]{6}")


@dataclass(frozen=True, slots=True)
class Code:
    """A code that the administrator has typed: of an authenticator app, or a recovery code."""

    text: str = field(repr=False)

    @property
    def normalized(self) -> str:
        """The code without blanks and hyphens, in small letters."""
        return re.sub(r"[\s-]", "", self.text).lower()

    @property
    def is_of_app(self) -> bool:
        """Whether it has the form of an app's code, which can be guessed."""
        return _TOTP_CODE.fullmatch(self.normalized) is not None


Proof = Code | Assertion
"""What an administrator presents as second factor."""


class SecondFactors:
    """Adds, verifies and removes second factors."""

    def __init__(self, store: Store, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._store = store
        self._clock = clock

    async def of(self, admin: AdminRecord) -> list[SecondFactorRecord]:
        """Return the second factors of an administrator, oldest first; no recovery codes."""
        return await self._store.second_factors.all(admin_id=admin.id)

    async def passkeys_of(self, admin: AdminRecord, party: RelyingParty) -> list[str]:
        """Return the ids of the administrator's passkeys that work on this site."""
        kind = FactorKind.PASSKEY
        factors = await self._store.second_factors.all(admin_id=admin.id, kind=kind, site=party.id)
        return [factor.credential for factor in factors if factor.credential]

    async def verify(self, admin: AdminRecord, proof: Proof, *, alone: bool = False) -> str:
        """Return the kind of the factor that was proven; raise AccessDenied for a wrong proof.

        A code counts once, in every process. An assertion counts for its challenge, which the
        caller uses up. `alone`: the proof replaces the password, as only a passkey does that has
        verified its user.
        """
        if isinstance(proof, Assertion):
            factor = await self.find_passkey(proof)
            if factor is None or factor.admin_id != admin.id:
                raise AccessDenied("wrong passkey")
            await self.verify_passkey(factor, proof, alone=alone)
            return str(FactorKind.PASSKEY)
        if alone:
            raise AccessDenied("a code does not replace the password")
        if proof.is_of_app and await self._use_totp(admin, proof.normalized):
            return str(FactorKind.TOTP)
        if await self._use_recovery_code(admin, proof.normalized):
            return "recovery code"
        raise AccessDenied("wrong second factor")

    def check_totp(self, secret: str, code: str) -> int:
        """Return the step at which an app shows this code; raise BadArgument for a wrong one."""
        step = _step_of(secret, re.sub(r"\s", "", code), self._clock())
        if step is None:
            message = "This is not the app's present code; check the clock of the device."
            raise BadArgument("code", message)
        return step

    async def add_totp(
        self,
        admin: AdminRecord,
        name: str,
        secret: str,
        code: str,
        *,
        session_id: str | None = None,
    ) -> list[str] | None:
        """Add an authenticator app, once it has shown a right code; raise BadArgument before.

        See `_add` for `session_id` and the answer.
        """
        step = self.check_totp(secret, code)
        return await self._add(
            admin, FactorKind.TOTP, name, session_id, secret=secret, counter=step
        )

    async def add_passkey(
        self,
        admin: AdminRecord,
        name: str,
        party: RelyingParty,
        made: NewPasskey,
        *,
        session_id: str | None = None,
    ) -> list[str] | None:
        """Add a passkey; raise BadArgument when it is known. See `_add` for the rest."""
        if await self._store.second_factors.find(credential=made.credential):
            raise BadArgument("credential", "this passkey is already in use here.")
        return await self._add(
            admin,
            FactorKind.PASSKEY,
            name,
            session_id,
            credential=made.credential,
            site=party.id,
            secret=made.public_key,
            counter=made.counter,
        )

    async def is_passkey(self, credential: str) -> bool:
        """Return whether this is the id of a passkey of any administrator and site."""
        return await self._store.second_factors.find(credential=credential) is not None

    async def find_passkey(self, assertion: Assertion) -> SecondFactorRecord | None:
        """Return the passkey that answers, if it is one of this site."""
        return await self._store.second_factors.find(
            credential=assertion.credential, kind=FactorKind.PASSKEY, site=assertion.party.id
        )

    async def verify_passkey(
        self, factor: SecondFactorRecord, assertion: Assertion, *, alone: bool
    ) -> None:
        """Verify the answer of a passkey; raise AccessDenied when it is wrong."""
        try:
            public_key = await self._store.second_factors.secret(factor)
        except Undecryptable:
            raise AccessDenied("the passkey was changed in the database") from None
        counter = passkeys.verify_assertion(assertion, public_key, factor.counter, alone=alone)
        now = self._clock()
        await self._store.second_factors.change(factor.id, counter=counter, last_used=now)

    async def remove(self, admin: AdminRecord, factor_id: int) -> SecondFactorRecord:
        """Remove a factor, and with the last one the recovery codes; raise UnknownName."""
        async with self._changing(admin) as connection:
            factors = await self._store.second_factors.all_in(connection, admin_id=admin.id)
            factor = next((each for each in factors if each.id == factor_id), None)
            if factor is None:
                raise UnknownName("second factor", factor_id, [each.id for each in factors])
            await self._store.second_factors.remove_in(connection, factor.id)
            if len(factors) == 1:
                await self._store.recovery_codes.remove_all_in(connection, admin.id)
        return factor

    async def remove_all(self, admin: AdminRecord) -> int:
        """Remove every factor and recovery code, and end all sessions; return the number of
        factors.

        What those sessions have begun changes the account no more.
        """
        async with self._store.database.writing() as connection:
            # first: it locks the account against changes in progress
            await self._store.admins.end_sessions_in(connection, admin.id)
            await self._store.recovery_codes.remove_all_in(connection, admin.id)
            return await self._store.second_factors.remove_all_in(connection, admin.id)

    async def new_recovery_codes(self, admin: AdminRecord) -> list[str]:
        """Return new recovery codes in place of all old ones; only their keyed hashes are kept."""
        async with self._changing(admin) as connection:
            return await self._new_recovery_codes_in(connection, admin)

    async def _new_recovery_codes_in(
        self, connection: AsyncConnection, admin: AdminRecord
    ) -> list[str]:
        halves = [[_random(5), _random(5)] for _ in range(RECOVERY_CODES)]
        pepper = self._store.vault.pepper
        digests = [_digest(admin, "".join(code), pepper.material) for code in halves]
        await self._store.recovery_codes.replace_in(connection, admin.id, digests, pepper.id)
        return ["-".join(code) for code in halves]

    async def recovery_codes_left(self, admin: AdminRecord) -> int:
        """Return how many recovery codes are not used."""
        return len(await self._store.recovery_codes.all(admin_id=admin.id))

    def user_handle(self, admin: AdminRecord) -> bytes:
        """Return the opaque id under which authenticators keep the administrator's passkeys."""
        key = self._store.vault.derive("passkey users")
        return hmac.digest(key, str(admin.id).encode(), "sha256")

    async def _add(
        self,
        admin: AdminRecord,
        kind: FactorKind,
        name: str,
        session_id: str | None,
        *,
        secret: str,
        counter: int,
        credential: str | None = None,
        site: str | None = None,
    ) -> list[str] | None:
        """Add a factor. With a session and without recovery codes, return new ones and end all
        other sessions: it is the first factor, and the others were opened without one."""
        factors, codes = self._store.second_factors, self._store.recovery_codes
        async with self._changing(admin) as connection:
            if len(await factors.all_in(connection, admin_id=admin.id)) >= MOST_FACTORS:
                most = f"there are {MOST_FACTORS} second factors; remove one first."
                raise BadArgument("name", most)
            await factors.add_in(
                connection,
                admin_id=admin.id,
                kind=kind,
                name=check_name(name),
                credential=credential,
                site=site,
                secret=secret,
                counter=counter,
                created=self._clock(),
                last_used=None,
            )
            if session_id is None or await codes.find_in(connection, admin_id=admin.id):
                return None
            new_codes = await self._new_recovery_codes_in(connection, admin)
            await self._store.admins.end_sessions_in(connection, admin.id, keep=session_id)
            return new_codes

    @asynccontextmanager
    async def _changing(self, admin: AdminRecord) -> AsyncIterator[AsyncConnection]:
        """Open a transaction for a change that one of the account's sessions makes.

        Raise AccountChanged when sessions have ended since the record was read: an owner who
        removes all factors after a theft must not lose to an enrolment that the thief finishes.
        """
        async with self._store.database.writing() as connection:
            if not await self._store.admins.is_present_in(connection, admin):
                raise AccountChanged
            yield connection

    async def _use_totp(self, admin: AdminRecord, code: str) -> bool:
        """Return whether an app of the administrator shows this code for the first time."""
        now = self._clock()
        kind = FactorKind.TOTP
        for factor in await self._store.second_factors.all(admin_id=admin.id, kind=kind):
            try:
                secret = await self._store.second_factors.secret(factor)
            except Undecryptable:
                continue  # was changed in the database
            step = _step_of(secret, code, now)
            if step and await self._store.second_factors.use_step(factor.id, step, now):
                return True
        return False

    async def _use_recovery_code(self, admin: AdminRecord, code: str) -> bool:
        """Use up a recovery code; return False when it is none, or used."""
        codes = self._store.recovery_codes
        for pepper in {each.pepper for each in await codes.all(admin_id=admin.id)}:
            material = await self._store.vault.pepper_of(pepper)
            if await codes.remove(_digest(admin, code, material)):
                return True
        return False


def new_totp_secret() -> str:
    """Return a random secret of 160 bits for an authenticator app."""
    from pyotp import random_base32

    return random_base32()


def totp_uri(secret: str, name: str) -> str:
    """Return the otpauth:// address that an authenticator app reads from the QR code."""
    from pyotp import TOTP

    return TOTP(secret).provisioning_uri(name=name, issuer_name=ISSUER)


def _step_of(secret: str, code: str, now: datetime) -> int | None:
    """Return the step at which the app shows this code, within the drift of its clock."""
    from pyotp import TOTP

    totp, present = TOTP(secret), int(now.timestamp()) // STEP_SECONDS
    matching = None
    for step in range(present - DRIFT_STEPS, present + DRIFT_STEPS + 1):
        if hmac.compare_digest(totp.generate_otp(step).encode(), code.encode()):
            matching = step
    return matching


def _digest(admin: AdminRecord, code: str, pepper: bytes) -> str:
    text = f"recovery code\n{admin.id}\n{code}".encode("utf-8", "surrogatepass")
    return hmac.digest(pepper, text, "sha256").hex()


def _random(length: int) -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(length))
