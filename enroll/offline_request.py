"""The file that carries a certificate request to a CA by hand, in its version 1: how it is made, read and verified.

    a summary for people (RFC 7468 2: explanatory text)
    CERTIFICATE REQUEST     the PKCS#10 request (RFC 2986), first, for tools that read only that
    CMS                     the statement, signed by the device (RFC 5652); or, where the device has no identity yet,
    SCANSEAL STATEMENT      the same statement with nobody's signature

The statement is JSON: the number of the request, a nonce, SHA-256 of the request and of its key, which device asks for
which of its identities, what and why, and since when. The request proves that its key is there; the statement proves
which device asks. A reader trusts neither before `check_proof`, and nothing of the summary ever. Requests for what no
scanner asks for are not read at all: many CAs grant whatever names and usages a request has.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from enroll import der
from enroll.armour import Block, read_blocks
from enroll.certificates import PARSE_ERRORS, alternative_names, name_text, public_key_info
from enroll.csr import DIGITAL_SIGNATURE, HARDWARE_MODULE_NAME, OWNERS_NAMES, RESERVED_UNITS, UNSTRUCTURED_NAME, Usage
from enroll.errors import CertificateRefused, EvidenceRefused
from enroll.foreign import printable
from enroll.issue import PENDING_LIFETIME
from enroll.keystore.base import PublicKey
from enroll.signed_data import Signed, open_signed
from enroll.trust import verify_chain

FILE_LIMIT = 128 * 1024  # bytes
STATEMENT_LIMIT = 4096  # bytes
TEXT_LIMIT = 200  # characters of what and why
VERSION = 1
Kind = TypeVar("Kind", bound=x509.ExtensionType)

_REQUEST = "CERTIFICATE REQUEST"
_PROOF = "CMS"
_UNPROVED = "SCANSEAL STATEMENT"
_EXTENSION_REQUEST = x509.ObjectIdentifier("1.2.840.113549.1.9.14")  # RFC 2985 5.4.2
_FORMS = {
    "number": re.compile(r"[0-9]{8}-[0-9a-f]{6}"),
    "nonce": re.compile(r"[0-9a-f]{32}"),
    "request_sha256": re.compile(r"[0-9a-f]{64}"),
    "key_sha256": re.compile(r"[0-9a-f]{64}"),
    "serial_number": re.compile(r"[ -~]{1,64}"),
    "identity": re.compile(r"[a-z]{1,32}"),
    "what": re.compile(r".{1,200}"),
    "why": re.compile(r".{0,200}"),
    "created": re.compile(r"[0-9T:+-]{25}"),
}


@dataclass(frozen=True)
class Statement:
    """What the device states about a request.

    Args:
        number: Of the request, for people: day and six hexadecimal digits.
        nonce: Never used for another request.
        request_sha256: Of the request in DER, in hexadecimal.
        key_sha256: Of the public key as SubjectPublicKeyInfo, in hexadecimal.
        serial_number: Of the device.
        identity: Which of its identities the certificate is for.
        what: What is asked for, for people.
        why: The reason that was given; may be empty.
        created: When, in ISO 8601 with whole seconds and zone.
        version: Of this format.
    """

    number: str
    nonce: str
    request_sha256: str
    key_sha256: str
    serial_number: str
    identity: str
    what: str
    why: str
    created: str
    version: int = VERSION

    def encoded(self) -> bytes:
        """As JSON, always the same bytes."""
        return json.dumps(asdict(self), indent=1, sort_keys=True).encode("ascii") + b"\n"


@dataclass(frozen=True)
class OfflineRequest:
    """A request as it was read: whole and consistent in itself, and not trusted yet.

    Args:
        statement: About the request.
        signed: The request; its signature is right.
        public_key: Of the request.
        proof: Who signed the statement; None where nobody did.
    """

    statement: Statement
    signed: x509.CertificateSigningRequest
    public_key: PublicKey
    proof: Signed | None


def state(signed: x509.CertificateSigningRequest, blank: Statement) -> Statement:
    """A statement about a request: `blank`, with what this one asks for and its two digests.

    Raises:
        ValueError: It asks for something that no scanner does; or another of `PARSE_ERRORS`.
    """
    return replace(
        blank,
        what=_what(signed, blank.serial_number),
        request_sha256=hashlib.sha256(signed.public_bytes(serialization.Encoding.DER)).hexdigest(),
        key_sha256=key_digest(signed.public_key()),
    )


def _what(signed: x509.CertificateSigningRequest, serial_number: str) -> str:
    """What a request asks for, in one line; only what `enroll.csr` makes for the device.

    A CA may take attributes for names or extensions, too (MS-WCCE 2.2.2.7).
    """
    values = {type(extension.value): extension.value for extension in signed.extensions}
    usage, purposes = values.pop(x509.KeyUsage, None), list(values.pop(x509.ExtendedKeyUsage, ()))
    values.pop(x509.SubjectAlternativeName, None)
    values.pop(x509.PrivateKeyUsagePeriod, None)
    attributes = [attribute.oid for attribute in signed.attributes]
    names = {attribute.oid for attribute in signed.subject} - OWNERS_NAMES
    known = (
        usage == DIGITAL_SIGNATURE
        and not values
        and names <= {NameOID.COMMON_NAME, NameOID.SERIAL_NUMBER}
        and attributes.count(_EXTENSION_REQUEST) == 1
        and set(attributes) <= {_EXTENSION_REQUEST, UNSTRUCTURED_NAME}
        and all(_names_device(name, serial_number) for name in alternative_names(signed))
    )
    units = {str(unit.value) for unit in signed.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)}
    reserved = units & RESERVED_UNITS
    for kind in Usage:
        if (
            known
            and purposes == [kind.extended_key_usage]
            and reserved == set(filter(None, [kind.organizational_unit]))
        ):
            text = f"{kind} certificate, {kind.extended_key_usage.dotted_string}, {name_text(signed.subject)}"
            return text[:TEXT_LIMIT]
    raise ValueError("it asks for something that no scanner asks for")


def _names_device(name: x509.GeneralName, serial_number: str) -> bool:
    """Whether an alternative name is the hardwareModuleName of a device (RFC 4108 5), of whatever model."""
    number = der.encode(der.OCTET_STRING, serial_number.encode("ascii"))
    return isinstance(name, x509.OtherName) and name.type_id == HARDWARE_MODULE_NAME and name.value.endswith(number)


def key_digest(key: CertificatePublicKeyTypes) -> str:
    """SHA-256 of a public key as SubjectPublicKeyInfo, in hexadecimal."""
    return hashlib.sha256(public_key_info(key)).hexdigest()


def assembled(summary: str, signed: x509.CertificateSigningRequest, statement: Statement, proof: bytes | None) -> bytes:
    """The file.

    Args:
        summary: For people; what is not ASCII is replaced, and no line of it is taken for PEM.
        signed: The request.
        statement: About it.
        proof: The statement as `enroll.signed_data.sign` signed it; None where nobody did.
    """
    plain = re.sub(r"-{3,}", "-", summary).encode("ascii", errors="replace")
    request = signed.public_bytes(serialization.Encoding.PEM)
    last = _armoured(_PROOF, proof) if proof is not None else _armoured(_UNPROVED, statement.encoded())
    return b"\n".join((plain, request, last))


def read_offline_request(data: bytes) -> OfflineRequest:
    """The request in a file, whatever a mail program did to the text of it.

    Raises:
        EvidenceRefused: It is no such file, of another version, or its parts do not belong together.
    """
    if len(data) > FILE_LIMIT:
        raise _refused("malformed", f"the file is larger than {FILE_LIMIT} bytes")
    try:
        request, statement = _two(data)
        signed = x509.load_der_x509_csr(request)
        public_key = signed.public_key()
        serials = [name.value for name in signed.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)]
        proof = open_signed(statement.content) if statement.label == _PROOF else None
        stated = _statement(proof.content if proof else statement.content)
        complete = signed.is_signature_valid and serials == [stated.serial_number] and state(signed, stated) == stated
    except PARSE_ERRORS as error:
        raise _refused("malformed", f"it cannot be read ({printable(str(error))})") from error
    if not isinstance(public_key, PublicKey) or not complete:
        raise _refused("inconsistent", "statement and request do not belong together")
    return OfflineRequest(stated, signed, public_key, proof)


def check_proof(
    request: OfflineRequest, anchors: Sequence[x509.Certificate], now: datetime
) -> tuple[x509.Certificate, ...]:
    """Find out whether the device that is named has made a request.

    A certificate for signing images is no proof: its key signs whatever digest a program on the device hands in.

    Args:
        request: As it was read.
        anchors: Of the CA that gives devices their identity, the vendor's or the owner's.
        now: The time of the decision.

    Returns:
        The path of the device's certificate, the anchor last.

    Raises:
        EvidenceRefused: It is not proved, or so old that the scanner takes no answer any more; `code` says why.
    """
    if request.proof is None:
        raise _refused("unproved", "no identity of a device has signed it")
    signer = request.proof.signer
    try:
        chain = verify_chain(signer, request.proof.others, anchors, now)
        serials = [name.value for name in signer.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)]
        identifies = _identifies_device(chain)
    except CertificateRefused as error:
        raise _refused("untrusted", error.what.rstrip(".")) from error
    except PARSE_ERRORS as error:
        raise _refused("wrong-signer", "the certificate of the signer is not one of a device") from error
    if not identifies:
        raise _refused("wrong-signer", f"{name_text(signer.subject)!r} does not identify a device")
    if serials != [request.statement.serial_number]:
        raise _refused("wrong-signer", f"{name_text(signer.subject)!r} has signed for another device")
    if now > datetime.fromisoformat(request.statement.created) + PENDING_LIFETIME:
        raise _refused("expired", f"it is older than {PENDING_LIFETIME.days} days, and its answer would not be used")
    return chain


def _identifies_device(chain: Sequence[x509.Certificate]) -> bool:
    """Whether keyUsage and extendedKeyUsage are those of a device; a CA passes on no more than it has itself."""
    usage, purposes = _extension(chain[0], x509.KeyUsage), _extension(chain[0], x509.ExtendedKeyUsage)
    granted = [_extension(link, x509.ExtendedKeyUsage) for link in chain[:-1]]
    return (
        (usage is None or usage.digital_signature)
        and purposes is not None
        and all(each is None or ExtendedKeyUsageOID.CLIENT_AUTH in each for each in granted)
    )


def _extension(certificate: x509.Certificate, kind: type[Kind]) -> Kind | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _two(data: bytes) -> tuple[bytes, Block]:
    request, statement = read_blocks(data)
    if request.label != _REQUEST or statement.label not in (_PROOF, _UNPROVED):
        raise ValueError("not one request and one statement")
    return request.content, statement


def _statement(content: bytes) -> Statement:
    """The statement in its one form: no reader of the same bytes can understand something else."""
    if len(content) > STATEMENT_LIMIT:
        raise ValueError(f"a statement of more than {STATEMENT_LIMIT} bytes")
    try:
        values = json.loads(content)
    except RecursionError as error:
        raise ValueError("a statement that is nested too deeply") from error
    version = values.pop("version", None) if isinstance(values, dict) else None
    if version != VERSION:
        raise ValueError(f"of version {version!r:.20}; this program reads version {VERSION}")
    if values.keys() != _FORMS.keys() or not all(isinstance(value, str) for value in values.values()):
        raise ValueError("a statement of other parts")
    # Printable: it is shown on a terminal.
    wrong = [name for name, form in _FORMS.items() if not (form.fullmatch(values[name]) and values[name].isprintable())]
    statement = Statement(**values)
    if wrong or statement.encoded() != content or datetime.fromisoformat(statement.created).tzinfo is None:
        raise ValueError("a statement of another form")
    return statement


def _armoured(label: str, content: bytes) -> bytes:
    text = base64.b64encode(content).decode("ascii")
    lines = [f"-----BEGIN {label}-----", *(text[i : i + 64] for i in range(0, len(text), 64)), f"-----END {label}-----"]
    return "\n".join(lines).encode("ascii") + b"\n"


def _refused(check: str, why: str) -> EvidenceRefused:
    return EvidenceRefused(
        f"The request is not accepted: {why}.",
        remedy="Have the file sent again, or exported again at the scanner; compare the anchor with the one of the CA "
        "that gave the device its identity.",
        code=f"offline-request-{check}",
        what_next="Nothing is granted for it.",
    )
