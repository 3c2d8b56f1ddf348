"""Whether the owner lets this scanner sign, asked before each signature and once a second. Runs in the keyholder.

The record of the owner is read again whenever its file was replaced, which a look at the directory tells. So the first
signature that is asked for after `scanseal owner disable` is refused already, and one that was being made meanwhile is
not given out. What cannot be read allows nothing.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agent.audit import AuditTrail
from agent.errors import SigningError
from enroll.device_state import DeviceEvent, DeviceFacts, DeviceStanding, refusal, standing
from enroll.errors import (
    DeviceDisabled,
    DeviceNeedsService,
    KeyDamaged,
    KeyNotFound,
    ScansealError,
    StateDamaged,
    StateError,
)
from enroll.identity import VENDORS_IDENTITIES, IdentityName, IdentityStore
from enroll.owner_record import DEVICE_ENABLED, OwnerDecision, OwnerRecord

logger = logging.getLogger("scanseal.keyholder")


class DeviceWatch:
    """Follows the record of the owner; any number of threads may ask.

    Args:
        store: The identity directory.
        audit: Hears of every change, and of what keeps the scanner from signing at the start.
    """

    def __init__(self, store: IdentityStore, audit: AuditTrail) -> None:
        self._file = store.owner_file
        self._audit = audit
        self._lock = threading.Lock()
        self._mark: tuple[int, ...] | None = None
        self._record: OwnerRecord | None = None
        self._problem: ScansealError | None = None
        self._noted: _Noted | None = None
        self._told: tuple[OwnerDecision, ...] = ()  # of those that the record still has
        self._is_known = False

    def refresh(self) -> None:
        """Look again; to be called at least once a second.

        Raises:
            StateError: The audit trail cannot be written.
        """
        with self._lock:
            self._look()
            self._note()
            if self._told:
                # Where the disk refuses, the next look tries again, and at worst the next start tells it again.
                with contextlib.suppress(StateError):
                    self._file.forget(self._told)

    def refusal(self) -> SigningError | None:
        """Why nothing may be signed now, or nothing."""
        with self._lock:
            self._look()
            # The next look tries again; and without an audit trail nothing is signed either way.
            with contextlib.suppress(StateError):
                self._note()
            facts = DeviceFacts(record=self._record, record_problem=self._problem)
        refused = refusal(facts, DeviceEvent.SIGN)
        if refused is None:
            return None
        code = refused.code if isinstance(refused, DeviceDisabled) else DeviceNeedsService.code
        return SigningError(refused.what, remedy=refused.remedy, code=code, who_must_act=refused.who_must_act)

    def standing(self, in_use: Iterable[IdentityName], refused: Mapping[IdentityName, ScansealError]) -> DeviceStanding:
        """The state of the scanner, as far as it is known here.

        Args:
            in_use: The identities that are in use.
            refused: Why the newest generation of one cannot be used.
        """
        return standing(
            DeviceFacts(
                record=self._record,
                record_problem=self._problem,
                owners=tuple(name for name in in_use if name not in VENDORS_IDENTITIES),
                damaged=tuple(name for name, error in refused.items() if isinstance(error, StateDamaged)),
                lost=tuple(name for name, error in refused.items() if isinstance(error, KeyNotFound | KeyDamaged)),
            )
        )

    def _look(self) -> None:
        try:
            mark = self._file.mark()
            if self._is_known and mark == self._mark and mark is not None:
                return
            # Without a file, whether one is missed depends on everything else.
            self._record, self._problem, self._is_known = self._file.read(), None, True
            if self._record is None or not self._record.untold:
                self._told = ()
            self._mark = mark  # looked at before: what was written since is read at the next look
        except StateError as error:
            error.__cause__ = error.__context__ = None
            self._record, self._problem, self._is_known = None, error.with_traceback(None), False

    def _note(self) -> None:
        """Write down what people have decided, and what has changed otherwise.

        What lets the scanner sign without anybody's word is worth a line only after something else.
        """
        for decision in self._record.untold if self._record else ():
            if decision not in self._told:
                self._write(_Noted(decision.event, decision.fields()))
                self._told = (*self._told, decision)
        record, problem, before = self._record, self._problem, self._noted
        if problem is not None:
            noted = _Noted(DeviceNeedsService.code, {"code": problem.code, "detail": problem.what})
        elif record is not None and record.is_disabled:
            noted = _Noted(DeviceDisabled.code, record.decision.fields())
        else:
            noted = _Noted(DEVICE_ENABLED, record.decision.fields() if record and record.by else {})
        if noted == before:
            return
        was_enabled = before is None or (before.event == DEVICE_ENABLED and not noted.fields)
        if noted.event == DEVICE_ENABLED and was_enabled:
            self._noted = noted
        else:
            self._write(noted)

    def _write(self, noted: _Noted) -> None:
        self._audit.record(noted.event, noted.fields, durable=True)
        logger.warning("%s: %s", noted.event, ", ".join(f"{name} {text}" for name, text in noted.fields.items()))
        self._noted = noted


@dataclass(frozen=True)
class _Noted:
    """What the audit trail knows."""

    event: str
    fields: Mapping[str, str]
