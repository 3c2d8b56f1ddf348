"""Small signed instances of every kind, the same bytes in every run: what a fuzzer starts from.

Signatures of data sets are made by the product, those of sequence items by the second encoder of the tests.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils
from cryptography.x509.oid import ExtensionOID

from agent.dicom.profile import ProfileName, load_profile
from agent.dicom.sign import SignaturePlan
from enroll.keystore.base import PrivateKey
from tests.support.dicom_tree import (
    DEFLATED_EXPLICIT_LITTLE_ENDIAN,
    DIGITAL_SIGNATURES,
    EXPLICIT_BIG_ENDIAN,
    EXPLICIT_LITTLE_ENDIAN,
    IMPLICIT_LITTLE_ENDIAN,
    MAC_PARAMETERS,
    parse,
    parse_data_set,
    tag_bytes,
)
from tests.support.fixed_keys import fixed_ec_key, fixed_rsa_key
from tests.support.golden_objects import CONTENT_SEQUENCE, code, sequence
from tests.support.mac_oracle import is_signable, mac_stream
from tests.support.pki import NOW, HospitalCa, name
from tests.support.product_signing import sign_bytes
from tests.support.provenance import mac_item, reference
from tests.support.raw_dicom import NATIVE_ENCODINGS, Node, Nodes, Writer, as_nodes, instance, number, part10, text
from tests.support.revocation import revocation_list
from tests.support.time_stamp_authority import Tsa
from tests.support.time_stamp_tokens import Recipe, token

RLE: Final = "1.2.840.10008.1.2.5"
JPEG: Final = "1.2.840.10008.1.2.4.50"
JPEG_2000: Final = "1.2.840.10008.1.2.4.90"
SIGNED_AT: Final = NOW - timedelta(days=30)
_TIME_STAMPING_ALONE: Final = bytes.fromhex("300a06082b06010505070308")  # RFC 3161 2.3


@dataclass(frozen=True)
class Seed:
    """A signed instance.

    Args:
        name: What is particular about it.
        transfer_syntax: How it is stored.
        nodes: Its data set.
        data: The file.
    """

    name: str
    transfer_syntax: str
    nodes: Nodes
    data: bytes


# --- who signs ---


@cache
def authority() -> HospitalCa:
    """The CA of everybody."""
    return HospitalCa(key=fixed_rsa_key("authority"), serial=1)


@cache
def signer_certificate(key: PrivateKey) -> x509.Certificate:
    """A scanner's."""
    return authority().issue(key.public_key(), serial=2 + isinstance(key, ec.EllipticCurvePrivateKey), begin=SIGNED_AT)


@cache
def time_stamp_authority() -> Tsa:
    """One whose tokens are the same in every run."""
    certificate = authority().issue(
        fixed_rsa_key("authority").public_key(),
        subject=name(COMMON_NAME="Test TSA"),
        alternative_names=(),
        extended_usage=(),
        critical_extension=x509.UnrecognizedExtension(ExtensionOID.EXTENDED_KEY_USAGE, _TIME_STAMPING_ALONE),
        serial=4,
        begin=datetime(2020, 1, 1, tzinfo=UTC),
    )
    return Tsa(fixed_rsa_key("authority"), certificate, (), authority().certificate)


@cache
def revocations() -> x509.CertificateRevocationList:
    """What the CA has revoked: nobody who signed."""
    return revocation_list(authority().name, authority().key, NOW, {99: SIGNED_AT})


