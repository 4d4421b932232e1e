"""Administrators: their accounts, passwords and sign-ins."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from pvemcp_server.access.external import ExternalAdmins
from pvemcp_server.access.limits import Clock, RateLimiter
from pvemcp_server.access.names import check_name
from pvemcp_server.access.passkeys import Assertion
from pvemcp_server.access.passwords import Passwords, check_password, random_password
from pvemcp_server.access.second_factors import Code, Proof, SecondFactors
from pvemcp_server.access.sign_in_limits import (
    FREE_FAILURES,
    FailureLocks,
    KnownDevices,
    SignInQueue,
)
from pvemcp_server.errors import (
    AccessDenied,
    AccountChanged,
    BadArgument,
    LocalSignInOff,
    SecondFactorNeeded,
    TooManyFailures,
    UnknownName,
    counted,
)
from pvemcp_server.networks import network_of
from pvemcp_server.store import Store
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.records import AdminRecord, AdminRole

FAILURES_PER_MINUTE = 10  # from one address, for all names together, without a known device
UNKNOWN = "unknown browsers"  # the one source of all codes of an app that they send


@dataclass(slots=True)
class _Attempt:
    """An attempt in progress; one that is not `complete` forgets no failures when it succeeds."""

    complete: bool = True


class Admins:
    """Reads and changes administrators, and verifies their passwords."""

    def __init__(
        self,
        store: Store,
        external: ExternalAdmins | None = None,
        second_factors: SecondFactors | None = None,
        *,
        clock: Callable[[], datetime] = utc_now,
        monotonic: Clock = time.monotonic,
    ) -> None:
        self._store = store
        self._external = external or ExternalAdmins()
        self._second_factors = second_factors or SecondFactors(store, clock=clock)
        self._clock = clock
        self._passwords = Passwords()
        self._failures = RateLimiter("sign-ins", store.shared_limits, clock=monotonic)
        self._failed: Counter[int] = Counter()  # by administrator, since the last flush
        self.devices = KnownDevices(lambda: store.vault.derive("known devices"), clock)
        self._locks = FailureLocks(clock, "sign-ins", store.shared_failures)
        # strangers without the password evict none of it
        self._code_locks = FailureLocks(clock, "codes", store.shared_failures)
        self._queue = SignInQueue()
        self._passkey_queue = SignInQueue()  # quick to verify: it never waits for a password
        self._known_queue = SignInQueue()  # strangers without the password cannot fill it

    async def all(self) -> list[AdminRecord]:
        """Return every administrator."""
        return await self._store.admins.all()

    async def get(self, name: str) -> AdminRecord:
        """Return the administrator with this name; raise UnknownName."""
        admin = await self._store.admins.find(name=name)
        if admin is None:
            raise UnknownName("administrator", name, [other.name for other in await self.all()])
        return admin

    async def first(self, name: str, password: str | None = None) -> tuple[bool, str | None]:
        """Create the first administrator, an owner, unless administrators exist already.

        Return whether it was created, and its password if that was generated.
        """
        if await self.all():
            return False, None
        generated = None if password else random_password()
        try:
            await self.create(name, password or generated, must_change=generated is not None)
        except BadArgument:
            if await self.all():  # another process that starts at the same time was faster
                return False, None
            raise
        return True, generated

    async def create(
        self,
        name: str,
        password: str | None,
        *,
        role: AdminRole = AdminRole.OWNER,
        subject: str | None = None,
        listed_as: str | None = None,
        must_change: bool = True,
    ) -> AdminRecord:
        """Create an administrator with a password or with an OpenID Connect subject."""
        await self._check_free(check_name(name))
        hashed = await self._hash(password, name) if password else None
        return await self._store.admins.add(
            name=name,
            role=role,
            password_hash=hashed,
            subject=subject,
            listed_as=listed_as,
            must_change=must_change and hashed is not None,
            enabled=True,
            failures=0,
            generation=0,
            created=self._clock(),
        )

    async def sign_in(
        self, name: str, password: str, *, address: str = "", device: str = ""
    ) -> AdminRecord:
        """Return the administrator with this name and password; raise AccessDenied otherwise.

        `device` is the token of a browser that signed in before. Its attempts are counted and
        queued apart from those of strangers, until it fails too often itself. Raise
        SecondFactorNeeded for the right password of an administrator with second factors.
        """
        if not self._external.admits_local:
            raise LocalSignInOff
        async with self._attempt(name, address, device, self._queue) as attempt:
            admin = await self._verify(name, password)
            attempt.complete = not await self._second_factors.of(admin)
        return await self._finish(admin, complete=attempt.complete)

    async def sign_in_passkey(
        self, assertion: Assertion, *, address: str = "", device: str = ""
    ) -> AdminRecord:
        """Return the administrator whose passkey answers and has verified its user.

        Raise AccessDenied otherwise, also for an account of an issuer: it signs in there.
        """
        if not self._external.admits_local:
            raise LocalSignInOff
        factor = await self._second_factors.find_passkey(assertion)
        admin = await self._store.admins.find(id=factor.admin_id) if factor else None
        name = admin.name if admin else assertion.credential
        async with self._attempt(name, address, device, self._passkey_queue):
            if factor is None or admin is None or admin.subject is not None:
                raise AccessDenied("unknown passkey")
            await self._second_factors.verify_passkey(factor, assertion, alone=True)
            _check_enabled(admin)
        return await self.finish_sign_in(admin)

    async def check_password(
        self, admin: AdminRecord, password: str, *, address: str = "", device: str = ""
    ) -> None:
        """Verify the password of an administrator again; raise AccessDenied when it is wrong."""
        async with self._attempt(admin.name, address, device, self._queue) as attempt:
            await self._verify(admin.name, password)
            attempt.complete = not await self._second_factors.of(admin)

    async def check_second_factor(
        self,
        admin: AdminRecord,
        proof: Proof,
        *,
        address: str = "",
        device: str = "",
        alone: bool = False,
    ) -> str:
        """Verify a second factor and return its kind; raise AccessDenied when it is wrong.

        `alone`: it replaces the password, as only a passkey does that has verified its user.

        A wrong one counts as a wrong password does. Codes of an app are short, and who sends one
        has the password already: for them, browsers that are not known are counted together. A
        passkey or a recovery code cannot be guessed, so that wrong codes do not lock it.
        """
        queue, is_short = self._known_queue, isinstance(proof, Code) and proof.is_of_app
        async with self._attempt(admin.name, address, device, queue, is_short=is_short):
            _check_enabled(admin)
            try:
                return await self._second_factors.verify(admin, proof, alone=alone)
            except AccessDenied:
                self._failed[admin.id] += 1
                raise

    async def pending(self, admin_id: int, generation: int) -> AdminRecord:
        """Return the administrator of a sign-in whose first step was right.

        Raise AccountChanged when the account's sessions have ended since, as with a new password.
        """
        admin = await self._store.admins.find(id=admin_id)
        if admin is None or admin.generation != generation or not self._external.admits(admin):
            raise AccountChanged
        return admin

    async def finish_sign_in(self, admin: AdminRecord) -> AdminRecord:
        """Return the administrator, as read before the last proof was checked, as signed in.

        Raise AccountChanged when the account's sessions have ended since: the proof, such as an old
        password, may not count any more.
        """
        _check_enabled(admin)
        await self.flush()
        changed = await self._store.admins.change(admin.id, failures=0, last_sign_in=self._clock())
        if changed is None or changed.generation != admin.generation:
            raise AccountChanged
        return changed

    @asynccontextmanager
    async def _attempt(
        self, name: str, address: str, device: str, queue: SignInQueue, *, is_short: bool = False
    ) -> AsyncIterator[_Attempt]:
        """Count an attempt as failed unless the block succeeds, in its turn of the queue.

        A browser that is not known is counted by its address, or for what `is_short` as one of all
        UNKNOWN; and all names of its address are limited.
        """
        network, known = network_of(address), self.devices.find(name, device)
        account = _account(name, await self._store.admins.find(name=name))
        if known is not None and await self._locks.is_locked(account, known):
            known = None
        if known is None and not await self._failures.take(network, FAILURES_PER_MINUTE):
            seconds = 60 / FAILURES_PER_MINUTE
            raise TooManyFailures("too many failed sign-ins from this address", seconds=seconds)
        locks, counted = self._locks, known or network
        if known is None and is_short:
            locks, counted = self._code_locks, UNKNOWN
        attempt = _Attempt()
        await locks.begin(account, counted)
        try:
            async with (queue if known is None else self._known_queue).turn(known or network):
                yield attempt
        except TooManyFailures:
            await locks.undo(account, counted)
            raise
        if attempt.complete:
            await locks.clear(account, counted)
        else:
            await locks.undo(account, counted)
        if known is None:
            self._failures.give_back(network)

    async def _verify(self, name: str, password: str) -> AdminRecord:
        admin = await self._store.admins.find(name=name)
        # an account of an issuer has no password; verifying takes as long as with one
        stored = admin.password_hash if admin and admin.subject is None else None
        right = await self._passwords.verify(password, stored)
        if admin is None:
            raise AccessDenied("unknown administrator")
        if not right:
            # stored later: a write would reveal by its time that the name exists
            self._failed[admin.id] += 1
            raise AccessDenied("wrong password")
        _check_enabled(admin)
        return admin

    async def sign_in_external(
        self, subject: str, name: str, claims: Mapping[str, Any] | None = None
    ) -> AdminRecord:
        """Return the administrator with this OpenID Connect subject; create it when new.

        Raise BadArgument as `follow_issuer` does, and SecondFactorNeeded as `sign_in` does.
        """
        admin = await self.follow_issuer(subject, name, claims)
        complete = not await self._second_factors.of(admin)
        return await self._finish(admin, complete=complete)

    async def follow_issuer(
        self, subject: str, name: str, claims: Mapping[str, Any] | None = None
    ) -> AdminRecord:
        """Return the account of this subject, created or changed as the issuer describes its user.

        It takes the user's present e-mail address as its name, and the entry of the configuration
        that lists the user. Raise BadArgument when another account has that name.
        """
        entry = self._external.entry_of(name, claims or {})
        admin = await self._store.admins.find(subject=subject)
        if admin is None:
            # `ExternalAdmins.role` decides; the stored role is one that changes nothing
            return await self.create(
                name, None, role=AdminRole.AUDITOR, subject=subject, listed_as=entry
            )
        if (admin.name, admin.listed_as) == (name, entry):
            return admin
        await self._check_free(check_name(name), admin)
        changed = await self._store.admins.change(admin.id, name=name, listed_as=entry)
        if changed is None:
            raise AccessDenied("unknown administrator")
        return changed

    async def unlist(self, subject: str) -> AdminRecord | None:
        """End the sessions and the listing of an account whose user the issuer lists no more.

        Return None when no account of this subject was listed.
        """
        admin = await self._store.admins.find(subject=subject)
        if admin is None or admin.listed_as is None:
            return None
        return await self._store.admins.end_sessions(admin.id, listed_as=None)

    async def set_password(self, admin: AdminRecord, password: str) -> AdminRecord:
        """Set the password of an administrator, as read before the present one was checked.

        End the locks of the account in every process, and its sessions. Raise AccountChanged when
        these have ended since: a reset, which may answer a theft of the old password, stands. Raise
        BadArgument for an account of an OpenID Connect issuer, which has none.
        """
        values = await self._new_password(admin, password, must_change=False)
        changed = await self._store.admins.end_sessions_since(admin, **values)
        if changed is None:
            raise AccountChanged
        return changed

    async def reset_password(self, name: str) -> str:
        """Set and return a random password, which must be changed at the next sign-in.

        End locks and sessions, and raise BadArgument, as `set_password` does.
        """
        admin, password = await self.get(name), random_password()
        values = await self._new_password(admin, password, must_change=True)
        if await self._store.admins.end_sessions(admin.id, **values) is None:
            await self.get(name)  # which raises UnknownName
        return password

    async def _new_password(
        self, admin: AdminRecord, password: str, *, must_change: bool
    ) -> dict[str, Any]:
        """Return the columns of a new password, for which no failure has counted yet."""
        if admin.subject is not None:
            signs_in = f"{admin.name!r} signs in with OpenID Connect, without a password."
            raise BadArgument("name", signs_in)
        hashed = await self._hash(password, admin.name)
        return {"password_hash": hashed, "must_change": must_change, "failures": 0}

    async def set_role(self, name: str, role: AdminRole) -> None:
        """Give an administrator another role; the last owner keeps theirs.

        Raise BadArgument for an account of an OpenID Connect issuer: its role is configured.
        """
        admin = await self.get(name)
        if admin.subject is not None:
            raise BadArgument("name", f"{name!r} has the role that PVEMCP_OIDC_ADMINS gives it.")
        async with self._keeping_an_owner(admin) as connection:
            await self._store.admins.change_in(connection, admin.id, role=role)

    def role(self, admin: AdminRecord) -> AdminRole | None:
        """Return the role of an administrator; None for one who is not listed any more."""
        return self._external.role(admin)

    async def set_enabled(self, name: str, *, enabled: bool) -> None:
        """Enable or disable an account and end its sessions; the last owner stays enabled."""
        admin = await self.get(name)
        async with self._keeping_an_owner(admin) as connection:
            await self._store.admins.end_sessions_in(connection, admin.id, enabled=enabled)

    async def remove(self, name: str) -> None:
        """Delete an account; the last enabled owner stays."""
        admin = await self.get(name)
        async with self._keeping_an_owner(admin) as connection:
            await self._store.admins.remove_in(connection, admin.id)

    async def _hash(self, password: str, name: str) -> str:
        return await self._passwords.hash(check_password(password, name))

    async def _finish(self, admin: AdminRecord, *, complete: bool) -> AdminRecord:
        """Sign in, or raise SecondFactorNeeded when the second step is missing."""
        _check_enabled(admin)
        if not complete:
            raise SecondFactorNeeded(admin.id, admin.generation)
        return await self.finish_sign_in(admin)

    async def flush(self) -> None:
        """Store the failures of any source since the last flush, for the notice."""
        failed, self._failed = self._failed, Counter()
        for admin_id, count in failed.items():
            failures = await self._store.admins.count_failures(admin_id, count)
            admin = await self._store.admins.find(id=admin_id)
            further = min(count, failures - FREE_FAILURES + 1)
            if admin is not None and further > 0:
                message = f"Sign-in of {admin.name} failed {counted(failures, 'time')} in a row."
                await self._store.notices.record("sign-in-failed", admin.name, message, further)

    async def _check_free(self, name: str, own: AdminRecord | None = None) -> None:
        """Raise BadArgument if another account has the name; letters' case makes no difference."""
        for other in await self.all():
            if other.name.casefold() == name.casefold() and (own is None or other.id != own.id):
                raise BadArgument("name", f"{name!r} is already among the admins.")

    async def check_external_sign_in(self) -> None:
        """Raise BadArgument unless an owner can do without the local sign-in."""
        if not self._external.is_configured:
            raise BadArgument(
                "local_sign_in", "stays on: OpenID Connect is not configured (PVEMCP_OIDC_ISSUER)."
            )
        if not any(
            admin.subject and admin.last_sign_in and self._is_owner(admin)
            for admin in await self.all()
        ):
            raise BadArgument(
                "local_sign_in",
                "stays on: no owner has signed in with OpenID Connect yet.",
                hint="Sign in with it once as an owner, then switch the local sign-in off.",
            )

    def can_sign_in(self, admin: AdminRecord) -> bool:
        """Return whether the account is enabled, admitted, and has a way to sign in."""
        has_way = admin.password_hash is not None or admin.subject is not None
        return admin.enabled and has_way and self._external.admits(admin)

    def _is_owner(self, admin: AdminRecord) -> bool:
        """Return whether it is an owner who can sign in."""
        return self.can_sign_in(admin) and self.role(admin) is AdminRole.OWNER

    @asynccontextmanager
    async def _keeping_an_owner(self, admin: AdminRecord) -> AsyncIterator[AsyncConnection]:
        """Open a transaction for a change of an administrator, which may not take the last owner.

        Two owners who demote each other in two processes wait here for each other.
        """
        await self._store.watch.poll_if_due()  # the setting local_sign_in decides too
        admins = self._store.admins
        async with admins.locked() as connection:
            had_owner = any(map(self._is_owner, await admins.all_in(connection)))
            yield connection
            if had_owner and not any(map(self._is_owner, await admins.all_in(connection))):
                raise BadArgument("name", f"{admin.name!r} is the only owner who can sign in.")


def _check_enabled(admin: AdminRecord) -> None:
    if not admin.enabled:
        raise AccessDenied("disabled administrator")


def _account(name: str, admin: AdminRecord | None) -> str:
    """Return what failures are counted for: the name with its password, so a new one unlocks."""
    text = f"{name}\n{(admin and admin.password_hash) or ''}"
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
