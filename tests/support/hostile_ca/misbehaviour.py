"""What an entry of the registry consists of, and what the stub does for it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from cryptography import x509

from enroll.errors import CA_OPERATOR, EnrollmentError
from enroll.flows.base import Pending
from enroll.flows.settings import FlowName
from tests.support.cmp_server import Asked
from tests.support.pki import Content, HospitalCa
from tests.support.scripted_server import Request, answer

NETWORK = (FlowName.EST, FlowName.ACME, FlowName.CMP)
ALL = (*NETWORK, FlowName.SCEP, FlowName.OFFLINE)
NOTHING: Mapping[Any, Any] = MappingProxyType({})


class Step(StrEnum):
    """The questions that the stub answers; `ISSUING` is the one whose answer holds the certificate, in every flow."""

    ISSUING = "issuing"
    CA_CERTIFICATES = "est cacerts"
    ATTRIBUTES = "est csrattrs"
    DIRECTORY = "acme directory"
    NONCE = "acme newNonce"
    ACCOUNT = "acme newAccount"
    NEW_ORDER = "acme newOrder"
    ORDER = "acme order"
    AUTHORIZATION = "acme authorization"
    CHALLENGE = "acme challenge"
    FINALIZE = "acme finalize"
    CERTIFICATE = "acme certificate"
    CONFIRMATION = "cmp certConf"
    POLL = "cmp pollReq"
    CAPABILITIES = "scep GetCACaps"
    AUTHORITIES = "scep GetCACert"
    IMPORT = "offline import"


@dataclass(frozen=True)
class Said:
    """An HTTP answer in its parts; `str` of a header is "Name: value"."""

    body: bytes = b""
    status: str = "200 OK"
    content_type: str = "text/plain"
    headers: tuple[str, ...] = ()

    @property
    def wire(self) -> bytes:
        """As it is sent."""
        return answer(self.body, self.status, self.content_type, *self.headers)


@dataclass(frozen=True)
class Issuing:
    """A certificate that is asked for.

    Args:
        asked: What for.
        content: The same, as a right certificate would have it.
        ca: The scanner trusts it.
        in_use: What the scanner uses.
        now: The time.
    """

    asked: Asked
    content: Content
    ca: HospitalCa
    in_use: x509.Certificate | None
    now: datetime


@dataclass(frozen=True)
class Turn:
    """One question to the stub.

    Args:
        step: Which.
        request: As it came in.
        said: The right answer.
        ca: The scanner trusts it.
        url: Of the stub.
        count: How often this was asked in this run, from 1 on.
    """

    step: Step
    request: Request
    said: Said
    ca: HospitalCa
    url: str
    count: int


Change: TypeAlias = Callable[[Turn], Said | bytes | Iterator[bytes]]
Issue: TypeAlias = Callable[[Issuing], Sequence[bytes]]  # certificates in DER, or what poses as such
Tls: TypeAlias = Callable[[HospitalCa, Path], ssl.SSLContext]
Greeting: TypeAlias = Callable[[socket.socket], None]


@dataclass(frozen=True)
class Conduct:
    """Where the stub is not what it should be.

    Args:
        changes: Answers to these questions.
        issue: What it issues.
        tls: How it speaks TLS.
        greeting: What it does with a connection instead of speaking TLS.
    """

    changes: Mapping[Step, Change] = field(default_factory=lambda: NOTHING)
    issue: Issue | None = None
    tls: Tls | None = None
    greeting: Greeting | None = None


@dataclass(frozen=True)
class Expected:
    """What a run has to end with.

    Args:
        error: Its class; `Pending` where the request has to wait.
        code: Stable, for programs.
        who_must_act: A role.
    """

    error: type[EnrollmentError | Pending]
    code: str = ""
    who_must_act: str = CA_OPERATOR

    def __str__(self) -> str:
        return "waits" if self.error is Pending else f"`{self.code}`"


@dataclass(frozen=True)
class Misbehaviour:
    """One way to misbehave.

    Args:
        name: Stable.
        clause: What it breaks.
        what: What the CA, or who poses as it, does.
        expected: What a run ends with.
        conduct: Of the stub.
        flows: In which it can happen.
        otherwise: What a run by one of these flows ends with instead.
    """

    name: str
    clause: str
    what: str
    expected: Expected
    conduct: Conduct
    flows: tuple[FlowName, ...] = NETWORK
    otherwise: Mapping[FlowName, Expected] = field(default_factory=lambda: NOTHING)

    def expected_of(self, flow: FlowName) -> Expected:
        """What a run by a flow ends with."""
        return self.otherwise.get(flow, self.expected)


@dataclass(frozen=True)
class Layer:
    """Misbehaviours of one kind."""

    title: str
    misbehaviours: tuple[Misbehaviour, ...]