def signature_of_digest(key: PrivateKey, digest: bytes) -> bytes:
    """The signature of a SHA-256 digest."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(digest, ec.ECDSA(utils.Prehashed(hashes.SHA256()), deterministic_signing=True))
    return key.sign(digest, padding.PKCS1v15(), utils.Prehashed(hashes.SHA256()))


# --- signing ---


def seed(
    title: str,
    nodes: Nodes,
    transfer_syntax: str = EXPLICIT_LITTLE_ENDIAN,
    profile: ProfileName = ProfileName.CREATOR_PLUS,
    keys: Sequence[PrivateKey] | None = None,
) -> Seed:
    """An instance, signed once with each of the keys; with the RSA key where None are given."""
    data = part10(nodes, transfer_syntax)
    for number_of_signature, key in enumerate((fixed_rsa_key("signer"),) if keys is None else keys):
        certificate = signer_certificate(key).public_bytes(serialization.Encoding.DER)
        plan = SignaturePlan(load_profile(profile), "sha256", f"2.25.{number_of_signature + 70}", SIGNED_AT, "14")
        data = sign_bytes(data, plan, partial(signature_of_digest, key), certificate)
    added = (node for node in as_nodes(parse(data).elements) if node.tag in {MAC_PARAMETERS, DIGITAL_SIGNATURES})
    return Seed(title, transfer_syntax, in_order(*nodes, *added), data)


def signed_item(*nodes: Node, uid: str = "2.25.80") -> Nodes:
    """The content of a sequence item with a signature of its own over all of it (PS3.3 C.12.1.1.3)."""
    key = fixed_rsa_key("signer")
    elements = parse_data_set(Writer(EXPLICIT_LITTLE_ENDIAN).data_set(nodes), EXPLICIT_LITTLE_ENDIAN)
    tags = tuple(element.tag for element in elements if is_signable(element))
    covered = (
        number(0x04000005, 7),
        text(0x04000100, "UI", uid),
        text(0x04000105, "DT", f"{SIGNED_AT:%Y%m%d%H%M%S}.000000+0000"),
        text(0x04000110, "CS", "X509_1993_SIG"),
    )
    item = parse_data_set(Writer(EXPLICIT_LITTLE_ENDIAN).data_set(covered), EXPLICIT_LITTLE_ENDIAN)
    digest = hashlib.sha256(mac_stream(elements, tags, item)).digest()
    certificate = signer_certificate(key).public_bytes(serialization.Encoding.DER)
    parameters = (
        number(0x04000005, 7),
        text(0x04000010, "UI", EXPLICIT_LITTLE_ENDIAN),
        text(0x04000015, "CS", "SHA256"),
        Node(0x04000020, "AT", b"".join(map(tag_bytes, tags))),
    )
    signature = (
        *covered,
        Node(0x04000115, "OB", certificate + b"\0" * (len(certificate) % 2)),
        Node(0x04000120, "OB", signature_of_digest(key, digest)),
    )
    return in_order(*nodes, sequence(MAC_PARAMETERS, parameters), sequence(DIGITAL_SIGNATURES, signature))


def stamped(plain: Seed, recipe: Recipe | None = None) -> Seed:
    """The same with a time stamp for its first signature."""

    def with_stamp(item: Nodes) -> Nodes:
        signature = next(node.value for node in item if node.tag == 0x04000120)
        stamp = token(time_stamp_authority(), signature, SIGNED_AT, recipe)
        return in_order(
            *(node for node in item if not 0x04000305 <= node.tag <= 0x04000310),
            text(0x04000305, "CS", "CMS_TSP"),
            Node(0x04000310, "OB", stamp + b"\0" * (len(stamp) % 2)),
        )

    nodes = tuple(
        replace(node, items=(with_stamp(node.items[0]), *node.items[1:]))
        if node.tag == DIGITAL_SIGNATURES and node.items
        else node
        for node in plain.nodes
    )
    return Seed(f"{plain.name}, with a time stamp", plain.transfer_syntax, nodes, part10(nodes, plain.transfer_syntax))


def in_order(*nodes: Node) -> Nodes:
    """The nodes in the order of a data set."""
    return tuple(sorted(nodes, key=lambda node: node.tag))


# --- what is signed ---

IMAGE: Final = (
    number(0x00280002, 1),
    text(0x00280004, "CS", "MONOCHROME2"),
    number(0x00280010, 4),
    number(0x00280011, 4),
    number(0x00280100, 8),
    number(0x00280101, 8),
    number(0x00280102, 7),
    number(0x00280103, 0),
)
EQUIPMENT: Final = (
    text(0x00080060, "CS", "CT"),
    text(0x00080070, "LO", "Maker"),
    text(0x00080080, "LO", "Hospital"),
    text(0x00081090, "LO", "Example CT"),
    text(0x00181000, "LO", "CT-000123"),
    text(0x00181002, "UI", "2.25.1234"),
    sequence(0x0018100A, (text(0x00181009, "UT", "(01)00844588003288(21)CT-000123"),)),
    text(0x00181020, "LO", "1.0\\2.0"),
)
PIXELS: Final = Node(0x7FE00010, "OW", bytes(range(16)))
RLE_FRAME: Final = b"\1\0\0\0\x40\0\0\0" + bytes(56) + b"\x0f" + bytes(range(16)) + b"\x80"
JPEG_START: Final = b"\xff\xd8\xff\xe0" + bytes(8)
FRAMES: Final = text(0x00280008, "IS", "2")


def image(*more: Node) -> Nodes:
    """An image with what names the device."""
    return instance(
        text(0x00080005, "CS", "ISO_IR 192"),
        text(0x00080008, "CS", "ORIGINAL\\PRIMARY"),
        text(0x00100010, "PN", "Doe^Jane"),
        *EQUIPMENT,
        *IMAGE,
        *more,
    )


def report() -> Nodes:
    """A document with text in text in text, in both kinds of sequences."""
    leaf = (text(0x0040A040, "CS", "TEXT"), text(0x0040A160, "UT", "unchanged "))
    middle = (
        text(0x0040A040, "CS", "CONTAINER"),
        code(0x0040A043, "121071", "DCM", "Finding"),
        Node(CONTENT_SEQUENCE, "SQ", items=(leaf, ()), undefined_length=True, undefined_items=True),
    )
    return instance(
        text(0x00080060, "CS", "SR"),
        code(0x0040A043, "126000", "DCM", "Imaging Measurement Report"),
        sequence(CONTENT_SEQUENCE, middle, leaf),
    )


def made_of_others() -> Nodes:
    """An image that names its sources in every way there is, and says how it was made."""
    by_series = (sequence(0x00081115, (sequence(0x00081199, reference(14)),)), text(0x0020000D, "UI", "2.25.5"))
    extraction = text(0x00081167, "UI", "2.25.15")
    signature = (text(0x04000100, "UI", "2.25.9"), Node(0x04000120, "OB", bytes(8)))
    frame = (sequence(0x00089124, (sequence(0x00082112, reference(16)),)), sequence(0x00209172, reference(17)))
    purpose = code(0x0040A170, "109102", "DCM", "Processing Equipment")
    return instance(
        text(0x00080008, "CS", "DERIVED\\PRIMARY"),
        text(0x0008001C, "CS", "YES"),
        sequence(0x00081164, (extraction,)),
        text(0x00082111, "ST", "Made smaller"),
        sequence(0x00082112, reference(11, mac_item(bytes(32), (0x00080018, 0x00280010))), reference(12)),
        sequence(0x00089154, by_series),
        code(0x00089215, "113076", "DCM", "Segmentation"),
        text(0x00100200, "CS", "YES"),
        sequence(0x0018A001, (text(0x00080070, "LO", "Other"), purpose)),
        sequence(0x0040A360, by_series),
        sequence(0x00420013, reference(13, sequence(0x04000402, signature))),
        sequence(0x00620002, (text(0x00620008, "CS", "AUTOMATIC"),)),
        sequence(0x52009230, frame, ()),
    )


def of_unknown_vr() -> Nodes:
    """Elements that no signature can cover, among others that it does."""
    inside = ((text(0x00080100, "SH", "1"),), ())
    return image(
        text(0x00090010, "LO", "SOMEONE"),
        Node(0x00091001, "UN", items=inside, undefined_length=True, undefined_items=True),
        Node(0x00091002, "UN", b"\1\2\3\4"),
        sequence(0x00101002, (Node(0x00091002, "UN", b"\1\2"), text(0x00100020, "LO", "1"))),
        PIXELS,
    )


def with_signed_pixels() -> Nodes:
    """An image in which elements are SS instead of US because its pixels are signed (PS3.5 A.1)."""
    signed = (number(0x00280103, 1), Node(0x00280106, "SS", b"\0\x80"), Node(0x00280120, "SS", b"\1\0"))
    return in_order(*(node for node in image(PIXELS) if node.tag != 0x00280103), *signed)


def with_changes_recorded() -> Seed:
    """An instance whose patient was renamed after signing, as Original Attributes Sequence tells."""
    plain = seed("a recorded change", image(PIXELS), profile=ProfileName.CREATOR_PLUS)
    recorded = (
        sequence(0x04000550, (text(0x00080070, "LO", "Maker"),)),
        text(0x04000562, "DT", "20261122120000"),
        text(0x04000565, "CS", "COERCE"),
    )
    others = (node for node in plain.nodes if node.tag != 0x00080070)
    nodes = in_order(*others, text(0x00080070, "LO", "Renamed"), sequence(0x04000561, recorded))
    return replace(plain, nodes=nodes, data=part10(nodes))


def compressed_later() -> Seed:
    """An image that was compressed without loss after signing."""
    plain = seed("compressed later", image(PIXELS))
    pixels = Node(0x7FE00010, "OB", fragments=(b"", RLE_FRAME))
    nodes = in_order(*(node for node in plain.nodes if node.tag != 0x7FE00010), pixels)
    return replace(plain, transfer_syntax=RLE, nodes=nodes, data=part10(nodes, RLE))


def private_block(vr: str) -> Nodes:
    """Private elements, of a creator that dictionaries know and of one that they do not."""
    return (
        text(0x00090010, "LO", "SOMEONE"),
        Node(0x00091001, vr, b"\1\2"),
        text(0x00290010, "LO", "SIEMENS CSA HEADER"),
        Node(0x00291008, "CS", b"IMAGE "),
    )


def encapsulated() -> tuple[Seed, ...]:
    """Frames in fragments, with tables and without."""
    two_rle = (RLE_FRAME, RLE_FRAME)
    two_jpeg = (JPEG_START, bytes(6), JPEG_START, b"ab")
    two_jpeg_2000 = (b"\xff\x4f\xff\x51" + bytes(8), b"\xff\x4f\xff\x51" + bytes(4))
    size = len(RLE_FRAME) + 8
    extended = (
        Node(0x7FE00001, "OV", struct.pack("<QQ", 0, 20)),
        Node(0x7FE00002, "OV", struct.pack("<QQ", 12, 8)),
        Node(0x7FE00003, "UV", struct.pack("<Q", 20)),
    )
    kinds: tuple[tuple[str, str, tuple[bytes, ...], tuple[Node, ...]], ...] = (
        ("RLE", RLE, (b"", RLE_FRAME), ()),
        ("RLE with a table", RLE, (struct.pack("<LL", 0, size), *two_rle), (FRAMES,)),
        ("JPEG", JPEG, (b"", *two_jpeg), (FRAMES,)),
        ("JPEG with a table", JPEG, (struct.pack("<LL", 0, 34), *two_jpeg), (FRAMES,)),
        ("JPEG 2000 with extended tables", JPEG_2000, (b"", *two_jpeg_2000), (FRAMES, *extended)),
    )
    return tuple(
        seed(title, image(*more, Node(0x7FE00010, "OB", fragments=fragments)), syntax)
        for title, syntax, fragments, more in kinds
    )


def in_every_encoding(profile: ProfileName) -> Iterator[Seed]:
    """An image with private elements in every native encoding."""
    for encoding in NATIVE_ENCODINGS:
        yield seed(f"{profile} in {encoding}", image(*private_block("SH"), PIXELS), encoding, profile)


def with_nested_signatures() -> Iterator[Seed]:
    """Items with signatures of their own, beside each other and two levels deep."""
    first, second = signed_item(*report()[-2:]), signed_item(text(0x0040A160, "UT", "x "))
    nested = instance(sequence(CONTENT_SEQUENCE, first, (), second))
    yield seed("nested signatures", nested)
    yield seed("nested signatures in big endian", nested, EXPLICIT_BIG_ENDIAN)
    deeper = (text(0x0040A040, "CS", "X"), nested[-1])
    yield seed("nested signatures alone", instance(sequence(CONTENT_SEQUENCE, deeper)), keys=())


def with_several_signatures() -> Iterator[Seed]:
    """Signatures beside each other, with time stamps and without."""
    several = seed(
        "three signatures", image(PIXELS), keys=(fixed_rsa_key("signer"), fixed_ec_key(), fixed_rsa_key("signer"))
    )
    yield several
    yield stamped(several)
    yield stamped(seed("a report", report()), Recipe(certificate_id="sha512"))


def of_other_kinds() -> Iterator[Seed]:
    """Reports, references to sources, VRs that are not written or not known, changes after signing."""
    yield seed("report", report())
    yield seed("report in implicit VR", report(), IMPLICIT_LITTLE_ENDIAN)
    for encoding in (EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN, DEFLATED_EXPLICIT_LITTLE_ENDIAN):
        yield seed(f"made of others in {encoding}", made_of_others(), encoding)
    yield seed("unknown VRs", of_unknown_vr(), profile=ProfileName.CREATOR_RSA)
    yield seed("signed pixels in implicit VR", with_signed_pixels(), IMPLICIT_LITTLE_ENDIAN)
    yield with_changes_recorded()
    yield compressed_later()
    yield seed("not signed", image(PIXELS), keys=())


@cache
def seeds() -> tuple[Seed, ...]:
    """All of them."""
    return (
        *in_every_encoding(ProfileName.CREATOR_PLUS),
        *in_every_encoding(ProfileName.CREATOR_RSA),
        *encapsulated(),
        *with_nested_signatures(),
        *with_several_signatures(),
        *of_other_kinds(),
    )
