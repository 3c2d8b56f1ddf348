"""Whether the CA has revoked a certificate of this scanner: asked on each run of the timer, for every identity.

    OCSP (RFC 6960)  [revocation] ocsp_url, then the responders that the certificate names
    CRL (RFC 5280)   where no responder gave an answer that counts: [revocation] crl_url, then the lists it names

The first answer that counts ends the search; what it does to what was known before, `enroll.revocation.record` says.
Answers are signed, so plain HTTP will do, and nothing else about a server is believed: one that is gone, slow, or an
enemy leaves everything as it was. The addresses in `[revocation]` are of the owner's CA. One in a certificate may be
any, this machine's too: it is told which certificate is meant and nothing else, and nothing of its answer is shown.

The timer asks once an hour, and a server that gives no answer when `enroll.revocation.turns` says. A person who runs
`scanseal renew` has everything asked.

All questions of a run have `ROUND_TIME` together, and each has its share of what is left: renewals come next, and a
place that swallows everything takes the turn of no other.

Of a list, `enroll.revocation.lists` says whether it names the certificate; that proves a revocation. That it proves the
absence of one has to be true of both that and OpenSSL's path check with CRL_CHECK. Whether a CA above was revoked is
not asked: it is the hospital's own.
"""

from __future__ import annotations

import logging
import re
import secrets
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import AuthorityInformationAccessOID

from enroll.certificates import PARSE_ERRORS, serial_text
from enroll.chain import STRONG_HASHES, build_chain
from enroll.clock import Clock
from enroll.config import EnrollSettings, RevocationSettings
from enroll.errors import (
    CertificateRefused,
    EnrollmentError,
    ProtocolViolation,
    ScansealError,
    ServerUnreachable,
    StateDamaged,
)
from enroll.http import Answer, HttpsSession
from enroll.http.retry_after import retry_after
from enroll.identity import VENDORS_IDENTITIES, Generation, IdentityName, IdentityStore
from enroll.renewal.silence import Silences
from enroll.revocation import ocsp
from enroll.revocation.lists import LIST_LIMIT, Statement, is_current, parse_lists, revocation_of
from enroll.revocation.record import RevocationRecord, RevocationRecords, RevocationState
from enroll.revocation.turns import Turns
from enroll.tls import client_context

ADDRESSES_LIMIT = 3  # of each kind in a certificate
ROUND_TIME = 60.0  # seconds for all questions of a run: renewals come next, whatever the network is like
_ADDRESS = re.compile(r"https?://[!-~]{1,2000}")
_OK, _TOO_MANY, _SERVER_ERROR = 200, 429, 500  # RFC 9110 15; RFC 6585 4
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
            _usable(settings.ocsp_url if own else "", _responders(generation.certificate)),
            _usable(settings.crl_url if own else "", _lists(generation.certificate)),
        )

    @property
    def every(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.responders, *self.lists)

    def __bool__(self) -> bool:
        return bool(self.every)


def watch_revocations(
    settings: EnrollSettings, clock: Clock, identities: IdentityStore, *, patient: bool = False
) -> Mapping[IdentityName, RevocationRecord]:
    """Ask about the certificate in use of every identity, and keep what is known then.

    Where the CA publishes nothing, nothing is known and nothing said. What goes wrong with one identity is logged and
    leaves the others alone.

    Args:
        settings: Of this scanner.
        clock: The clocks.
        identities: The identity directory.
        patient: Whether to ask only what it is time to ask.

    Returns:
        What is known, of the identities that were asked about.
    """
    subjects = list(_subjects(settings, identities)) if settings.revocation.watch else []
    silences = Silences(settings.state_directory, identities.files)
    every = tuple(dict.fromkeys(url for _, places in subjects for url in places.every))
    turns = Turns(silences, every, clock, settings.device.serial_number, patient=patient)
    watches = [_Watch(generation, places, identities, settings, turns) for generation, places in subjects]
    if not watches:
        return {}
    end = clock.monotonic() + ROUND_TIME
    watched: dict[IdentityName, RevocationRecord] = {}
    try:
        # Not the lock of enrollments: none has to wait for a network that does not answer.
        with identities.watch_lock():
            for left, watch in zip(range(len(watches), 0, -1), watches, strict=True):
                with _only_logged(watch.generation.identity):
                    record = watch.ask((end - clock.monotonic()) / left)
                    if record is not None:
                        watched[watch.generation.identity] = record
    except ScansealError as error:
        _LOG.warning("Whether certificates are revoked is not asked: %s", error)
    return watched


def _subjects(settings: EnrollSettings, identities: IdentityStore) -> Iterator[tuple[Generation, Places]]:
    for name in IdentityName:
        with _only_logged(name):
            generation = identities.current(name)
            places = Places.of(generation, settings.revocation) if generation else Places()
            if generation is not None and places:
                yield generation, places


