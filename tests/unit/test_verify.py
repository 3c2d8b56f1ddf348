"""Who counts as the signer of an image, and what a signature is worth (PS3.15 C.2, RFC 9336)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils
from cryptography.x509.oid import ExtendedKeyUsageOID

from agent.dicom.profile import ProfileName, load_profile
from agent.dicom.report import Fact, Grade, Outcome, SignatureReport
from agent.dicom.sign import SignaturePlan
from agent.dicom.signature_items import MOST_SIGNATURES
from agent.dicom.signer_chain import TrustMaterial
from agent.dicom.verify import Verification, verify_instance
from agent.errors import DicomError
from tests.support.dicom_samples import small_instance
from tests.support.dicom_tree import EXPLICIT_LITTLE_ENDIAN
from tests.support.pki import NOW, HospitalCa
from tests.support.product_signing import sign_bytes, sign_without_key
from tests.support.raw_dicom import Node, Writer, instance, part10, text, with_meta

PROFILE = load_profile(ProfileName.CREATOR_RSA)
CA = HospitalCa()
YEAR = timedelta(days=365)


@cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def signed(
    data: bytes | None = None, at: datetime = NOW, issuer: HospitalCa = CA, *, is_ca: bool = False, **certificate: Any
) -> bytes:
    """An instance signed by a scanner of the hospital; `certificate` says what is odd about its certificate."""
    content = {"begin": NOW - timedelta(days=1), "end": NOW + YEAR, "ca": is_ca, **certificate}
    issued = issuer.issue(rsa_key().public_key(), **content).public_bytes(serialization.Encoding.DER)

    def sign(digest: bytes) -> bytes:
        return rsa_key().sign(digest, padding.PKCS1v15(), utils.Prehashed(hashes.SHA256()))

    return sign_bytes(data or small_instance(), SignaturePlan(PROFILE, "sha256", "2.25.7", at), sign, issued)


def verified(data: bytes, now: datetime = NOW) -> SignatureReport:
    (report,) = verify_instance(data, Verification(PROFILE, now, TrustMaterial((CA.certificate,)))).signatures
    return report


def codes(fact: Fact) -> list[str]:
    return [finding.code for finding in fact.findings]


def test_an_image_of_a_signer_below_the_anchor_raises_nothing() -> None:
    report = verified(signed())
    outcomes = {name: fact.outcome for name, fact in report.facts.items() if name not in ("coverage", "identity")}
    assert set(outcomes.values()) == {Outcome.PASSED}
    assert report.chain.path[-1] == CA.certificate


@pytest.mark.parametrize(
    "data",
    [
        signed(extended_usage=(ExtendedKeyUsageOID.SERVER_AUTH,)),
        signed(extended_usage=(ExtendedKeyUsageOID.CLIENT_AUTH,)),
        signed(is_ca=True),
        signed(issuer=HospitalCa("Another CA")),
    ],
    ids=["TLS server", "device identity", "CA", "below a foreign CA"],
)
def test_not_every_certificate_below_the_anchor_makes_a_signer(data: bytes) -> None:
    report = verified(data)
    assert (report.intact, report.chain.outcome, report.chain.path) == (True, Outcome.FAILED, ())


@pytest.mark.parametrize(
    ("at", "code"),
    [
        (datetime(1999, 1, 1, tzinfo=UTC), "time-outside-certificate"),
        (NOW + 2 * YEAR, "time-in-future"),
        (NOW + timedelta(days=1), "time-in-future"),
    ],
)
def test_the_stated_time_of_signing_must_be_possible(at: datetime, code: str) -> None:
    report = verified(signed(at=at))
    assert report.time.outcome is Outcome.FAILED
    assert code in codes(report.time)


def test_a_certificate_that_has_expired_since_needs_proof_of_time() -> None:
    report = verified(signed(), now=NOW + 2 * YEAR)
    assert (report.intact, codes(report.time)) == (True, ["certificate-expired"])


def test_the_time_of_signing_is_written_in_utc_with_its_offset() -> None:
    """DCMTK compares it with the certificate's validity as if it were UTC."""
    new_york = timezone(timedelta(hours=-5))
    report = verified(signed(at=NOW.astimezone(new_york)))
    assert report.signed_at == f"{NOW:%Y%m%d%H%M%S}.000000+0000"


@pytest.mark.parametrize("algorithm", [b"SHA1  ", b"MD5   ", b"SHA512"])
def test_the_hash_cannot_be_relabelled(algorithm: bytes) -> None:
    """MAC Algorithm is not part of the MAC; PKCS#1 binds it."""
    report = verified(signed().replace(b"SHA256", algorithm))
    assert codes(report.integrity) == ["signature-wrong"]


def test_what_cannot_be_checked_is_not_called_broken() -> None:
    report = verified(signed().replace(b"SHA256", b"SHA3  "))
    assert (report.intact, report.algorithms.grade) == (None, Grade.UNKNOWN)


