"""ACME (RFC 8555) for devices: a certificate by an order, whose identifier the CA has proved.

| part            | what it does                                                                              |
|-----------------|-------------------------------------------------------------------------------------------|
| client.py       | directory, nonces, signed requests; jws.py has their form, problem.py what goes wrong     |
| account.py      | the account: found, made, bound to an external one; change of its key                     |
| order.py        | one order from its identifier to the certificate; progress.py is what the journal keeps   |
| challenge.py    | http-01 and dns-01 by a program; device_attest.py has the evidence for device-attest-01   |
| renewal_info.py | when the CA wants a renewal (RFC 9773)                                                    |

An order names one identifier: the device (permanent-identifier or hardware-module) or a host name. What the CA leaves
out of the subject, it may; see `enroll.trust`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from cryptography import x509

from enroll import csr
from enroll.config import EnrollSettings, StoreName
from enroll.csr import CertificateRequest
from enroll.errors import CertificateRefused, ConfigurationError, StateDamaged
from enroll.flows.acme.account import Account
from enroll.flows.acme.challenge import prover
from enroll.flows.acme.client import AcmeClient
from enroll.flows.acme.order import Identifier, OrderIsGone, Orders, Wanted, encoded
from enroll.flows.acme.problem import NO_ACCOUNT, AcmeProblem
from enroll.flows.acme.progress import Progress
from enroll.flows.acme.renewal_info import certificate_id
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
from enroll.flows.settings import AcmeChallenge, AcmeIdentifier, AcmeSettings, FlowName
from enroll.foreign import printable
from enroll.identity import IdentityName
from enroll.issue import owned
from enroll.trust import read_anchors, verify_chain

_LOG = logging.getLogger(__name__)
_HOST_NAME = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
)


@dataclass
class AcmeFlow(NothingToConfirm):
    """An ACME server; closes its session at the end of a `with` block.

    Args:
        identity: Whose certificate is ordered.
        context: Of the enroller.
        identifier: What orders name.
        client: The server.
        anchors: What the server issues must lead to them.
        renews_own: Whether the certificate in use came from this CA, which can be told then what an order replaces.
    """

    identity: IdentityName
    context: FlowContext
    identifier: Identifier
    client: AcmeClient
    anchors: tuple[x509.Certificate, ...]
    renews_own: bool = False
    name: str = FlowName.ACME.value

    @classmethod
    def connect(cls, identity: IdentityName, context: FlowContext) -> Self:
        """The configured server; nothing is sent yet.

        Raises:
            ConfigurationError: The configuration is incomplete or contradicts itself.
        """
        identifier = _identifier(identity, context.settings)
        anchors = read_anchors(context.settings.acme.anchor_file, context.files, "[acme]")
        renews_own = _came_from(anchors, identity, context)
        return cls(identity, context, identifier, AcmeClient.configured(context), anchors, renews_own)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def anchors_and_intermediates(self) -> tuple[x509.Certificate, ...]:
        """See `Flow`; intermediates come with the certificate (RFC 8555 7.4.2)."""
        return self.anchors

    def asks_for(self, request: CertificateRequest) -> CertificateRequest:
        """The request with the names of the order; see `Flow`."""
        value = self.identifier.value
        match AcmeIdentifier(self.identifier.kind):
            case AcmeIdentifier.DNS:
                return request.for_host(value)
            case AcmeIdentifier.PERMANENT_IDENTIFIER:
                return request.for_permanent_identifier(value)
            case AcmeIdentifier.HARDWARE_MODULE:
                return request

    def plan(self, request: CertificateRequest, renews: x509.Certificate | None) -> tuple[PlannedExchange, ...]:
        """See `Flow`."""
        settings = self._settings
        binding = f" and the MAC key {settings.eab_key_id} of the external account" if settings.eab_key_id else ""
        replaced = " that replaces the one in use" if renews is not None and self.renews_own else ""
        named = f"{self.identifier.kind} {self.identifier.value}"
        attested = settings.challenge is AcmeChallenge.DEVICE_ATTEST
        evidence = ", with evidence of where the new key lives" if attested else ""
        return (
            PlannedExchange(settings.directory_url, "GET: the directory and nonces", "nothing"),
            PlannedExchange(settings.directory_url, "newAccount, where there is none yet", f"the account key{binding}"),
            PlannedExchange(settings.directory_url, f"newOrder: {named}{replaced}", "the account key"),
            *self._planned_proof(),
            PlannedExchange(settings.directory_url, f"answer of {settings.challenge}{evidence}", "the account key"),
            PlannedExchange(settings.directory_url, f"finalize: {request.text}", "the account key and the new key"),
        )

    def _planned_proof(self) -> Iterator[PlannedExchange]:
        """Who else is told something, so that the challenge can be answered."""
        settings, attestation = self._settings, self.context.settings.attestation
        _, wanted = owned(self.identity, self.context.settings)
        if settings.challenge is not AcmeChallenge.DEVICE_ATTEST:
            what = f"{settings.challenge}: what {self.identifier.value} has to show"
            yield PlannedExchange(f"{settings.hook}", what, "nothing")
        elif attestation.url and wanted.key_store is StoreName.TPM:
            what = "certificate of the TPM and its attestation key, where that is not certified yet"
            yield PlannedExchange(attestation.url, what, f"the password of {attestation.username}")
        elif attestation.url:
            yield PlannedExchange(attestation.url, "PKCS#10 of the new key", f"the password of {attestation.username}")

    def enroll(self, enrollment: Enrollment | OfferedEnrollment) -> Issued | Pending | Refused:
        """Place an order, or go on with the one that was kept; see `Flow`.

        Raises:
            ConfigurationError: The CA wants something that is not configured, or the hook failed.
            ServerUnreachable: No answer, or the server cannot answer now.
            ProtocolViolation: The answer is none that ACME allows.
            KeyStoreError: The store of the account key refused.
            StateError: The disk refused.
        """
        account = Account(self.client, self.context)
        try:
            try:
                return self._ordered(account, enrollment)
            except AcmeProblem as problem:
                if problem.kind != NO_ACCOUNT:
                    raise
                _LOG.warning("The CA has forgotten the account of this scanner: %s", problem.reason)
                account.forget()
                enrollment.handle.keep("")
                return self._ordered(account, enrollment)
        except AcmeProblem as problem:
            if problem.retry_at is not None:
                return Pending(problem.retry_at, problem.reason)
            return problem.refused

    def _ordered(self, account: Account, enrollment: Enrollment | OfferedEnrollment) -> Issued | Pending | Refused:
        orders = Orders(self.client, account.signer(), self.context.clock, self._settings.patience)
        wanted, answering, handle = self._wanted(enrollment), prover(self.context, enrollment), enrollment.handle
        kept = Progress.read(handle.text)
        if self.client.is_own(kept.url) and kept.profile == wanted.profile:
            try:
                return orders.carry_out(handle, wanted, answering, lambda: _request(enrollment), resumed=True)
            except OrderIsGone as gone:
                _LOG.warning("The ACME order under way is given up: %s", gone)
                handle.keep("")
        handle.keep(Progress(orders.new(wanted), wanted.profile).text)
        return orders.carry_out(handle, wanted, answering, lambda: _request(enrollment), resumed=False)

    def _wanted(self, enrollment: Enrollment | OfferedEnrollment) -> Wanted:
        settings, directory = self._settings, self.client.directory()
        if settings.profile and directory.profiles and settings.profile not in directory.profiles:
            raise ConfigurationError(
                f"The CA has no profile {settings.profile!r}; it has {printable(', '.join(directory.profiles))}.",
                remedy="Correct [acme] profile.",
            )
        renews = enrollment.renews if isinstance(enrollment, Enrollment) and self.renews_own else None
        replaces = certificate_id(renews) if renews is not None and directory.renewal_info else ""
        return Wanted(self.identifier, settings.challenge, settings.profile, replaces)

    @property
    def _settings(self) -> AcmeSettings:
        return self.context.settings.acme


def _identifier(identity: IdentityName, settings: EnrollSettings) -> Identifier:
    """What orders name, after a look at whether the configured challenge can prove it."""
    acme = settings.acme
    if acme.identifier_type is AcmeIdentifier.DNS:
        return _host(identity, acme)
    if acme.challenge is not AcmeChallenge.DEVICE_ATTEST:
        raise ConfigurationError(
            f"{acme.challenge} cannot prove an identifier of the type {acme.identifier_type}.",
            remedy='Set [acme] challenge = "device-attest-01", or identifier_type = "dns".',
        )
    serial_number = settings.device.serial_number
    own_name = settings.device.hardware_type and acme.identifier in ("", serial_number)
    if acme.identifier_type is AcmeIdentifier.HARDWARE_MODULE and not own_name:
        raise ConfigurationError(
            "A hardware-module is the hardware type of this device and its serial number.",
            remedy="Set [device] hardware_type, and leave [acme] identifier empty.",
        )
    _check_attestable(identity, settings)
    return Identifier(acme.identifier_type.value, acme.identifier or serial_number)


def _host(identity: IdentityName, acme: AcmeSettings) -> Identifier:
    name = acme.identifier.lower()
    if identity is not IdentityName.DEVICE:
        raise ConfigurationError(
            f"A certificate for a host name is for the identity device, not for {identity}.",
            remedy='Get the others another way, or with [acme] identifier_type = "permanent-identifier".',
        )
    if acme.challenge is AcmeChallenge.DEVICE_ATTEST:
        raise ConfigurationError(
            "device-attest-01 proves a device and no host name.",
            remedy='Set [acme] challenge to "http-01" or "dns-01", or identifier_type to "permanent-identifier".',
        )
    if not _HOST_NAME.fullmatch(name):
        raise ConfigurationError(
            "[acme] identifier is no host name.", remedy="Set the name of this scanner in the name service."
        )
    return Identifier(acme.identifier_type.value, name)


def _check_attestable(identity: IdentityName, settings: EnrollSettings) -> None:
    _, wanted = owned(identity, settings)
    if wanted.key_store not in (StoreName.TPM, StoreName.PKCS11):
        where = "in the memory of the agent" if wanted.key_store is StoreName.MEMORY else "in a file"
        raise ConfigurationError(
            f"The key of {identity} is {where}; device-attest-01 cannot prove where it is.",
            remedy=f'Set [identity.{identity}] key_store = "tpm" or "pkcs11", or get its certificate another way.',
        )
    if settings.attestation.anchor_file is None:
        raise ConfigurationError(
            "device-attest-01 needs evidence, and [attestation] anchor_file is not set.",
            remedy="Name the file with the root of the vendor's attestation CA; see docs/attestation.md.",
        )


def _came_from(anchors: tuple[x509.Certificate, ...], identity: IdentityName, context: FlowContext) -> bool:
    """Whether the certificate in use came by ACME, from the CA that has these anchors."""
    try:
        current = context.identities.current(identity)
    except StateDamaged:
        return False  # it is damaged, and enrolling again is the way out
    if current is None or current.flow != FlowName.ACME:
        return False
    certificate = current.certificate
    try:
        verify_chain(certificate, current.chain, anchors, certificate.not_valid_before_utc)
    except CertificateRefused:
        return False
    return True


def _request(enrollment: Enrollment | OfferedEnrollment) -> bytes:
    """The PKCS#10 of the order: always as asked, because the CA may have left names out of the certificate in use."""
    if isinstance(enrollment, OfferedEnrollment):
        return encoded(enrollment.signed)
    return encoded(csr.build(enrollment.key, enrollment.request, protection=enrollment.protection))
