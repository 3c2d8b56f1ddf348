"""Where requests that are carried by hand leave, and where their answers come in.

    export      PLANNED -> GENERATED -> SENT by the one transaction (`enroll.issue`); the file is written, the key waits
    take_in     find the request by the key of a certificate; check; ISSUED; then the same transaction goes on
    cancel      the key is destroyed

An answer is checked before the transaction sees it: there a certificate that does not fit ends the request, because an
online CA is simply asked again; here somebody would have to carry a new one. So a wrong file changes nothing.

Each request has a key and a journal of its own, `identities/<name>/offline/<number>/`, and any number may wait at a
time. One that was started before the request of the certificate in use is superseded: it is kept, and its answer
refused, so that an old certificate never takes the place of a newer one. An export that was cut off is gone on with by
the next export of the same identity.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from cryptography import x509

from enroll.certificates import PARSE_ERRORS, check_pair, name_text
from enroll.csr import CertificateRequest
from enroll.errors import OPERATOR, CertificateRefused, ConfigurationError, EnrollmentRefused
from enroll.failure import Failures
from enroll.flows.base import FlowContext, PlannedExchange
from enroll.flows.offline import NAME, Errand, OfflineFlow, anchor_table, memory_key
from enroll.flows.offline.answers import read_answers
from enroll.flows.offline.ended import End
from enroll.flows.offline.requests import NUMBER, Request, Requests, State
from enroll.identity import Generation, IdentityName
from enroll.issue import PENDING_LIFETIME, asked_for, issue, made_by_agent, owned, planned
from enroll.offline_request import TEXT_LIMIT, key_digest
from enroll.trust import check_issued

REQUESTS_LIMIT = 10  # of an identity, out at a time: each has a key, and a token holds few

_WAITS = "What is in use stays in use, and the request waits for another answer."
_WHY_NOT = {
    End.ANSWERED: "it has its answer already",
    End.CANCELLED: "it was cancelled",
    End.EXPIRED: f"it was older than {PENDING_LIFETIME.days} days",
}


class OfflineDesk:
    """All that is done with requests that are carried by hand.

    Args:
        context: The parts of a running enroller.
    """

    def __init__(self, context: FlowContext) -> None:
        self._context = context
        self.requests = Requests(context)

    def number_for(self, identity: IdentityName) -> str:
        """The number that the next export of an identity has: that of an export that was cut off, or a new one.

        Raises:
            StateError: The requests that are out cannot be read.
        """
        for request in self.requests.of(identity):
            if request.state is State.PREPARED:
                return request.number
        return f"{self._context.clock.now():%Y%m%d}-{secrets.token_hex(3)}"

    def find(self, number: str) -> Request:
        """The request that is out with a number.

        Raises:
            ConfigurationError: There is none.
        """
        for request in self.requests.all():
            if request.number == number:
                return request
        known = f"no request has the number {number}" if NUMBER.fullmatch(number) else "this is no number of a request"
        raise ConfigurationError(
            f"Nothing was done: {known}.",
            remedy="The numbers are shown by: scanseal enroll offline list",
            code="offline-request-unknown",
        )

    def plan(self, identity: IdentityName, errand: Errand) -> tuple[PlannedExchange, ...]:
        """What `export` would write; no key is made.

        Raises:
            ScansealError: The configuration does not allow it.
        """
        self._check_errand(identity, errand)
        settings, identities = self._context.settings, self._context.identities
        with OfflineFlow.connect(identity, self._context, errand) as flow:
            return planned(identity, settings, identities=identities, flow=flow)

    def export(self, identity: IdentityName, errand: Errand) -> Request:
        """Make a request and write its file, or write that of a request which waits once more.

        Args:
            identity: Whose certificate is asked for.
            errand: With the number of a request that waits, or of none (`number_for`).

        Raises:
            ScansealError: No file; what is in use stays in use.
        """
        with self._noted(identity):
            self._check_errand(identity, errand)
            with OfflineFlow.connect(identity, self._context, errand) as flow:
                self._prepare(identity, errand.number)
                self._transact(identity, flow, errand.number)
        return self.find(errand.number)

    def take_in(self, files: Mapping[str, bytes]) -> tuple[Generation, ...]:
        """Put the answers to one or several requests into use.

        Args:
            files: What a CA sent, by the names of the files; CA certificates may be among them.

        Returns:
            The generations that are in use now, one for each request that was answered.

        Raises:
            ScansealError: Not usable; every request stays as it is, and so does what is in use.
        """
        certificates = read_answers(files)
        keys = {_key_of(certificate) for certificate in certificates} - {""}
        with self._context.identities.lock():
            self.requests.tidy()
            answered = [request for request in self.requests.all() if request.key_sha256 in keys]
            if not answered:
                raise self._not_waiting(keys)
            for request in answered:
                with self._noted(request.identity):
                    self._check(request, certificates)
            for request in answered:
                # First noted: after the commit nobody could tell any more when it was asked for.
                self.requests.note(request, End.ANSWERED)
                journal = self.requests.journal(request.identity, request.number)
                journal.write_issued(request.pending, certificates, self._anchors(request))
        return tuple(self._commit(request) for request in answered)

    def cancel(self, number: str) -> Request:
        """Give a request up and destroy its key.

        Raises:
            ConfigurationError: There is no such request.
            KeyStoreError: The key cannot be destroyed; the request stays.
        """
        with self._context.identities.lock():
            request = self.find(number)
            if request.pending.key_uri:
                self._context.stores.destroy(request.pending.key_uri)
            self.requests.end(request, End.CANCELLED)
        return request

    def _prepare(self, identity: IdentityName, number: str) -> None:
        """Make room for a request, or ready one that is out to be written once more."""
        with self._context.identities.lock():
            self.requests.tidy()
            out = self.requests.of(identity)
            known = [request for request in out if request.number == number]
            if len(out) >= REQUESTS_LIMIT and not known:
                raise ConfigurationError(
                    f"{len(out)} requests for {identity} are out.",
                    remedy="Give up those that get no answer: scanseal enroll offline cancel REQUEST",
                    code="offline-requests-too-many",
                )
            for request in known:
                self._check_exportable(request)
                self.requests.journal(identity, number).write(replace(request.pending, until=None))

    def _noted(self, identity: IdentityName) -> AbstractContextManager[object]:
        return Failures(self._context.identities).noted(identity, NAME, self._context.clock)

    def _commit(self, request: Request) -> Generation:
        with self._noted(request.identity), OfflineFlow.connect(request.identity, self._context) as flow:
            generation = self._transact(request.identity, flow, request.number)
        if generation is None:
            raise EnrollmentRefused(f"The request {request.number} has ended meanwhile.", remedy="Export a new one.")
        self.requests.remove(request.identity, request.number)
        return generation

    def _transact(self, identity: IdentityName, flow: OfflineFlow, number: str) -> Generation | None:
        context = self._context
        answer = issue(
            identity,
            context.settings,
            stores=context.stores,
            identities=context.identities,
            flow=flow,
            clock=context.clock,
            journal=self.requests.journal(identity, number),
        )
        return answer if isinstance(answer, Generation) else None

    def _check_errand(self, identity: IdentityName, errand: Errand) -> None:
        if made_by_agent(identity, self._context.settings):
            raise memory_key(identity)
        if len(errand.why) > TEXT_LIMIT or not errand.why.isprintable():
            raise ConfigurationError(
                "The reason cannot be used.", remedy=f"Give one line of at most {TEXT_LIMIT} characters."
            )

    def _check_exportable(self, request: Request) -> None:
        """Refuse to write the file of a request whose answer would be refused."""
        if request.state is State.PREPARED:
            return  # nobody has seen it, so it may be begun anew
        self._check_wanted(request)
        if request.state is not State.WAITING:
            raise _refused(request, f"it is {request.state}", "Export a new request.")

    def _check_wanted(self, request: Request) -> CertificateRequest:
        """Refuse what is not what the configuration asks for now; otherwise say what that is."""
        usage, wanted = owned(request.identity, self._context.settings)
        now_asked = CertificateRequest.for_device(self._context.settings.device, usage)
        if request.pending.asked != asked_for(NAME, wanted, now_asked):
            remedy = (
                "Put [device] and [identity] in scanseal.toml back as they were; or cancel it and export a new one."
            )
            raise _refused(request, "the configuration asks for something else by now", remedy)
        return now_asked

    def _check(self, request: Request, certificates: Sequence[x509.Certificate]) -> None:
        """All that the transaction will find out, before it begins.

        Raises:
            ScansealError: The answer does not fit.
        """
        if request.state is State.SUPERSEDED:
            why = "the certificate in use was asked for later than this one"
            raise _refused(request, why, "Export a new request, if another certificate is wanted.", "superseded")
        asked = self._check_wanted(request)
        key = self._context.stores.load(request.pending.key_uri)
        anchors = self._anchors(request)
        try:
            verified = check_issued(
                certificates,
                (),
                anchors,
                public_key=key.public_key(),
                request=asked,
                now=self._context.clock.now(),
                seen=self._context.identities.certificates(),
            )
        except CertificateRefused as error:
            raise _with_missing_link(error, request, certificates, anchors) from error
        check_pair(key, verified.certificate)

    def _anchors(self, request: Request) -> tuple[x509.Certificate, ...]:
        return OfflineFlow.connect(request.identity, self._context).anchors

    def _not_waiting(self, keys: set[str]) -> CertificateRefused:
        for identity in IdentityName:
            for ended in reversed(self.requests.ended(identity).read()):
                if ended.key_sha256 in keys:
                    return CertificateRefused(
                        f"The answer to request {ended.number} for {identity} is not used: {_WHY_NOT[ended.end]}.",
                        remedy="Look for the answer to a request that waits: scanseal enroll offline list",
                        code=f"offline-answer-{ended.end}",
                        who_must_act=OPERATOR,
                        what_next="What is in use stays in use.",
                    )
        if keys & {_key_of(certificate) for certificate in self._context.identities.certificates()}:
            why, code = "this scanner has it already", "offline-answer-answered"
        else:
            why, code = "no certificate in it is for the key of a request that waits here", "offline-answer-unknown"
        return CertificateRefused(
            f"The answer is not used: {why}.",
            remedy="Compare the number of the request with those that wait: scanseal enroll offline list",
            code=code,
            who_must_act=OPERATOR,
            what_next="What is in use stays in use, and the requests wait for their answers.",
        )


def _refused(request: Request, why: str, remedy: str, code: str = "unfit") -> CertificateRefused:
    return CertificateRefused(
        f"The request {request.number} for {request.identity} does not go on: {why}.",
        remedy=remedy,
        code=f"offline-answer-{code}",
        who_must_act=OPERATOR,
        what_next="What is in use stays in use, and the request stays as it is.",
    )


def _with_missing_link(
    error: CertificateRefused,
    request: Request,
    certificates: Sequence[x509.Certificate],
    anchors: Sequence[x509.Certificate],
) -> CertificateRefused:
    """The same refusal, for a request that stays; where only a CA certificate is missing, with its name."""
    missing = None
    if error.code == "certificate-untrusted":
        leaf = next(certificate for certificate in certificates if _key_of(certificate) == request.key_sha256)
        missing = _missing_issuer(leaf, certificates, anchors)
    if missing is None:
        return CertificateRefused(error.what, remedy=error.remedy, code=error.code, what_next=_WAITS)
    return CertificateRefused(
        f"The certificate of the CA {name_text(missing)} is missing between the new certificate and the anchor.",
        remedy="Add its file: scanseal enroll offline import ANSWER CA-FILE. If it is the anchor itself, "
        f"put it into {anchor_table(request.identity)} anchor_file, received on a trusted way.",
        code="offline-chain-incomplete",
        who_must_act=OPERATOR,
        what_next=_WAITS,
    )


def _missing_issuer(
    leaf: x509.Certificate, certificates: Sequence[x509.Certificate], anchors: Sequence[x509.Certificate]
) -> x509.Name | None:
    """Whose certificate would be needed next; None where the path is complete, and wrong in another way."""
    try:
        known = {certificate.subject: certificate for certificate in (*certificates, *anchors)}
        link = leaf
        for _ in certificates:
            if link.issuer not in known:
                return link.issuer
            link = known[link.issuer]
            if link in anchors or link.issuer == link.subject:
                return None
    except PARSE_ERRORS:
        return None
    return None


def _key_of(certificate: x509.Certificate) -> str:
    try:
        return key_digest(certificate.public_key())
    except PARSE_ERRORS:
        return ""  # a kind of key that we never make
