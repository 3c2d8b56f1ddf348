"""What an ACME server says when it says no: problem documents (RFC 8555 6.7, RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from enroll.errors import CA_OPERATOR as _CA
from enroll.errors import HOSPITAL_IT as _IT
from enroll.errors import EnrollmentRefused
from enroll.flows.base import Refused
from enroll.foreign import printable

PREFIX = "urn:ietf:params:acme:error:"
ALREADY_REVOKED = "alreadyRevoked"
BAD_NONCE = "badNonce"
NO_ACCOUNT = "accountDoesNotExist"
RATE_LIMITED = "rateLimited"
UNAUTHORIZED = "unauthorized"
USER_ACTION_REQUIRED = "userActionRequired"
_SUBPROBLEMS_LIMIT = 3

_VENDOR = "vendor service"
_OWN_FAULT = "If what it says names no option of [acme] that the CA wants to be set, report this."
_NETWORK = "The CA could not look at the answer of the challenge. Check the hook, the network and the name service."

# Type without its prefix: who must act, and what to do.
_ADVICE: dict[str, tuple[str, str]] = {
    "accountDoesNotExist": (_CA, "The CA has forgotten the account of this scanner; the next run makes a new one."),
    "alreadyReplaced": (_CA, "Another order has renewed the certificate already."),
    "alreadyRevoked": (_IT, "Nothing is left to do."),
    "badAttestationStatement": (
        _VENDOR,
        "The evidence of the key was not accepted: compare the attestation CA of the vendor with the roots of the CA.",
    ),
    "badCSR": (_CA, "Compare the names and the kind of key that the CA allows with those of the configuration."),
    "badNonce": (_CA, "The server refuses nonces that it has just given out; it may be several behind one address."),
    "badPublicKey": (_IT, "The CA does not take this kind of key: change key_algorithm."),
    "badRevocationReason": (_IT, "Revoke with another reason."),
    "badSignatureAlgorithm": (_IT, "The CA does not take this kind of account key: change account_key_algorithm."),
    "caa": (_IT, "A CAA record of the domain forbids this CA."),
    "compound": (_CA, "There are several reasons; see the log of the CA."),
    "connection": (_IT, _NETWORK),
    "dns": (_IT, _NETWORK),
    "externalAccountRequired": (_IT, "Get a key identifier and MAC key from the CA: [acme] eab_key_id, eab_key_file."),
    "incorrectResponse": (_IT, "The answer of the challenge was not where the CA looked for it. Check the hook."),
    "invalidContact": (_IT, "Correct [acme] contact."),
    "invalidProfile": (_IT, "Choose a profile that the CA offers: [acme] profile."),
    "malformed": (_CA, _OWN_FAULT),
    "orderNotReady": (_CA, _OWN_FAULT),
    "rateLimited": (_CA, "There were too many requests; this is tried again later."),
    "rejectedIdentifier": (_CA, "The CA does not issue for this name: allow it there, or correct [acme] identifier."),
    "serverInternal": (_CA, "See the log of the CA."),
    "tls": (_IT, _NETWORK),
    "unauthorized": (_CA, "The account may not do this; see the log of the CA."),
    "unsupportedContact": (_IT, "Correct [acme] contact."),
    "unsupportedIdentifier": (_IT, "The CA knows no such identifiers: change [acme] identifier_type."),
    "userActionRequired": (_IT, "The CA wants a person to act, such as to agree to new terms of service."),
}
_UNKNOWN = (_CA, "See the log of the CA.")


class AcmeProblem(EnrollmentRefused):
    """The server answered with a problem document.

    Args:
        text: What it says, printable.
        kind: Its type without the prefix of ACME; `kind` is empty for one that is not known.
    """

    code = "acme-problem"

    def __init__(self, text: str, kind: str = "") -> None:
        self.kind = kind if kind in _ADVICE else ""
        self.reason = text
        self.retry_at: datetime | None = None  # where it is only too early
        who_must_act, self.advice = _ADVICE.get(self.kind, _UNKNOWN)
        super().__init__(f"The CA refused: {text}.", remedy=self.advice, who_must_act=who_must_act)

    @property
    def refused(self) -> Refused:
        """The same as an answer of the flow."""
        return Refused(self.reason, self.who_must_act, self.advice)


def read_problem(document: object, status: int) -> AcmeProblem:
    """A problem document; anything that is none says nothing, and is a problem all the same.

    Args:
        document: What the JSON held.
        status: HTTP status of the answer.
    """
    members = document if isinstance(document, Mapping) else {}
    kind = _text(members, "type").removeprefix(PREFIX)
    subproblems = members.get("subproblems")
    parts = subproblems[:_SUBPROBLEMS_LIMIT] if isinstance(subproblems, list) else []
    details = [_text(part, "detail") for part in (members, *parts) if isinstance(part, Mapping)]
    if kind == USER_ACTION_REQUIRED:
        details.append(_text(members, "instance"))  # RFC 8555 7.3.3: what to read and agree to
    said = "; ".join(filter(None, map(printable, details))).rstrip(".")
    text = ": ".join(filter(None, (printable(kind), said)))
    return AcmeProblem(text or f"HTTP status {status}", kind)


def _text(members: Mapping[str, Any], name: str) -> str:
    value = members.get(name)
    return value if isinstance(value, str) else ""
