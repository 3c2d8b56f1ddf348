"""What the keyholder answers on a signing channel. It gets fixed frames and the caller the channel is bound to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import agent
from agent.audit import AuditTrail
from agent.daemon.active_key import ActiveKey
from agent.daemon.peer import Caller
from agent.daemon.signer import FOLLOWED, Identities, IdentityView, not_enrolled
from agent.daemon.tally import SigningTally
from agent.daemon.wire import (
    Operation,
    Protection,
    Request,
    Role,
    Signature,
    encode_answer,
    encode_refusal,
    encode_signature,
)
from agent.errors import RoleNotAllowed, SigningError
from enroll.certificates import name_text, serial_text
from enroll.clock import Clock
from enroll.clock_sense import ClockSense
from enroll.errors import ScansealError
from enroll.identity import IdentityName
from enroll.proves import Proves, proves

READY = "ready"
REFUSAL_INTERVAL = 1.0  # seconds between two audit lines about refusals of the same user


class SigningService:
    """Answers requests of workers.

    Args:
        identities: What signs.
        audit: Takes note of every signature before it is given out, and of every refusal.
        clock: The clocks.
        tally: Counts what was signed and what was not.
        figures: More members of the status, such as the count of connections.
    """

    def __init__(
        self,
        identities: Identities,
        audit: AuditTrail,
        clock: Clock,
        tally: SigningTally,
        figures: Callable[[], Mapping[str, Any]],
    ) -> None:
        self._identities = identities
        self._audit = audit
        self._clock = ClockSense.of(clock)
        self._tally = tally
        self._figures = figures
        self._refusals = _Refusals(audit, clock)
        self._failures: dict[Role, _Failure] = {}

    def reply(self, frame: bytes, caller: Caller, roles: frozenset[Role]) -> bytes:
        """Answer one frame.

        Args:
            frame: As the worker sent it.
            caller: Whom the channel is bound to.
            roles: The caller's.

        Raises:
            WireError: Not a request.
        """
        request = Request.decode(frame)
        try:
            if request.operation in (Operation.SIGN, Operation.AUTHORIZE):
                self._authorize(request.role, caller, roles)
                return self._counted(request, caller)
            if request.operation is Operation.CERTIFICATES:
                return encode_answer(self._certificates(IdentityName(request.identity)))
            return encode_answer(self._status())
        except ScansealError as error:
            return encode_refusal(error.code, error.what, error.remedy)

    def _counted(self, request: Request, caller: Caller) -> bytes:
        """Sign, or say that it will be possible. Who was refused here had an image to sign, and asks no more."""
        try:
            if request.operation is Operation.SIGN:
                return self._sign(request, caller)
            self._usable_key(request.role)
            return encode_answer(b"")
        except ScansealError as error:
            self._tally.unsigned(request.role, error)
            raise

    def _sign(self, request: Request, caller: Caller) -> bytes:
        sense = self._clock.sense()
        active = self._usable_key(request.role)
        try:
            value = active.sign(request.digest, request.hash_name, active.judged_at(sense))
        except SigningError as error:
            self._failures[request.role] = _Failure(active.generation.number, error.code)
            raise
        self._check_enabled()  # the owner may have disabled the scanner while the token was at work
        self._failures.pop(request.role, None)
        fields: dict[str, str | int] = {
            "uid": caller.uid,
            "role": request.role,
            "identity": active.generation.identity,
            "proves": active.proves,
            "key_generation": active.generation.number,
            "protection": active.protection,
            "algorithm": request.hash_name,
            "digest": request.digest.hex(),
            "sop_instance_uid": request.reference,
        }
        warnings = {"device-identity-missing": request.device_unnamed, "clock-suspect": sense.doubt is not None}
        if any(warnings.values()):
            fields["warning"] = " ".join(warning for warning, applies in warnings.items() if applies)
        self._audit.record("signature", fields)
        self._tally.signed(request.role)
        made = Signature(
            value=value,
            certificate=active.certificate,
            generation=active.generation.number,
            protection=Protection(active.protection),
            vendor_only=active.proves is Proves.VENDOR,
            clock_suspect=sense.doubt is not None,
        )
        return encode_signature(made)

    def _authorize(self, role: Role, caller: Caller, roles: frozenset[Role]) -> None:
        if role not in roles:
            self._refusals.record(role, caller)
            raise RoleNotAllowed(
                f"User {caller.uid} may not use the role {role}.",
                remedy=f"Ask the operator to add the user, or one of its groups, to [roles] {role} in scanseal.toml "
                "and to restart the agent: systemctl restart scanseal.",
            )

    def _usable_key(self, role: Role) -> ActiveKey:
        """The key that may sign in a role now.

        A failure of its store is no obstacle: every image tries it anew.

        Raises:
            SigningError: There is none, or the owner does not let it sign.
        """
        self._check_enabled()
        active = self._identities.active_key(self._identities.identity_of[role])
        if (refusal := active.refusal(active.judged_at(self._clock.sense()))) is not None:
            raise refusal
        return active

    def _check_enabled(self) -> None:
        if (refusal := self._identities.device.refusal()) is not None:
            raise refusal

    def _state(self, role: Role) -> str:
        try:
            active = self._usable_key(role)
        except SigningError as error:
            return error.code
        failure = self._failures.get(role)
        return failure.code if failure and failure.generation == active.generation.number else READY

    def _certificates(self, name: IdentityName) -> bytes:
        chain = self._identities.chain(name)
        if chain is None:
            raise not_enrolled(name)
        return chain

    def _status(self) -> bytes:
        roles, sense = {role: self._state(role) for role in Role}, self._clock.sense()
        views = {name: self._identities.view(name) for name in FOLLOWED}
        refused = {name: view.refused for name, view in views.items() if view.refused}
        refusals = ({"identity": name, "code": error.code, "detail": error.what} for name, error in refused.items())
        in_use = [name for name, view in views.items() if view.generation]
        status = {
            "state": READY if READY in roles.values() else roles[Role.ACQUISITION],
            "version": agent.__version__,
            "time": _text(sense.wall),
            "clock": {
                "doubt": sense.doubt,
                "estimate": _text(sense.now),
                "floor": _text(sense.floor),
                "since": _text(sense.since) if sense.since else None,
            },
            "roles": roles,
            "signs_as": self._identities.identity_of,
            "identities": {name: _describe(view) for name, view in views.items()},
            "device": asdict(self._identities.device.standing(in_use, refused)),
            "refused_generation": next(refusals, None),
            **self._tally.figures(),
            **self._figures(),
        }
        return json.dumps(status).encode("ascii")


@dataclass(frozen=True)
class _Failure:
    """What the last attempt to sign in a role came to. It names the key and does not hold it: keys are destroyed."""

    generation: int
    code: str


class _Refusals:
    """Keeps a caller who is refused again and again from filling the audit trail."""

    def __init__(self, audit: AuditTrail, clock: Clock) -> None:
        self._audit = audit
        self._clock = clock
        self._lock = threading.Lock()
        self._last: dict[int, tuple[float, int]] = {}  # by user: when a line was written, refusals since

    def record(self, role: Role, caller: Caller) -> None:
        now = self._clock.monotonic()
        with self._lock:
            written, unwritten = self._last.get(caller.uid, (-REFUSAL_INTERVAL, 0))
            if now - written < REFUSAL_INTERVAL:
                self._last[caller.uid] = (written, unwritten + 1)
                return
            self._last[caller.uid] = (now, 0)
        self._audit.record(
            "role-refused",
            {"uid": caller.uid, "gid": caller.groups[0], "pid": caller.pid, "role": role, "unwritten": unwritten},
            durable=True,
        )


def _describe(view: IdentityView) -> dict[str, Any] | None:
    generation, active = view.generation, view.active
    if generation is None:
        return None
    certificate = generation.certificate
    return {
        "generation": generation.number,
        "protection": active.protection if active else generation.protection,
        "flow": generation.flow,
        "proves": proves(certificate),
        "subject": name_text(certificate.subject),
        "issuer": name_text(certificate.issuer),
        "serial_number": serial_text(certificate),
        "not_before": _text(certificate.not_valid_before_utc),
        "not_after": _text(certificate.not_valid_after_utc),
        "signs_until": _text(active.signs_until) if active else None,
        "signatures_per_second": active.signatures_per_second if active else None,
    }


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
