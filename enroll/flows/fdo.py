"""FIDO Device Onboard 1.1: the owner takes the scanner over, which ends in a certificate. The protocol: `enroll.fdo`.

The owner proves itself by the voucher, the scanner by the key that it got in its factory; then the owner's server gives
it a certificate (fdo.csr), and says how that is renewed from then on. FDO itself renews nothing.

The whole of TO2 is one question to the owner:

    a session (TO1, TO2), the CA certificates, the certificate     nothing is kept
    the certificate is judged (`enroll.trust`)                     what does not pass ends the session
    the next credential is written, with all that came             fdo/credential.pending
    the session ends (messages 70 and 71)                          the owner forgets the old credential
    the next credential is put into use                            fdo/credential.current

Where the power goes between the last three or just after, the next run finds the owner again by one of the credentials.
Where no server knows any of them any more, what came is used: it came from the owner, and nobody will give it again.

How far it is stands in the log, for whoever waits for it.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

from cryptography import x509

from enroll import csr
from enroll.certificates import public_key_info
from enroll.csr import CertificateRequest
from enroll.errors import ConfigurationError, EnrollmentRefused
from enroll.est.attributes import WantedAttributes
from enroll.fdo import cbor
from enroll.fdo.certificate_module import CertificateModule
from enroll.fdo.cose import Sign1
from enroll.fdo.credential import CredentialStore, DeviceCredential, Owner, fdo_directory, read_owner
from enroll.fdo.devmod import DeviceDescription
from enroll.fdo.hand_over import RenewalModule, write_anchors
from enroll.fdo.hashes import HashAlgorithm
from enroll.fdo.key_exchange import KeyExchangeSuite
from enroll.fdo.onboard import NoOwnerYet, OwnerSearch, urls
from enroll.fdo.owner_policy import ApprovalAwaited, OwnerPolicy, OwnerRefused
from enroll.fdo.public_key import KeyType
from enroll.fdo.rendezvous import read_directives
from enroll.fdo.to1 import find_owner
from enroll.fdo.to2 import Session, Terms
from enroll.fdo.transport import Channel, ErrorReceived, HttpChannel, Pins, context_for
from enroll.fdo.tunnel import CipherSuite
from enroll.fdo.voucher import OwnerChain
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
from enroll.flows.settings import FdoCipher
from enroll.identity import IdentityName
from enroll.trust import check_issued, read_anchors

_TO1 = "TO1 (messages 30 and 32): where is the owner?"
_TO2 = "TO2 (messages 60 to 70): the owner proves itself by its voucher and gives a certificate"
_PROOF = "the FDO device key"
_LOG = logging.getLogger(__name__)
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
class FdoFlow(NothingToConfirm):
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
            ConfigurationError: Only the device identity comes this way; or the factory has made no credential.
            StateError: The credential is damaged.
            KeyStoreError: The HMAC secret cannot be used.
        """
        if identity is not IdentityName.DEVICE:
            raise ConfigurationError(
                f"The identity {identity} does not come by FIDO Device Onboard.",
                remedy="The device identity does. The others follow, as its renewal goes: scanseal renew",
            )
        credentials = CredentialStore(_directory(context), context.stores, context.files)
        candidates = credentials.candidates()
        if not candidates:
            raise ConfigurationError(
                "This scanner has no FDO credential.",
                remedy="Its factory makes one (scanseal fdo init); take another way: scanseal enroll",
                code="fdo-not-initialized",
                what_next="Nothing was changed, and nobody was asked.",
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

    def plan(self, request: CertificateRequest, renews: x509.Certificate | None) -> tuple[PlannedExchange, ...]:
        """See `Flow`. Who the owner is shows only when it has answered."""
        exchanges, to2 = [], ""
        for credential in self.candidates:
            operation = "simplereenroll" if _is_renewal(renews, credential) else "simpleenroll"
            to2 = f"{_TO2}; {operation}: {request.text}"
            for directive in read_directives(cbor.read(credential.rendezvous.encoded)):
                what = to2 if directive.bypass else f"{_TO1}; GUID {credential.guid.hex()}"
                exchanges += [PlannedExchange(url, what, _PROOF) for url in urls(directive)]
        if all(exchange.what != to2 for exchange in exchanges):
            exchanges.append(PlannedExchange("the owner, wherever that is told to be", to2, _PROOF))
        return tuple(exchanges)

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
            self.context.at_once,
        )
        try:
            return search.run(self.candidates, partial(self._onboard, enrollment))
        except ApprovalAwaited as error:
            return Pending(self.context.clock.now(), error.what)
        except (OwnerRefused, ErrorReceived):
            raise  # nobody has looked at the request: it is kept for the right owner
        except EnrollmentRefused as error:
            return Refused(error.what.removesuffix("."), error.who_must_act, error.remedy)
        except NoOwnerYet as error:
            return self._issued_before(enrollment, error) or Pending(error.until, error.what)

    def _onboard(
        self, enrollment: Enrollment, channel: Channel, credential: DeviceCredential, redirect: Sign1 | None
    ) -> Issued:
        """TO2 with an owner."""
        stores = self.context.stores
        certificate, renewal = self._certificate_module(enrollment, credential), RenewalModule()
        key, secret = stores.load(credential.key_uri), stores.load_secret(credential.secret_uri)
        with Session(channel, credential, key, secret, self._terms(credential, redirect)) as session:
            session.begin()
            owner_key = session.owner_chain.owner
            _LOG.info("The owner has proved itself: its key has the fingerprint %s", owner_key.fingerprint)
            session.talk([certificate, renewal])
            _LOG.info("A certificate has come.")
            owner = Owner(
                owner_key.fingerprint,
                session.next_owner_key.fingerprint,
                _self_signed(certificate.ca_certificates),
                certificate.came,
                renewal.renewal.text if renewal.renewal else "",
            )
            self._check(owner, enrollment)
            # The owner knows this credential, so it is the one to fall back on, and no other.
            if self.credentials.pending() is not None:
                self.credentials.commit(credential)
            following = replace(session.next_credential, owner=owner)
            self.credentials.propose(following)  # first: it may be too large, and then nothing is to be kept
            write_anchors(owner, self.context.settings.state_directory, self.context.files)
            session.finish()
        self.credentials.commit(following)
        self._policy.forget()
        return Issued(owner.issued)

    def _check(self, owner: Owner, enrollment: Enrollment) -> None:
        """Whether what an owner has brought is what was asked for, before the session may end.

        Raises:
            CertificateRefused: It is not.
        """
        check_issued(
            owner.issued,
            (),
            self.anchors if self.context.settings.fdo.anchor_file else owner.anchors,
            public_key=enrollment.public_key,
            request=enrollment.request,
            now=self.context.clock.now(),
            seen=self.context.identities.certificates(),
        )

    def _terms(self, credential: DeviceCredential, redirect: Sign1 | None) -> Terms:
        settings = self.context.settings.fdo
        return Terms(
            KeyExchangeSuite(settings.key_exchange) if settings.key_exchange else _usual_key_exchange(credential),
            _CIPHERS[settings.cipher],
            settings.service_info_size,
            DeviceDescription.of_this_machine(credential.device_info),
            settings.credential_reuse,
            partial(self._judge, credential),
            self.context.clock,
            redirect,
        )

    def _judge(self, credential: DeviceCredential, chain: OwnerChain) -> None:
        # Whoever came as far as message 70 is the owner, also where the end of that session was lost.
        known = (credential, *self.credentials.candidates())
        owner = next((each.owner for each in known if each.owner is not None), None)
        self._policy.judge(chain, replace(credential, owner=owner))

    def _certificate_module(self, enrollment: Enrollment, credential: DeviceCredential) -> CertificateModule:
        renews = enrollment.renews if _is_renewal(enrollment.renews, credential) else None

        def request(wanted: WantedAttributes) -> x509.CertificateSigningRequest:
            return csr.build(
                enrollment.key,
                enrollment.request,
                renews,
                protection=enrollment.protection,
                owners_names=wanted.owners_names,
            )

        return CertificateModule(request, renews=renews is not None)

    def _issued_before(self, enrollment: Enrollment, error: NoOwnerYet) -> Issued | None:
        """What came in an earlier session, where no server knows the device any more: nobody will give it again."""
        wanted = public_key_info(enrollment.public_key)
        for credential in self.credentials.candidates() if error.unknown else ():
            # One that was proposed only in this run, nobody has been asked about yet.
            owner = credential.owner if credential in self.candidates else None
            if owner is not None and any(public_key_info(each.public_key()) == wanted for each in owner.issued):
                write_anchors(owner, self.context.settings.state_directory, self.context.files)
                return Issued(owner.issued)
        return None

    def _find_owner(self, channel: Channel, credential: DeviceCredential) -> Sign1:
        return find_owner(channel, credential, self.context.stores.load(credential.key_uri))

    def _channel(self, url: str, pins: Pins) -> Channel:
        return HttpChannel(url, context_for(pins), self.context.clock, self.context.settings.fdo.timeout)

    @property
    def _policy(self) -> OwnerPolicy:
        return OwnerPolicy(self.context.settings.fdo, _directory(self.context), self.context.files, self.context.clock)


def _directory(context: FlowContext) -> Path:
    return fdo_directory(context.settings.state_directory)


def _is_renewal(renews: x509.Certificate | None, credential: DeviceCredential) -> bool:
    """Whether a certificate was issued by the owner of a credential: simplereenroll is for nothing else."""
    return credential.owner is not None and renews in credential.owner.issued


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
