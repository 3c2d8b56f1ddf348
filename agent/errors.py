"""The agent's branch of the tree of errors (its trunk is in `enroll/errors.py`), ordered by who has to act.

ScansealError
├── DicomError              whoever made the instance: it cannot be signed, or not be verified
├── SigningError            the agent cannot sign now, or may not for this caller
│   ├── NotEnrolled         service: no certificate yet
│   ├── RoleNotAllowed      the operator: [roles] does not name this caller
│   ├── AwaitingCertificate nobody: a key in memory was made, and its certificate is asked for
│   ├── KeyRefused          service: the key is not in hardware, or its token is too slow
│   └── CertificateNotUsable  service: expired, or the clock is wrong; the CA's operator: revoked
├── PolicyError             the archive owner: the policy file is wrong; `line` says where
├── RequestRefused          whoever wrote the calling software: this is not the socket protocol
├── AlreadyRunning          the operator: another agent holds the state directory or the socket
└── AgentError              seen by a client of the socket
    ├── AgentUnreachable    the operator: nobody answers at the socket
    ├── AgentAnswerInvalid  service: the answer is not the socket protocol
    └── AgentRefused        service: the agent answered with a problem document
"""

from __future__ import annotations

from enroll.errors import NOBODY, OPERATOR, ScansealError

_UNSIGNED = "The image stays unsigned and is counted; every further one is tried."


class DicomError(ScansealError):
    """An instance that cannot be signed or verified; `code` says why."""

    code = "instance-refused"
    who_must_act = "whoever made the instance"
    what_next = "The instance stays as it is."


class SigningError(ScansealError):
    """The agent cannot sign now, or may not for this caller."""

    code = "signing-failed"
    what_next = _UNSIGNED


class NotEnrolled(SigningError):
    """There is no certificate yet."""

    code = "not-enrolled"


class RoleNotAllowed(SigningError):
    """The configuration does not give this role to the caller."""

    code = "role-not-allowed"
    who_must_act = OPERATOR


class AwaitingCertificate(SigningError):
    """The key in memory has no certificate yet; it comes without anybody's doing."""

    code = "awaiting-certificate"
    who_must_act = NOBODY
    what_next = "The image stays unsigned and is counted. Signing begins by itself when the certificate is there."


class KeyRefused(SigningError):
    """The key is not what `[signing]` demands; `code` says why."""

    code = "hardware-required"


class CertificateNotUsable(SigningError):
    """The certificate has expired or is not valid yet, or the time in which its key may sign is over."""

    code = "certificate-expired"


class RequestRefused(ScansealError):
    """A request that breaks the socket protocol or one of its limits; `code` says which."""

    code = "request-malformed"
    who_must_act = "whoever wrote the calling software"


class PolicyError(ScansealError):
    """A policy file that cannot be read, is not what the format allows, or contradicts itself.

    Args:
        what: With the name of the file and the line.
        remedy: What the archive owner can do now.
        code: Says which rule of the format is broken.
        line: Where in the file, counted from 1; 0 where the file as a whole is meant.
    """

    code = "policy-invalid"
    who_must_act = "archive owner"
    what_next = "No verdict was given."

    def __init__(self, what: str, *, remedy: str = "", code: str | None = None, line: int = 0) -> None:
        super().__init__(what, remedy=remedy, code=code)
        self.line = line


class InputFileError(ScansealError):
    """A file that was named on the command line cannot be read."""

    code = "input-unreadable"
    who_must_act = OPERATOR
    what_next = "The other files are worked on."


class OutputFileError(ScansealError):
    """The result cannot be written where it should go."""

    code = "output-unwritable"
    who_must_act = OPERATOR
    what_next = "The other files are worked on."


class AlreadyRunning(ScansealError):
    """Another agent holds the state directory or listens on the socket."""

    code = "already-running"
    who_must_act = OPERATOR
    what_next = "The other agent goes on."


class AgentError(ScansealError):
    """A call of the signing socket failed."""

    code = "agent-failed"


class AgentUnreachable(AgentError):
    """Nobody answers at the socket, or the connection broke."""

    code = "agent-unreachable"
    who_must_act = OPERATOR
    what_next = _UNSIGNED


class AgentAnswerInvalid(AgentError):
    """What came back is not the socket protocol, or larger than it may be."""

    code = "agent-answer-invalid"
    what_next = _UNSIGNED


class AgentRefused(AgentError):
    """The agent answered with a problem document (RFC 9457).

    Args:
        what: The `detail` member.
        remedy: The `remedy` member.
        code: The `code` member.
        status: The HTTP status.
    """

    code = "agent-refused"
    what_next = _UNSIGNED

    def __init__(self, what: str, *, remedy: str = "", code: str | None = None, status: int = 500) -> None:
        super().__init__(what, remedy=remedy, code=code)
        self.status = status
