"""The one tree of errors, ordered by who has to act.

    ScansealError
    ├── ConfigurationError       the operator: scanseal.toml or an option is wrong
    ├── StateError               service: a file of ours is damaged, missing or not what it should be
    │   └── StateUnreadable      the caller: these files are not for the user who runs this
    ├── KeyStoreError            service: the token or the key file
    │   ├── KeyNotFound
    │   ├── KeyDamaged           only this key is lost; a new one can be made
    │   ├── KeyStoreUnavailable
    │   ├── KeyMismatch          the key is not the one of the certificate, or does not sign properly
    │   ├── PinRefused           never tried again by itself: tokens lock after a few wrong PINs
    │   └── UnsupportedKey
    ├── EnrollerBusy             nobody: another enrollment is running, try again when it is over
    ├── TimeStampError           the time stamp authority: no token, or one that does not prove a time
    ├── EvidenceRefused          whoever shows evidence of where a key lives: it does not prove it
    └── EnrollmentError
        ├── ServerUnreachable    the network or the CA's host
        ├── ProtocolViolation    the CA's software: the answer is not what the protocol allows
        ├── EnrollmentRefused    the CA's operator: it understood and said no
        └── CertificateRefused   the CA's operator: we said no to what it issued

`agent/errors.py` hangs its own branch below ScansealError. Errors of other libraries are wrapped where they
enter (`raise ... from`), so a caller that handles ScansealError handles everything that may happen.
"""

from __future__ import annotations


class ScansealError(Exception):
    """What happened, and what to do about it.

    Args:
        what: One sentence for a person. Never holds a secret.
        remedy: What the reader can do now.
        code: Stable name for programs; the class has a default.
    """

    code = "error"

    def __init__(self, what: str, *, remedy: str = "", code: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.what} {self.remedy}".strip()


class ConfigurationError(ScansealError):
    """scanseal.toml or a command-line option is wrong."""

    code = "configuration-invalid"


class StateError(ScansealError):
    """A state file is damaged, missing, or not of the kind, size or owner it must have."""

    code = "state-damaged"


class StateUnreadable(StateError):
    """A state file is not for the user who runs this, which says nothing about what is in it."""

    code = "state-unreadable"


class KeyStoreError(ScansealError):
    """A key store could not do what was asked."""

    code = "key-store-failed"


class KeyNotFound(KeyStoreError):
    """The URI names no key of this store."""

    code = "key-not-found"


class KeyDamaged(KeyStoreError):
    """What is kept under this name is no key any more."""

    code = "key-damaged"


class KeyStoreUnavailable(KeyStoreError):
    """The token is not there, or its library cannot be loaded."""

    code = "key-store-unavailable"


class KeyMismatch(KeyStoreError):
    """The key and the certificate do not belong together, or the key does not sign properly."""

    code = "key-mismatch"


class PinRefused(KeyStoreError):
    """The token refused the PIN, or the key file its passphrase."""

    code = "pin-refused"


class UnsupportedKey(KeyStoreError):
    """The store cannot make, hold or use such a key."""

    code = "key-unsupported"


class EnrollerBusy(ScansealError):
    """Another process is enrolling; two at once would work on the same request."""

    code = "enroller-busy"


class TimeStampError(ScansealError):
    """A time stamp authority gave no token, or there is one that does not prove a time; `code` says why."""

    code = "time-stamp-refused"


class EvidenceRefused(ScansealError):
    """Evidence does not prove what it is shown for; `code` says which check failed."""

    code = "evidence-refused"


class EnrollmentError(ScansealError):
    """Getting a certificate failed."""

    code = "enrollment-failed"


class ServerUnreachable(EnrollmentError):
    """No answer from the server, or no trusted connection to it."""

    code = "server-unreachable"


class ProtocolViolation(EnrollmentError):
    """The server's answer breaks the protocol or a limit."""

    code = "protocol-violation"


class EnrollmentRefused(EnrollmentError):
    """The server understood the request and refused it."""

    code = "enrollment-refused"


class CertificateRefused(EnrollmentError):
    """The server issued a certificate that must not be used."""

    code = "certificate-refused"
