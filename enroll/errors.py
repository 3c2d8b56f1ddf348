"""The one tree of errors, ordered by who has to act.

    ScansealError
    ├── ConfigurationError       the operator: scanseal.toml, an option or a file that is named there is wrong
    ├── StateError               service: a file of ours is missing or not what it should be
    │   ├── StateDamaged         its content is not what we wrote
    │   │   └── DeviceNeedsService  nobody knows any more whether the owner has disabled the scanner
    │   ├── StateTooNew          the operator: a newer scanseal wrote it, which has to be installed again
    │   ├── StateUnsafe          the operator: somebody else may write it
    │   ├── StateUnreadable      the operator: these files are not for the user who runs this
    │   └── DiskRefused          the operator: the disk is full, broken or read-only, or no file can be opened
    │       └── StateLost        the disk cannot read this file, which counts as damaged
    ├── KeyStoreError            service: the token or the key file
    │   ├── KeyNotFound
    │   ├── KeyDamaged           only this key is lost; a new one can be made
    │   ├── KeyStoreUnavailable
    │   ├── KeyMismatch          the key is not the one of the certificate, or does not sign properly
    │   ├── PinRefused           never tried again by itself: tokens lock after a few wrong PINs
    │   └── UnsupportedKey
    ├── DeviceDisabled           the owner of the scanner: who has disabled it has to enable it again
    ├── EnrollerBusy             nobody: another enrollment is running, try again when it is over
    ├── TimeStampError           the time stamp authority: no token, or one that does not prove a time
    ├── EvidenceRefused          whoever shows evidence of where a key lives: it does not prove it
    ├── VoucherRefused           whoever gave the ownership voucher: it does not prove who owns the scanner
    └── EnrollmentError
        ├── ServerUnreachable    hospital IT: the network or the CA's host
        ├── ProtocolViolation    the CA's operator: the answer is not what the protocol allows
        ├── EnrollmentRefused    whom the flow names: the server understood and said no
        ├── CertificateRefused   the CA's operator: we said no to what it issued
        └── CertificateRevoked   the CA's operator: it took back what it had issued

Each class says who has to act, and what scanseal does next by itself; a raiser that knows better says so.

`agent/errors.py` hangs its own branch below ScansealError. Errors of other libraries are wrapped where they
enter (`raise ... from`), so a caller that handles ScansealError handles everything that may happen.
"""

from __future__ import annotations

import datetime as dt
from typing import Self

# Who has to act.
OPERATOR = "operator of the scanner"
OWNER = "owner of the scanner"
SERVICE = "service engineer"
HOSPITAL_IT = "hospital IT"
CA_OPERATOR = "CA operator"
VENDOR = "vendor"
VENDOR_SERVICE = "vendor service"
NOBODY = "nobody"

_TRIED_AGAIN = "What is in use stays in use. The timer (scanseal renew) tries again by itself."
_TRIED_ANEW = "What is in use stays in use. The timer (scanseal renew) tries again with a new key."


