"""The offline exchange: a request leaves as a file, on a USB stick or by mail, and its answer comes back that way.

For a CA without EST, ACME or CMP, such as AD CS with `certreq`; and for a scanner without a network. The flow writes
the file (`enroll.offline_request`) and is Pending. What comes back is taken in by `enroll.flows.offline.desk`.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from enroll import csr, signed_data
from enroll.certificates import PARSE_ERRORS, name_text
from enroll.csr import CertificateRequest
from enroll.errors import (
    OPERATOR,
    ConfigurationError,
    EnrollmentError,
    KeyDamaged,
    KeyNotFound,
    StateError,
    StateUnreadable,
    UnsupportedKey,
)
from enroll.flows.base import (
    Enrollment,
    FlowContext,
    Issued,
    NothingToConfirm,
    OfferedEnrollment,
    Pending,
    PlannedExchange,
    Refused,
)
from enroll.flows.offline.summary import summary
from enroll.identity import VENDORS_IDENTITIES, Generation, IdentityName
from enroll.keystore.base import PrivateKey
from enroll.offline_request import Statement, assembled, state
from enroll.trust import read_anchors

NAME = "offline"
BY_HAND = "a person carries it to the CA"

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Errand:
    """What a person is about to carry to the CA.

    Args:
        number: Of the request.
        why: The reason for it; may be empty.
        file_name: What the file is called, for the commands in it.
        deliver: Puts the file where the person takes it from.
    """

    number: str
    why: str
    file_name: str
    deliver: Callable[[bytes], None]


@dataclass(frozen=True)
class Kept:
    """What makes a request that was exported the same one when it is exported again.

    Args:
        nonce: Of the statement.
        created: The moment of the first export.
        why: The reason that was given then.
        signed: The request.
    """

    nonce: str
    created: str
    why: str
    signed: x509.CertificateSigningRequest

    def text(self) -> str:
        """For the handle."""
        request = self.signed.public_bytes(serialization.Encoding.PEM).decode("ascii")
        return json.dumps({"nonce": self.nonce, "created": self.created, "why": self.why, "signed": request})

    @classmethod
    def read(cls, text: str) -> Self | None:
        """What a handle holds; None where that is nothing, or nothing of ours."""
        try:
            values = json.loads(text)
            return cls(**{**values, "signed": x509.load_pem_x509_csr(values["signed"].encode("ascii"))})
        except (*PARSE_ERRORS, KeyError, AttributeError):
            return None


class OfflineFlow(NothingToConfirm):
    """A person who carries files.

    Args:
        identity: Whose certificate is asked for.
        context: The parts of a running enroller.
        anchors: What is issued must lead to them.
        errand: Where the file goes; None where an answer is taken in, and nothing is to be asked.
    """

    name = NAME

    def __init__(
        self,
        identity: IdentityName,
        context: FlowContext,
        anchors: tuple[x509.Certificate, ...],
        errand: Errand | None,
    ) -> None:
        self.anchors = anchors
        self._identity = identity
        self._context = context
        self._errand = errand

    @classmethod
    def connect(cls, identity: IdentityName, context: FlowContext, errand: Errand | None = None) -> Self:
        """The way for an identity, with its anchors: [vendor] for those of the vendor, [offline] for the owner's.

        Raises:
            ConfigurationError: No anchor is configured.
        """
        settings = context.settings
        table = settings.vendor if identity in VENDORS_IDENTITIES else settings.offline
        return cls(identity, context, read_anchors(table.anchor_file, context.files, anchor_table(identity)), errand)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """There is no connection."""

    def asks_for(self, request: CertificateRequest) -> CertificateRequest:
        """See `Flow`."""
        return request

    def anchors_and_intermediates(self) -> tuple[x509.Certificate, ...]:
        """The anchors alone: intermediates come with the answer."""
        return self.anchors

    def plan(self, request: CertificateRequest, renews: x509.Certificate | None) -> tuple[PlannedExchange, ...]:  # noqa: ARG002 - the same for a renewal
        """See `Flow`."""
        signer = self._signer()
        proof = f"the certificate {name_text(signer[1].certificate.subject)}" if signer else "nothing: no identity yet"
        return (PlannedExchange("a file, for the CA", request.text, proof),)

    def enroll(self, enrollment: Enrollment | OfferedEnrollment) -> Issued | Pending | Refused:
        """Write the file; see `Flow`. Exported again, a request is the same to the byte, with its number and nonce.

        Raises:
            ConfigurationError: The key is in the agent's memory.
            EnrollmentError: There is nothing to be asked: an answer is taken in, and was lost on the way.
            KeyStoreError: A key store refused to sign.
        """
        if isinstance(enrollment, OfferedEnrollment):
            raise memory_key(self._identity)
        if self._errand is None:
            raise EnrollmentError(
                "The answer is not there any more.",
                remedy="Import it again.",
                code="offline-answer-lost",
                who_must_act=OPERATOR,
                what_next="What is in use stays in use.",
            )
        now = self._context.clock.now()
        kept = Kept.read(enrollment.handle.text)
        if kept is None:
            renews, protection = enrollment.renews, enrollment.protection
            signed = csr.build(enrollment.key, enrollment.request, renews, protection=protection)
            kept = Kept(secrets.token_hex(16), _moment(now), self._errand.why, signed)
            enrollment.handle.keep(kept.text())
        self._errand.deliver(self._file(self._errand, kept, enrollment.request))
        return Pending(now, BY_HAND)

    def _file(self, errand: Errand, kept: Kept, request: CertificateRequest) -> bytes:
        blank = Statement(
            number=errand.number,
            nonce=kept.nonce,
            request_sha256="",
            key_sha256="",
            serial_number=request.serial_number,
            identity=self._identity,
            what="",
            why=kept.why,
            created=kept.created,
        )
        statement = state(kept.signed, blank)
        signer = self._signer()
        if signer is None:
            return assembled(summary(statement, None, errand.file_name), kept.signed, statement, None)
        key, generation = signer
        proof = signed_data.sign(statement.encoded(), key, (generation.certificate, *generation.chain))
        text = summary(statement, generation.certificate, errand.file_name)
        return assembled(text, kept.signed, statement, proof)

    def _signer(self) -> tuple[PrivateKey, Generation] | None:
        """What the device proves itself with: its factory identity, or else the owner's; None where it has neither."""
        for identity in (IdentityName.IDEVID, IdentityName.DEVICE):
            try:
                generation = self._context.identities.current(identity)
                if generation is not None:
                    return self._context.stores.load(generation.key_uri), generation
            except StateUnreadable:
                raise  # it may be there, seen by the wrong user
            except (StateError, KeyNotFound, KeyDamaged, UnsupportedKey) as error:
                # Enrolling again is the way out of a lost identity, so it must not stop here.
                _LOG.warning("The request is not signed by the identity %s: %s", identity, error.what)
        return None


def anchor_table(identity: IdentityName) -> str:
    """Where the anchor of an identity is configured."""
    return "[vendor]" if identity in VENDORS_IDENTITIES else "[offline]"


def memory_key(identity: IdentityName) -> ConfigurationError:
    """What to raise where the agent makes the keys of an identity."""
    return ConfigurationError(
        f"The key of {identity} lives in the agent's memory and is gone before an answer comes by hand.",
        remedy=f"Use a way over the network, such as: scanseal enroll est --identity {identity}. Or choose another "
        f"[identity.{identity}] key_store.",
        code="offline-memory-key",
    )


def _moment(now: datetime) -> str:
    return now.replace(microsecond=0).isoformat()