def test_another_mac_transfer_syntax_is_not_called_broken() -> None:
    """A recompressed image cannot be checked while it is stored so, which is not the same as a changed one."""
    data = signed()
    at = data.index(b"\x00\x04\x10\x00UI") + 8
    other = data[:at] + b"1.2.840.10008.1.2.4.70"[: data[at - 2]].ljust(data[at - 2], b"\0") + data[at + data[at - 2] :]
    report = verified(other)
    assert report.intact is None
    assert "transfer-syntax-differs" in codes(report.integrity)


def test_private_elements_of_raw_data_belong_to_the_content() -> None:
    """PS3.3 C.19.1: in an instance with Creator-Version UID the private elements are the data."""
    creator = Node(0x00290010, "LO", b"SOMEONE ")
    raw_data = part10(in_order(Node(0x00089123, "UI", b"2.25.9"), creator))
    assert creator.tag in verified(signed(raw_data)).coverage.covered
    extended = signed(raw_data).replace(b"SOMEONE ", b"SOMEONE " + b"\x29\x00\x01\x10LO\x08\x00the data")
    report = verified(extended)
    assert (codes(report.coverage), report.coverage.missing) == (["element-not-covered"], (0x00291001,))


@pytest.mark.parametrize("private_elements", [False, True])
def test_raw_data_of_unknown_vr_are_refused_whatever_else_is_covered(*, private_elements: bool) -> None:
    """PS3.3 C.19.1, C.12.1.1.3.1.1: without the data, which no signature can cover, there is nothing to sign."""
    profile = load_profile(ProfileName.CREATOR_PLUS, private_elements=private_elements)
    unknown = (Node(0x00290010, "LO", b"SOMEONE "), Node(0x00291001, "UN", b"the data"))
    raw_data = part10(in_order(Node(0x00089123, "UI", b"2.25.9"), *unknown))
    with pytest.raises(DicomError) as refused:
        sign_bytes(raw_data, SignaturePlan(profile, "sha256", "2.25.7", NOW), bytes, b"")
    assert refused.value.code == "unsignable-element"


def test_more_private_elements_than_can_be_listed_are_refused() -> None:
    """Data Elements Signed (0400,0020) holds at most 16,383 tags."""
    many = [Node(0x00290010, "LO", b"SOMEONE ")] + [Node(0x00291000 + number, "LO", b"") for number in range(20_000)]
    data = part10(in_order(Node(0x00089123, "UI", b"2.25.9"), *many))
    with pytest.raises(DicomError) as refused:
        sign_without_key(data)
    assert refused.value.code == "too-many-elements"


@pytest.mark.parametrize(
    ("sop_class", "nodes", "expected"),
    [
        ("1.2.840.10008.1.3.10", (text(0x00041130, "CS", "FILESET"),), []),
        ("1.2.840.10008.1.3.10", (text(0x00080016, "UI", "1.2"),), ["meta-contradicts"]),
        ("1.2", (text(0x00080018, "UI", "2.25.1"),), ["meta-contradicts"]),
    ],
)
def test_only_a_directory_names_its_class_and_instance_in_the_meta_information_alone(
    sop_class: str, nodes: tuple[Node, ...], expected: list[str]
) -> None:
    """PS3.3 F.3.2.2: a DICOMDIR has no SOP Common module."""
    body = Writer(EXPLICIT_LITTLE_ENDIAN).data_set(nodes)
    data = with_meta(body, EXPLICIT_LITTLE_ENDIAN, sop_class=sop_class, sop_instance="2.25.1")
    report = verify_instance(data, Verification(load_profile(ProfileName.CREATOR_PLUS), NOW))
    assert [finding.code for finding in report.findings] == expected


def test_an_instance_with_very_many_signatures_is_refused_at_once() -> None:
    data = signed()
    for _ in range(MOST_SIGNATURES - 1):
        data = signed(data)
    assert len(verify_instance(data, Verification(PROFILE, NOW)).signatures) == MOST_SIGNATURES
    with pytest.raises(DicomError) as refused:
        signed(data)
    assert refused.value.code == "too-many-signatures"


def test_nothing_may_follow_a_signature() -> None:
    data = signed()
    at = data.rindex(b"\x00\x04\x20\x01OB\0\0") + 8
    length = int.from_bytes(data[at : at + 4], "little")
    longer = data[:at] + (length + 2).to_bytes(4, "little") + data[at + 4 :] + bytes(2)
    for sequence in (b"\xfa\xff\xfa\xffSQ\0\0", b"\xfe\xff\x00\xe0"):
        size = longer.rindex(sequence) + len(sequence)
        grown = int.from_bytes(longer[size : size + 4], "little") + 2
        longer = longer[:size] + grown.to_bytes(4, "little") + longer[size + 4 :]
    assert codes(verified(longer).integrity) == ["signature-malformed"]


def in_order(*nodes: Node) -> tuple[Node, ...]:
    return tuple(sorted((*instance(), *nodes), key=lambda node: node.tag))
