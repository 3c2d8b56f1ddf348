"""Whether the CA has revoked a certificate of this scanner: asked on each run of the timer, for every identity.

    OCSP (RFC 6960)  the responders that the certificate names, then [revocation] ocsp_url
    CRL (RFC 5280)   where no responder gave an answer that counts: the lists it names, then [revocation] crl_url

The first answer that counts ends the search; what it does to what was known before, `enroll.revocation_record` says.
Answers are signed, so plain HTTP will do, and nothing else about a server is believed: one that is gone, slow, or an
enemy leaves everything as it was. The addresses in `[revocation]` are of the owner's CA.

Of a list, `enroll.revocation` says whether it names the certificate; that proves a revocation. That it proves the
absence of one has to be true of both that and OpenSSL's path check with CRL_CHECK. Whether a CA above was revoked is
not asked: it is the hospital's own.
"""

from __future__ import annotations

import logging
import re
import secrets
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import AuthorityInformationAccessOID

from enroll import ocsp
from enroll.certificates import PARSE_ERRORS
from enroll.chain import build_chain
from enroll.clock import Clock
from enroll.config import EnrollSettings, RevocationSettings
from enroll.errors import CertificateRefused, EnrollmentError, ProtocolViolation, ScansealError, StateError
from enroll.http import Answer, HttpsSession
from enroll.identity import VENDORS_IDENTITIES, Generation, IdentityName, IdentityStore
from enroll.revocation import LIST_LIMIT, Statement, is_current, parse_lists, revocation_of
from enroll.revocation_record import RevocationRecord, RevocationRecords, RevocationState, serial_text
from enroll.tls import client_context

ADDRESSES_LIMIT = 3  # of each kind
_ADDRESS = re.compile(r"https?://[!-~]{1,2000}")
_OK = 200  # RFC 9110 15.3.1
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Places:
    """Where a CA says which certificates it has revoked."""

    responders: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()

    @classmethod
    def of(cls, generation: Generation, settings: RevocationSettings) -> Places:
        """Those that count for the certificate of a generation."""
        own = generation.identity not in VENDORS_IDENTITIES
        return cls(
            _usable([*_responders(generation.certificate), *([settings.ocsp_url] if own else [])]),
            _usable([*_lists(generation.certificate), *([settings.crl_url] if own else [])]),
        )

    def __bool__(self) -> bool:
        return bool(self.responders or self.lists)


def watch_revocations(
    settings: EnrollSettings, clock: Clock, identities: IdentityStore
) -> Mapping[IdentityName, RevocationRecord]:
    """Ask about the certificate in use of every identity, and keep what is known then.

    Where the CA publishes nothing, nothing is known and nothing said. What goes wrong with one identity is logged and
    leaves the others alone.

    Args:
        settings: Of this scanner.
        clock: The clocks.
        identities: The identity directory.

    Returns:
        What is known, of the identities that were asked about.
    """
    watched: dict[IdentityName, RevocationRecord] = {}
    if not settings.revocation.watch:
        return watched
    for name in IdentityName:
        try:
            generation = identities.current(name)
            places = Places.of(generation, settings.revocation) if generation else Places()
            if generation is not None and places:
                with identities.lock():
                    watched[name] = _Watch(generation, identities, settings.revocation, clock).ask(places)
        except ScansealError as error:
            _LOG.warning("Whether the certificate of %s is revoked cannot be asked: %s", name, error)
    return watched