@contextmanager
def _only_logged(name: IdentityName) -> Iterator[None]:
    try:
        yield
    except ScansealError as error:
        _LOG.warning("Whether the certificate of %s is revoked cannot be asked: %s", name, error)


@dataclass(frozen=True)
class _Watch:
    generation: Generation
    places: Places
    identities: IdentityStore
    settings: EnrollSettings
    turns: Turns

    @property
    def clock(self) -> Clock:
        return self.turns.clock

    def ask(self, seconds: float) -> RevocationRecord | None:
        """One round; see the module. It takes no longer than `seconds`, but for looking up addresses.

        Returns:
            What is known then; None where it is not time to ask.
        """
        records = RevocationRecords(self.identities)
        before = self._before(records)
        may_ask = any(self.turns.may_ask(url, before) for url in self.places.every)
        if not self.turns.is_time_for(before) or not may_ask:
            return None
        record = self._asked(before, self.clock.monotonic() + seconds)
        records.write(self.generation, record)
        if record.state is not RevocationState.GOOD or record.problem:
            state = f"{record.state}, {record.problem}" if record.problem else record.state
            _LOG.warning("The certificate of %s: %s.", self.generation.identity, state)
        return record

    def _before(self, records: RevocationRecords) -> RevocationRecord | None:
        try:
            return records.of(self.generation)
        except StateDamaged as error:
            _LOG.warning("What was known about revocation is lost: %s", error)
            return None

    def _asked(self, before: RevocationRecord | None, end: float) -> RevocationRecord:
        number, serial = self.generation.number, serial_text(self.generation.certificate)
        record = before or RevocationRecord(number, serial, self.clock.now())
        issuer = self._issuer()
        if issuer is None:
            return record.without_answer("the certificate of its issuer is not there", self.clock.now())
        problems: list[str] = []
        questions = [(self._by_responder, url) for url in self.places.responders]
        questions += [(self._by_list, url) for url in self.places.lists]
        for left, (ask, url) in zip(range(len(questions), 0, -1), questions, strict=True):
            share = (end - self.clock.monotonic()) / left
            if share <= 0:
                problems.append("There was no time left for other places.")
                break
            if not self.turns.may_ask(url, before):
                problems.append(f"{urlsplit(url).netloc} gave no answer before, and is asked again later.")
                continue
            try:
                with self.turns.noted(url):
                    said = ask(url, issuer, share)
                after = record.after(said, url, self.clock.now())
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

    def _by_responder(self, url: str, issuer: x509.Certificate, seconds: float) -> Statement:
        nonce = secrets.token_bytes(ocsp.NONCE_OCTETS)
        body = ocsp.question(self.generation.certificate, issuer, nonce)
        headers = {"Content-Type": ocsp.REQUEST_TYPE, "Accept": ocsp.RESPONSE_TYPE}
        with self._session(issuer, ocsp.RESPONSE_LIMIT, seconds) as session:
            answer = _useful(session.post(url, headers, body), url, self.clock.now())
        return ocsp.statement(answer.body, self.generation.certificate, issuer, nonce, self.clock.now())

    def _by_list(self, url: str, issuer: x509.Certificate, seconds: float) -> Statement:
        with self._session(issuer, LIST_LIMIT, seconds) as session:
            answer = _useful(session.get(url, {}), url, self.clock.now())
        return list_statement(answer.body, self.generation.certificate, issuer, self.clock.now())

    def _session(self, issuer: x509.Certificate, limit: int, seconds: float) -> HttpsSession:
        context = client_context((issuer,))
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        timeout = min(self.settings.revocation.timeout, seconds)
        return HttpsSession(context, self.clock, timeout, plain=True, body_limit=limit)


def _useful(answer: Answer, url: str, now: datetime) -> Answer:
    if answer.status == _OK:
        return answer
    useless = _useless(f"{urlsplit(url).netloc} answers with HTTP status {answer.status}")
    if answer.status < _SERVER_ERROR and answer.status != _TOO_MANY:
        raise useless
    silent = ServerUnreachable(useless.what, remedy=useless.remedy, code=useless.code)
    raise silent.left_alone_for(retry_after(answer.headers.get("retry-after", ""), now))


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
    if not isinstance(candidate.signature_hash_algorithm, STRONG_HASHES):
        return False
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


def _usable(of_owner: str, urls: Iterator[str]) -> tuple[str, ...]:
    """What HTTP can fetch, each once; a directory service (ldap:) is nothing for a scanner."""
    named = islice((url for url in urls if _is_address(url)), ADDRESSES_LIMIT)
    return tuple(dict.fromkeys((*([of_owner] if of_owner else []), *named)))


def _is_address(url: str) -> bool:
    try:
        return bool(_ADDRESS.fullmatch(url) and urlsplit(url).hostname)
    except ValueError:
        return False


def _useless(what: str) -> ProtocolViolation:
    return ProtocolViolation(
        f"{what}.", remedy="Check the address; otherwise ask the CA's operator.", code="revocation-answer-useless"
    )