class ScansealError(Exception):
    """What happened, who has to act, and what happens next.

    Args:
        what: One sentence for a person. Never holds a secret.
        remedy: What whoever has to act can do now.
        code: Stable name for programs; the class has a default.
        who_must_act: A role, such as "CA operator"; the class has a default.
        what_next: What scanseal does by itself; the class has a default.
    """

    code = "error"
    who_must_act = SERVICE
    what_next = "Nothing was changed."

    def __init__(
        self,
        what: str,
        *,
        remedy: str = "",
        code: str | None = None,
        who_must_act: str | None = None,
        what_next: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy
        if code is not None:
            self.code = code
        if who_must_act is not None:
            self.who_must_act = who_must_act
        if what_next is not None:
            self.what_next = what_next

    def __str__(self) -> str:
        return f"{self.what} {self.remedy}".strip()


class ConfigurationError(ScansealError):
    """scanseal.toml, a command-line option or a file that is named there is wrong."""

    code = "configuration-invalid"
    who_must_act = OPERATOR


class StateError(ScansealError):
    """A state file is missing or damaged, or cannot be used or changed for another reason."""

    code = "state-failed"
    what_next = "Nothing was changed. What the agent has loaded goes on signing until its next start."


class StateDamaged(StateError):
    """What a state file holds is not what was written, or it is not of the kind or size it must have."""

    code = "state-damaged"


class DeviceNeedsService(StateDamaged):
    """The record of the owner is damaged or missing, so that a scanner that was disabled could look like any other."""

    code = "device-needs-service"
    what_next = "Nothing is signed and nothing is enrolled until then."


class StateTooNew(StateError):
    """A newer scanseal wrote this file, in a format that this one does not know; the file is left as it is."""

    code = "state-too-new"
    who_must_act = OPERATOR


class StateUnsafe(StateError):
    """Somebody else than root and the user who runs this may write a state file, so that it proves nothing."""

    code = "state-unsafe"
    who_must_act = OPERATOR


class StateUnreadable(StateError):
    """A state file is not for the user who runs this, which says nothing about what is in it."""

    code = "state-unreadable"
    who_must_act = OPERATOR
    what_next = "Nothing was changed."


class DiskRefused(StateError):
    """The disk is full, broken or read-only, or no more files can be opened; it may be over by itself."""

    code = "disk-refused"
    who_must_act = OPERATOR
    what_next = "What was there before is still in use. The timer (scanseal renew) tries again by itself."


class StateLost(DiskRefused, StateDamaged):
    """A state file lies in a sector that the disk cannot read: as good as damaged, and written anew where that is."""


class KeyStoreError(ScansealError):
    """A key store could not do what was asked."""

    code = "key-store-failed"
    what_next = _TRIED_AGAIN


class KeyNotFound(KeyStoreError):
    """The URI names no key of this store."""

    code = "key-not-found"


class KeyDamaged(KeyStoreError):
    """What is kept under this name is no key any more."""

    code = "key-damaged"
    what_next = _TRIED_ANEW


class KeyStoreUnavailable(KeyStoreError):
    """The token is not there, or its library cannot be loaded."""

    code = "key-store-unavailable"


class KeyMismatch(KeyStoreError):
    """The key and the certificate do not belong together, or the key does not sign properly."""

    code = "key-mismatch"


class PinRefused(KeyStoreError):
    """The token refused the PIN, or the key file its passphrase."""

    code = "pin-refused"
    what_next = "The PIN is not tried again by itself, because tokens lock; it is once its file has changed."


class UnsupportedKey(KeyStoreError):
    """The store cannot make, hold or use such a key."""

    code = "key-unsupported"


class DeviceDisabled(ScansealError):
    """The owner has disabled the scanner."""

    code = "device-disabled"
    who_must_act = OWNER
    what_next = "Nothing is signed and nothing is enrolled until then."


class EnrollerBusy(ScansealError):
    """Another process is enrolling; two at once would work on the same request."""

    code = "enroller-busy"
    who_must_act = NOBODY
    what_next = "The other enrollment goes on."


class TimeStampError(ScansealError):
    """A time stamp authority gave no token, or there is one that does not prove a time; `code` says why."""

    code = "time-stamp-refused"
    who_must_act = "operator of the time stamp authority"
    what_next = "The signatures stay as they are, without a time stamp."


class EvidenceRefused(ScansealError):
    """Evidence does not prove what it is shown for; `code` says which check failed."""

    code = "evidence-refused"
    who_must_act = "whoever shows the evidence"
    what_next = "Nothing was changed: the key is not believed to be where it is said to be."


class VoucherRefused(ScansealError):
    """An ownership voucher does not prove what it is shown for, or cannot be passed on like this; `code` says why."""

    code = "voucher-refused"
    who_must_act = "whoever gave the voucher"


class EnrollmentError(ScansealError):
    """Getting a certificate failed."""

    code = "enrollment-failed"
    who_must_act = CA_OPERATOR
    what_next = _TRIED_AGAIN


class ServerUnreachable(EnrollmentError):
    """No answer from the server, or no trusted connection to it."""

    code = "server-unreachable"
    who_must_act = HOSPITAL_IT
    retry_after: dt.timedelta | None = None  # how long the server wants to be left alone, where it said that

    def left_alone_for(self, wait: dt.timedelta | None) -> Self:
        """The same error, where a server said when to come back."""
        self.retry_after = wait
        return self


class ProtocolViolation(EnrollmentError):
    """The server's answer breaks the protocol or a limit."""

    code = "protocol-violation"


class EnrollmentRefused(EnrollmentError):
    """The server understood the request and refused it."""

    code = "enrollment-refused"
    what_next = _TRIED_ANEW


class CertificateRefused(EnrollmentError):
    """The server issued a certificate that must not be used."""

    code = "certificate-refused"
    what_next = _TRIED_ANEW

    def of_our_own(self) -> StateError:
        """The same of a certificate that this side has: nobody was asked, so it is no answer of a server."""
        return StateError(
            self.what,
            remedy=self.remedy,
            code=self.code,
            who_must_act=self.who_must_act,
            what_next=EnrollmentError.what_next,
        )


class CertificateRevoked(EnrollmentError):
    """The CA has revoked a certificate of this scanner, for a reason that a person has to look into."""

    code = "certificate-revoked"
    what_next = "Nothing is signed with it, and no new one is asked for by itself, until somebody enrolls again."
