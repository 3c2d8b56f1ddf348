"""The file that carries a request: what is in it, what it proves, and what a reader refuses."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from enroll import csr, signed_data
from enroll.csr import DOCUMENT_SIGNING, CertificateRequest, Usage
from enroll.errors import EvidenceRefused
from enroll.issue import PENDING_LIFETIME
from enroll.keystore.base import PrivateKey
from enroll.offline_request import (
    FILE_LIMIT,
    OfflineRequest,
    Statement,
    assembled,
    check_proof,
    key_digest,
    read_offline_request,
    state,
)
from tests.support.by_hand import DEVICE, IDEVID, ByHand
from tests.support.pki import DEVICE as SCANNER
from tests.support.pki import NOW, Content, HospitalCa, new_key

CA = HospitalCa()
VENDOR = HospitalCa("Vendor CA")
ANCHORS = (VENDOR.certificate,)


@pytest.fixture
def by_hand(tmp_path: Path) -> ByHand:
    return ByHand(tmp_path, CA, VENDOR)


def proved(by_hand: ByHand) -> bytes:
    by_hand.with_identity(IDEVID, VENDOR)
    return by_hand.export(why="the scanner was moved")[1]


def code_of(act: Callable[[], object]) -> str:
    with pytest.raises(EvidenceRefused) as caught:
        act()
    return caught.value.code


# --- what is in it


def test_it_says_who_asks_for_what_and_why(by_hand: ByHand) -> None:
    request, file = by_hand.export(why="the scanner was moved")
    statement = read_offline_request(file).statement

    assert statement.serial_number == SCANNER.serial_number
    assert (statement.identity, statement.number) == ("signing", request.number)
    assert statement.why == "the scanner was moved"
    assert statement.created == NOW.isoformat()
    for part in vars(statement).values():
        assert str(part) in file.decode("ascii")


def test_it_names_request_and_key_by_their_digests(by_hand: ByHand) -> None:
    read = read_offline_request(by_hand.export()[1])
    request = read.signed.public_bytes(serialization.Encoding.DER)
    key = read.public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)

    assert read.statement.request_sha256 == hashlib.sha256(request).hexdigest()
    assert read.statement.key_sha256 == hashlib.sha256(key).hexdigest()


def test_no_two_requests_have_the_same_nonce(by_hand: ByHand) -> None:
    nonces = {read_offline_request(by_hand.export()[1]).statement.nonce for _ in range(3)}

    assert len(nonces) == 3


def test_the_summary_is_ascii_and_the_request_is_the_first_block(by_hand: ByHand) -> None:
    """RFC 7468 2: whatever stands before the blocks must not look like one."""
    _, file = by_hand.export(why="Umzug -----BEGIN CERTIFICATE REQUEST----- nach Köln")
    text = file.decode("ascii")

    assert re.findall("-----BEGIN (.*)-----", text) == ["CERTIFICATE REQUEST", "SCANSEAL STATEMENT"]
    assert read_offline_request(file).statement.why.endswith("nach Köln")
    assert max(map(len, text.splitlines())) <= 250


def test_without_an_identity_it_says_that_nothing_proves_who_asks(by_hand: ByHand) -> None:
    _, file = by_hand.export()

    assert b"none: this device has no identity yet" in file
    assert code_of(lambda: check_proof(read_offline_request(file), ANCHORS, NOW)) == "offline-request-unproved"


# --- what it proves


def test_the_factory_identity_proves_which_device_asks(by_hand: ByHand) -> None:
    idevid = by_hand.with_identity(IDEVID, VENDOR)
    by_hand.with_identity(DEVICE, CA)

    _, file = by_hand.export()

    assert check_proof(read_offline_request(file), ANCHORS, NOW) == (idevid.certificate, VENDOR.certificate)


def test_without_a_factory_identity_that_of_the_owner_proves_it(by_hand: ByHand) -> None:
    device = by_hand.with_identity(DEVICE, CA)

    _, file = by_hand.export()

    assert check_proof(read_offline_request(file), (CA.certificate,), NOW)[0] == device.certificate


def test_a_lost_factory_identity_does_not_keep_the_scanner_from_asking(by_hand: ByHand) -> None:
    idevid = by_hand.with_identity(IDEVID, VENDOR)
    by_hand.scanner.stores.destroy(idevid.key_uri)

    assert read_offline_request(by_hand.export()[1]).proof is None


def test_the_proof_must_lead_to_the_anchor(by_hand: ByHand) -> None:
    read = read_offline_request(proved(by_hand))

    assert code_of(lambda: check_proof(read, (CA.certificate,), NOW)) == "offline-request-untrusted"
    assert code_of(lambda: check_proof(read, ANCHORS, NOW + timedelta(days=400))) == "offline-request-untrusted"


def signed_by(
    key: PrivateKey,
    content: Content,
    statement: Statement,
    authority: HospitalCa = VENDOR,
    *others: x509.Certificate,
) -> OfflineRequest:
    request = csr.build(new_key(), CertificateRequest.for_device(SCANNER, Usage.SIGNING))
    whole = state(request, statement)
    proof = signed_data.sign(whole.encoded(), key, (authority.issue(key.public_key(), content), *others))
    return read_offline_request(assembled("", request, whole, proof))


@pytest.mark.parametrize(
    "content",
    [
        Content(),  # a certificate for signing images: its key signs what programs hand in
        replace(Content.asked(CertificateRequest.for_device(SCANNER, Usage.DEVICE), NOW), extended_usage=()),
        Content.asked(CertificateRequest("other", "OTHER-1", "", Usage.DEVICE), NOW),
    ],
    ids=["signing", "no usage", "another device"],
)
def test_only_the_device_identity_of_the_device_itself_is_a_proof(by_hand: ByHand, content: Content) -> None:
    statement = read_offline_request(by_hand.export()[1]).statement

    request = signed_by(new_key(), content, statement)

    assert code_of(lambda: check_proof(request, ANCHORS, NOW)) == "offline-request-wrong-signer"


def test_a_certificate_whose_key_may_not_sign_is_no_proof(by_hand: ByHand) -> None:
    """RFC 5280 4.2.1.3."""
    content = Content.asked(CertificateRequest.for_device(SCANNER, Usage.DEVICE), NOW)
    usage = x509.KeyUsage(*(False, False, True, *[False] * 6))
    request = signed_by(new_key(), replace(content, usage=usage), read_offline_request(by_hand.export()[1]).statement)

    assert code_of(lambda: check_proof(request, ANCHORS, NOW)) == "offline-request-wrong-signer"


def test_a_ca_for_something_else_identifies_no_device(by_hand: ByHand) -> None:
    """As `openssl cms -verify -purpose sslclient` has it."""
    authority = HospitalCa("Web CA", VENDOR, extended_usage=(ExtendedKeyUsageOID.SERVER_AUTH,))
    content = Content.asked(CertificateRequest.for_device(SCANNER, Usage.DEVICE), NOW)
    request = signed_by(
        new_key(), content, read_offline_request(by_hand.export()[1]).statement, authority, authority.certificate
    )

    assert code_of(lambda: check_proof(request, ANCHORS, NOW)) == "offline-request-wrong-signer"


def test_an_old_request_is_not_granted_once_more(by_hand: ByHand) -> None:
    """The scanner takes its answer for 30 days; after that only somebody else can want it."""
    read = read_offline_request(proved(by_hand))

    assert check_proof(read, ANCHORS, NOW + PENDING_LIFETIME)
    late = NOW + PENDING_LIFETIME + timedelta(seconds=1)
    assert code_of(lambda: check_proof(read, ANCHORS, late)) == "offline-request-expired"


# --- what a reader refuses


_SERIAL = x509.NameAttribute(NameOID.SERIAL_NUMBER, SCANNER.serial_number)
_UPN = x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x0c\x05admin")


@pytest.mark.parametrize(
    "extension",
    [
        x509.SubjectAlternativeName([x509.DNSName("dc.hospital.example")]),
        x509.SubjectAlternativeName([_UPN]),
        x509.SubjectAlternativeName([csr.hardware_module_name("1.3.6.1.4.1.32473.1", "OTHER-1")]),
        x509.BasicConstraints(ca=True, path_length=None),
        x509.KeyUsage(*(True, False, False, False, False, True, False, False, False)),
        x509.ExtendedKeyUsage([DOCUMENT_SIGNING, ExtendedKeyUsageOID.CLIENT_AUTH]),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]),
    ],
    ids=["host", "user", "another device", "CA", "CA key", "two usages", "another usage"],
)
def test_a_request_for_what_no_scanner_asks_for_is_refused(by_hand: ByHand, extension: x509.ExtensionType) -> None:
    """A CA that copies what is asked would grant it; the statement says nothing of it."""
    usual = [csr.DIGITAL_SIGNATURE, x509.ExtendedKeyUsage([DOCUMENT_SIGNING])]
    extensions = [each for each in usual if each.oid != extension.oid] + [extension]

    assert code_of(lambda: read_offline_request(request_for(by_hand, x509.Name([_SERIAL]), extensions))) == (
        "offline-request-malformed"
    )


def test_a_request_for_the_name_of_a_user_is_refused(by_hand: ByHand) -> None:
    subject = x509.Name([_SERIAL, x509.NameAttribute(NameOID.USER_ID, "admin")])
    extensions: list[x509.ExtensionType] = [csr.DIGITAL_SIGNATURE, x509.ExtendedKeyUsage([DOCUMENT_SIGNING])]

    assert code_of(lambda: read_offline_request(request_for(by_hand, subject, extensions))) == (
        "offline-request-malformed"
    )


@pytest.mark.parametrize("attribute", ["1.3.6.1.4.1.311.13.2.1", "1.3.6.1.4.1.311.2.1.14", "1.2.840.113549.1.9.7"])
def test_a_request_with_attributes_that_some_cas_take_for_more_is_refused(by_hand: ByHand, attribute: str) -> None:
    """AD CS takes names and extensions out of attributes, too (MS-WCCE 2.2.2.7)."""
    extensions: list[x509.ExtensionType] = [csr.DIGITAL_SIGNATURE, x509.ExtendedKeyUsage([DOCUMENT_SIGNING])]
    plain = request_for(by_hand, x509.Name([_SERIAL]), extensions)
    assert code_of(lambda: read_offline_request(plain)) == "offline-request-inconsistent"  # only what it says differs

    file = request_for(by_hand, x509.Name([_SERIAL]), extensions, attribute)

    assert code_of(lambda: read_offline_request(file)) == "offline-request-malformed"


def test_what_is_asked_for_is_what_the_request_says(by_hand: ByHand) -> None:
    _, file = by_hand.export()

    changed = with_statement(file, lambda values: values.update(what="a harmless certificate"))

    assert code_of(lambda: read_offline_request(changed)) == "offline-request-inconsistent"


def request_for(
    by_hand: ByHand, subject: x509.Name, extensions: Sequence[x509.ExtensionType], attribute: str = ""
) -> bytes:
    """A file whose parts belong together, and whose request asks for something else."""
    statement, key = read_offline_request(by_hand.export()[1]).statement, new_key()
    builder = x509.CertificateSigningRequestBuilder(subject)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    if attribute:
        builder = builder.add_attribute(x509.ObjectIdentifier(attribute), b"SAN:upn=admin@hospital.example")
    request = builder.sign(key, hashes.SHA256())
    digest = hashlib.sha256(request.public_bytes(serialization.Encoding.DER)).hexdigest()
    stated = replace(statement, request_sha256=digest, key_sha256=key_digest(key.public_key()))
    return assembled("", request, stated, None)


def test_parts_of_two_files_do_not_belong_together(by_hand: ByHand) -> None:
    first = proved(by_hand)
    _, second = by_hand.export()
    begin = b"-----BEGIN CMS"
    mixed = first[: first.index(begin)] + second[second.index(begin) :]

    assert code_of(lambda: read_offline_request(mixed)) == "offline-request-inconsistent"


def with_statement(file: bytes, changed: Callable[[dict[str, object]], object]) -> bytes:
    """The file without a proof, its statement changed."""
    begin = file.index(b"-----BEGIN SCANSEAL STATEMENT-----\n")
    body = b"".join(file[begin:].splitlines()[1:-1])
    values = json.loads(base64.b64decode(body))
    content = changed(values)
    data = content if isinstance(content, bytes) else json.dumps(values, indent=1, sort_keys=True).encode() + b"\n"
    armour = b"SCANSEAL STATEMENT-----\n"
    return file[:begin] + b"-----BEGIN " + armour + base64.b64encode(data) + b"\n-----END " + armour


@pytest.mark.parametrize(
    "changed",
    [
        lambda values: values.update(version=2),
        lambda values: values.update(version=True),
        lambda values: values.update(more="x"),
        lambda values: values.pop("nonce"),
        lambda values: values.update(nonce="short"),
        lambda values: values.update(why="two\nlines"),
        lambda values: values.update(why=["a"]),
        lambda values: values.update(why="\x9b2J"),  # the terminal of whoever reads it is not the writer's
        lambda values: values.update(why="\u202egnp.exe"),
        lambda values: values.update(why="one\u2028proved  yes"),
        lambda values: values.update(created="2026-11-22T12:00:00+99:99"),
        lambda values: json.dumps(values).encode(),
        lambda _: b"[" * 4000,
        lambda _: b"x" * 5000,
        lambda _: b"null",
        lambda _: b"",
    ],
)
def test_a_statement_has_one_form(by_hand: ByHand, changed: Callable[[dict[str, object]], object]) -> None:
    _, file = by_hand.export()
    read_offline_request(with_statement(file, lambda _: None))  # unchanged it is accepted

    assert code_of(lambda: read_offline_request(with_statement(file, changed))) == "offline-request-malformed"


def test_a_newer_version_is_said_to_be_one(by_hand: ByHand) -> None:
    _, file = by_hand.export()

    with pytest.raises(EvidenceRefused, match="of version 2; this program reads version 1"):
        read_offline_request(with_statement(file, lambda values: values.update(version=2)))


def test_a_statement_for_another_device_than_the_request_is_refused(by_hand: ByHand) -> None:
    _, file = by_hand.export()

    changed = with_statement(file, lambda values: values.update(serial_number="OTHER-1"))

    assert code_of(lambda: read_offline_request(changed)) == "offline-request-inconsistent"


@pytest.mark.parametrize(
    "data", [b"", b"x", b"-----BEGIN CMS-----\n-----END CMS-----\n", b"\x00" * 100, b"x" * (FILE_LIMIT + 1)]
)
def test_what_is_no_such_file_is_refused(data: bytes) -> None:
    assert code_of(lambda: read_offline_request(data)) == "offline-request-malformed"


def test_any_byte_of_the_proof_counts(by_hand: ByHand) -> None:
    """Every changed byte is refused, or leaves the statement and its signer what they were."""
    file = proved(by_hand)
    good = read_offline_request(file)
    assert good.proof is not None
    begin = file.index(b"-----BEGIN CMS-----\n") + 20
    for place in range(begin, len(file) - 20, 7):
        changed = file[:place] + (b"B" if file[place : place + 1] == b"A" else b"A") + file[place + 1 :]
        try:
            read = read_offline_request(changed)
            check_proof(read, ANCHORS, NOW)
        except EvidenceRefused:
            continue
        assert read.proof is not None
        assert (read.statement, read.proof.signer) == (good.statement, good.proof.signer)


@pytest.mark.parametrize(
    "mangled",
    [
        lambda file: file.replace(b"\n", b"\r\n"),
        lambda file: b"\xef\xbb\xbf" + file,
        lambda file: file.decode().encode("utf-16"),
        lambda file: b"".join(b"> " + line for line in file.splitlines(keepends=True)),
    ],
    ids=["CRLF", "BOM", "UTF-16", "quoted"],
)
def test_what_mail_does_to_it_does_no_harm(by_hand: ByHand, mangled: Callable[[bytes], bytes]) -> None:
    file = proved(by_hand)

    assert read_offline_request(mangled(file)).statement == read_offline_request(file).statement
