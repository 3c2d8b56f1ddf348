"""FIDO Device Onboard 1.1: the owner takes the scanner over, which ends in a certificate. The protocol: `enroll.fdo`.

The owner proves itself by the voucher, the scanner by the key that it got in its factory; then the owner's server gives
it a certificate (fdo.csr), and says how that is renewed from then on. FDO itself renews nothing.

The whole of TO2 is one question to the owner:

    a session (TO1, TO2), the CA certificates, the certificate     nothing is kept
    the certificate is judged (`enroll.trust`)                     what does not pass ends the session
    the next credential is written, with all that came             fdo/credential.pending
    the session ends (messages 70 and 71)                          the owner forgets the old credential
    the next credential is put into use                            fdo/credential.current

Where the power goes between the last three, the next run finds the owner again by one of the two credentials. Where no
server knows either of them any more, what came is used: it came from the owner, and nobody will give it again.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

from cryptography import x509

from enroll import csr
from enroll.certificates import public_key_info
from enroll.csr import CertificateRequest
from enroll.errors import ConfigurationError, StateError
from enroll.est.attributes import WantedAttributes
from enroll.fdo.certificate_module import CertificateModule
from enroll.fdo.cose import Sign1
from enroll.fdo.credential import CredentialStore, DeviceCredential, Owner, read_owner
from enroll.fdo.devmod import DeviceDescription
from enroll.fdo.hand_over import RenewalModule, write_anchors
from enroll.fdo.hashes import HashAlgorithm
from enroll.fdo.key_exchange import KeyExchangeSuite
from enroll.fdo.onboard import NoOwnerYet, OwnerSearch
from enroll.fdo.owner_policy import ApprovalAwaited, OwnerPolicy
from enroll.fdo.public_key import KeyType
from enroll.fdo.to1 import find_owner
from enroll.fdo.to2 import Session, Terms
from enroll.fdo.transport import Channel, HttpChannel, Pins, context_for
from enroll.fdo.tunnel import CipherSuite
from enroll.flows.base import (
    Enrollment,
    FlowContext,
    Handle,
    Issued,
    OfferedEnrollment,
    Pending,
    PlannedExchange,
    Refused,
)
from enroll.flows.settings import FdoCipher
from enroll.identity import IdentityName
from enroll.trust import check_issued, read_anchors

_CIPHERS = {
    FdoCipher.A128GCM: CipherSuite.A128GCM,
    FdoCipher.A256GCM: CipherSuite.A256GCM,
    FdoCipher.AES_CCM_64_128_128: CipherSuite.AES_CCM_64_128_128,
    FdoCipher.AES_CCM_64_128_256: CipherSuite.AES_CCM_64_128_256,
    FdoCipher.AES128_CBC: CipherSuite.AES128_CBC,
    FdoCipher.AES128_CTR: CipherSuite.AES128_CTR,
    FdoCipher.AES256_CBC: CipherSuite.AES256_CBC,
    FdoCipher.AES256_CTR: CipherSuite.AES256_CTR,
}


@dataclass(frozen=True)
class FdoFlow:
    """The owner of the scanner, whoever that is now.

    Args:
        context: The parts of the enroller.
        credentials: Those of this scanner.
        candidates: Those that an owner may know, the more probable first.
    """

    context: FlowContext
    credentials: CredentialStore
    candidates: tuple[DeviceCredential, ...]

    name = "fdo"

    @classmethod
    def connect(cls, identity: IdentityName, context: FlowContext) -> Self:
        """The credential of this scanner; nothing is sent yet.

        Raises:
            ConfigurationError: Only the device identity comes this way.
            StateError: The factory has made no credential, or it is damaged.
            KeyStoreError: The HMAC secret cannot be used.
        """
        if identity is not IdentityName.DEVICE:
            raise ConfigurationError(
                f"The identity {identity} does not come by FIDO Device Onboard.",
                remedy="The device identity does; the others are enrolled with it: scanseal renew",
            )
        credentials = CredentialStore(_directory(context), context.stores, context.files)
        candidates = credentials.candidates()
        if not candidates:
            raise StateError(
                "This scanner has no FDO credential.",
                remedy="Its factory makes one (scanseal fdo init); take another way: scanseal enroll",
                code="fdo-not-initialized",
            )
        return cls(context, credentials, candidates)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """There is nothing to release: each server has its own connection."""

    @property
    def anchors(self) -> tuple[x509.Certificate, ...]:
        """The configured CA certificates; otherwise those that the owner brought last."""
        settings = self.context.settings.fdo
        if settings.anchor_file is not None:
            return read_anchors(settings.anchor_file, self.context.files, "[fdo]")
        owner = read_owner(_directory(self.context), self.context.files)
        return owner.anchors if owner else ()

    def anchors_and_intermediates(self) -> tuple[x509.Certificate, ...]:
        """None beforehand: they come together with the certificate."""
        return ()

    def asks_for(self, request: CertificateRequest) -> CertificateRequest:
        """See `Flow`."""
        return request

    def confirm(self, handle: Handle, certificate: x509.Certificate | None) -> None:
        """The session with the owner is over; a certificate that is not used was refused in it."""

    def plan(self, request: CertificateRequest, renews: x509.Certificate | None) -> tuple[PlannedExchange, ...]:
        """See `Flow`."""
        raise NotImplementedError

    def enroll(self, enrollment: Enrollment | OfferedEnrollment) -> Issued | Pending | Refused:
        """Find the owner, and ask it; see `Flow`.

        Raises:
            EnrollmentError: The owner did not keep to the protocol, may not have this scanner, or gave nothing usable.
        """
        if isinstance(enrollment, OfferedEnrollment):
            raise ConfigurationError(
                "A key in memory gets no certificate by FIDO Device Onboard.",
                remedy="Set [identity.device] key_store to another store.",
            )
        search = OwnerSearch(
            _directory(self.context),
            self.context.files,
            self.context.clock,
            self._channel,
            self._find_owner,
            lambda: secrets.SystemRandom().uniform(-1, 1),
        )
        try:
            return search.run(self.candidates, partial(self._onboard, enrollment))
        except ApprovalAwaited as error:
            return Pending(self.context.clock.now(), f"{error.what} {error.remedy}")
        except NoOwnerYet as error:
            return self._issued_before_the_end(enrollment, error) or Pending(error.until, error.what)

    def _onboard(
        self, enrollment: Enrollment, channel: Channel, credential: DeviceCredential, redirect: Sign1 | None
    ) -> Issued:
        """TO2 with an owner."""
        stores, clock = self.context.stores, self.context.clock
        certificate, renewal = self._certificate_module(enrollment, credential), RenewalModule()
        key, secret = stores.load(credential.key_uri), stores.load_secret(credential.secret_uri)
        with Session(channel, credential, key, secret, self._terms(credential, redirect)) as session:
            session.begin()
            session.talk([certificate, renewal])
            came = (*certificate.certificates, *certificate.ca_certificates)
            anchors = _self_signed(certificate.ca_certificates)
            check_issued(
                came,
                (),
                self.anchors if self.context.settings.fdo.anchor_file else anchors,
                public_key=enrollment.public_key,
                request=enrollment.request,
                now=clock.now(),
                seen=self.context.identities.certificates(),
            )
            owner = Owner(
                session.owner.owner.fingerprint,
                session.next_owner_key.fingerprint,
                anchors,
                came,
                renewal.renewal.text if renewal.renewal else "",
            )
            # The owner knows this credential, so it is the one to fall back on, and no other.
            self.credentials.commit(credential)
            following = replace(session.next_credential, owner=owner)
            write_anchors(owner, self.context.settings.state_directory, self.context.files)
            self.credentials.propose(following)
            session.finish()
        self.credentials.commit(following)
        self._policy.forget()
        return Issued(came)

    def _terms(self, credential: DeviceCredential, redirect: Sign1 | None) -> Terms:
        settings = self.context.settings.fdo
        return Terms(
            KeyExchangeSuite(settings.key_exchange) if settings.key_exchange else _usual_key_exchange(credential),
            _CIPHERS[settings.cipher],
            settings.service_info_size,
            DeviceDescription.of_this_machine(credential.device_info),
            settings.credential_reuse,
            lambda chain: self._policy.judge(chain, credential),
            redirect,
        )

    def _certificate_module(self, enrollment: Enrollment, credential: DeviceCredential) -> CertificateModule:
        # simplereenroll is for what this owner has issued.
        renews = enrollment.renews if credential.owner and enrollment.renews in credential.owner.issued else None

        def request(wanted: WantedAttributes) -> x509.CertificateSigningRequest:
            return csr.build(
                enrollment.key,
                enrollment.request,
                renews,
                protection=enrollment.protection,
                owners_names=wanted.owners_names,
            )

        return CertificateModule(request, renews=renews is not None)

    def _issued_before_the_end(self, enrollment: Enrollment, error: NoOwnerYet) -> Issued | None:
        """What came in a session whose end was lost, where no server knows the device any more."""
        pending = self.credentials.pending()
        if not error.unknown or pending is None or pending.owner is None:
            return None
        wanted = public_key_info(enrollment.public_key)
        issued = pending.owner.issued
        return Issued(issued) if any(public_key_info(each.public_key()) == wanted for each in issued) else None

    def _find_owner(self, channel: Channel, credential: DeviceCredential) -> Sign1:
        return find_owner(channel, credential, self.context.stores.load(credential.key_uri))

    def _channel(self, url: str, pins: Pins) -> Channel:
        return HttpChannel(url, context_for(pins), self.context.clock, self.context.settings.fdo.timeout)

    @property
    def _policy(self) -> OwnerPolicy:
        return OwnerPolicy(self.context.settings.fdo, _directory(self.context), self.context.files, self.context.clock)


def _directory(context: FlowContext) -> Path:
    return context.settings.state_directory / "fdo"


def _self_signed(certificates: tuple[x509.Certificate, ...]) -> tuple[x509.Certificate, ...]:
    """The roots among them; all where there is none, because the owner vouches for each."""
    return tuple(each for each in certificates if each.issuer == each.subject) or certificates


def _usual_key_exchange(credential: DeviceCredential) -> KeyExchangeSuite:
    """What fits owners whose keys are of the kind of the first."""
    match credential.owner_key_kind:
        case KeyType.SECP256R1:
            return KeyExchangeSuite.ECDH256
        case KeyType.SECP384R1:
            return KeyExchangeSuite.ECDH384
    strong = credential.owner_key_hash.algorithm is HashAlgorithm.SHA384
    return KeyExchangeSuite.DHKEX_ID15 if strong else KeyExchangeSuite.DHKEX_ID14