@dataclass(frozen=True)
class _Watch:
    generation: Generation
    identities: IdentityStore
    settings: RevocationSettings
    clock: Clock

    def ask(self, places: Places) -> RevocationRecord:
        """One round; see the module."""
        records = RevocationRecords(self.identities)
        record = self._before(records)
        record = self._asked(record, places)
        records.write(self.generation, record)
        if record.state is not RevocationState.GOOD or record.problem:
            state = f"{record.state}, {record.problem}" if record.problem else record.state
            _LOG.warning("The certificate of %s: %s.", self.generation.identity, state)
        return record

    def _before(self, records: RevocationRecords) -> RevocationRecord:
        try:
            known = records.of(self.generation)
        except StateError as error:
            _LOG.warning("What was known about revocation is lost: %s", error)
            known = None
        return known or RevocationRecord(self.generation.number, serial_text(self.generation), self.clock.now())

    def _asked(self, record: RevocationRecord, places: Places) -> RevocationRecord:
        issuer = self._issuer()
        if issuer is None:
            return record.without_answer("the certificate of its issuer is not there", self.clock.now())
        problems: list[str] = []
        for ask, urls in ((self._by_responder, places.responders), (self._by_list, places.lists)):
            for url in urls:
                try:
                    after = record.after(ask(url, issuer), url, self.clock.now())
                except EnrollmentError as error:
                    problems.append(error.what)
                    continue
                if not after.problem:
                    return after
                problems.append(after.problem)
        return record.without_answer(" ".join(problems), self.clock.now())

    def _issuer(self) -> x509.Certificate | None:
        """Whose key has signed the certificate, of what came with it."""
        anchor = self.identities.anchor(self.generation)
        for candidate in (*self.generation.chain, *([anchor] if anchor else [])):
            try:
                self.generation.certificate.verify_directly_issued_by(candidate)
            except (*PARSE_ERRORS, InvalidSignature):
                continue
            return candidate
        return None

    def _by_responder(self, url: str, issuer: x509.Certificate) -> Statement:
        nonce = secrets.token_bytes(ocsp.NONCE_OCTETS)
        body = ocsp.question(self.generation.certificate, issuer, nonce)
        headers = {"Content-Type": ocsp.REQUEST_TYPE, "Accept": ocsp.RESPONSE_TYPE}
        answer = self._exchange(url, issuer, ocsp.RESPONSE_LIMIT, lambda session: session.post(url, headers, body))
        return ocsp.statement(answer.body, self.generation.certificate, issuer, nonce, self.clock.now())

    def _by_list(self, url: str, issuer: x509.Certificate) -> Statement:
        answer = self._exchange(url, issuer, LIST_LIMIT, lambda session: session.get(url, {}))
        return list_statement(answer.body, self.generation.certificate, issuer, self.clock.now())

    def _exchange(
        self, url: str, issuer: x509.Certificate, limit: int, exchange: Callable[[HttpsSession], Answer]
    ) -> Answer:
        context = client_context((issuer,))
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        with HttpsSession(context, self.clock, self.settings.timeout, plain=True, body_limit=limit) as session:
            answer = exchange(session)
        if answer.status != _OK:
            raise _useless(f"{urlsplit(url).netloc} answers with HTTP status {answer.status}")
        return answer


def list_statement(body: bytes, certificate: x509.Certificate, issuer: x509.Certificate, now: datetime) -> Statement:
    """What revocation lists prove about a certificate.

    Raises:
        ProtocolViolation: Nothing.
    """
    try:
        for candidate in parse_lists(body):
            statement = _statement(candidate, certificate, issuer, now)
            if statement is not None:
                return statement
    except PARSE_ERRORS as error:
        raise _useless("What came is no revocation list") from error
    raise _useless("The revocation list is of another CA, partial, or not of now")


def _statement(
    candidate: x509.CertificateRevocationList, certificate: x509.Certificate, issuer: x509.Certificate, now: datetime
) -> Statement | None:
    found = revocation_of((certificate, issuer), (candidate,), now)
    since, until = candidate.last_update_utc, candidate.next_update_utc or candidate.last_update_utc
    for revocation in found.revocations:
        if revocation.is_final or is_current(candidate, now):
            return Statement(since, until, revocation)
    clears = not found.revocations and not found.unknown and _clears(candidate, certificate, issuer, now)
    return Statement(since, until) if clears else None


def _clears(
    candidate: x509.CertificateRevocationList, certificate: x509.Certificate, issuer: x509.Certificate, now: datetime
) -> bool:
    """Whether OpenSSL, too, finds that a list is whole, current, of the issuer, and does not name a certificate."""
    try:
        build_chain(certificate, (), (issuer,), now, candidate)
    except CertificateRefused:
        return False
    return True


def _responders(certificate: x509.Certificate) -> Iterator[str]:
    """RFC 5280 4.2.2.1."""
    for value in _extensions(certificate):
        for access in value if isinstance(value, x509.AuthorityInformationAccess) else ():
            location = access.access_location
            by_ocsp = access.access_method == AuthorityInformationAccessOID.OCSP
            if by_ocsp and isinstance(location, x509.UniformResourceIdentifier):
                yield location.value


def _lists(certificate: x509.Certificate) -> Iterator[str]:
    """RFC 5280 4.2.1.13. Those of other issuers, or for some reasons only, could clear nothing."""
    for value in _extensions(certificate):
        for point in value if isinstance(value, x509.CRLDistributionPoints) else ():
            names = point.full_name if point.reasons is None and point.crl_issuer is None else None
            yield from (name.value for name in names or () if isinstance(name, x509.UniformResourceIdentifier))


def _extensions(certificate: x509.Certificate) -> Iterator[x509.ExtensionType]:
    try:
        yield from (extension.value for extension in certificate.extensions)
    except PARSE_ERRORS:
        return


def _usable(urls: list[str]) -> tuple[str, ...]:
    """What HTTP can fetch, each once; a directory service (ldap:) is nothing for a scanner."""
    return tuple(dict.fromkeys(url for url in urls if _is_address(url)))[:ADDRESSES_LIMIT]


def _is_address(url: str) -> bool:
    try:
        return bool(_ADDRESS.fullmatch(url) and urlsplit(url).hostname)
    except ValueError:
        return False


def _useless(what: str) -> ProtocolViolation:
    return ProtocolViolation(
        f"{what}.", remedy="Check the address; otherwise ask the CA's operator.", code="revocation-answer-useless"
    )
