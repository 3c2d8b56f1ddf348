"""Instances of a few megabytes that are made to cost a verifier much: many items, many signatures, deep nesting.

All are well-formed. Their signatures do not verify, which nobody can know before the MAC is computed.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.x509.oid import NameOID

from enroll.der import SEQUENCE, encode
from tests.support.dicom_samples import explicit, raw_instance
from tests.support.dicom_tree import (
    DEFLATED_EXPLICIT_LITTLE_ENDIAN,
    DIGITAL_SIGNATURES,
    EXPLICIT_LITTLE_ENDIAN,
    ITEM,
    MAC_PARAMETERS,
    SEQUENCE_END,
    SHORT_VRS,
    UNDEFINED,
    tag_bytes,
)
from tests.support.fixed_keys import fixed_rsa_key
from tests.support.golden_objects import CONTENT_SEQUENCE
from tests.support.provenance import mac_item
from tests.support.raw_dicom import Node, deflated, instance, number, text
from tests.support.signed_seeds import EQUIPMENT, IMAGE, RLE, signer_certificate

SOP_INSTANCE_UID: Final = 0x00080018
PIXEL_DATA: Final = 0x7FE00010
MOST_SIGNATURES: Final = 20
MANY: Final = 900_000  # items; a reader takes a million
LEAF: Final = explicit((text(0x0040A040, "CS", "X "),))

SHA_256_WITH_RSA: Final = bytes.fromhex("300d06092a864886f70d01010b0500")


# --- bytes ---


def item(content: bytes = b"") -> bytes:
    """An item of defined length."""
    return tag_bytes(ITEM) + struct.pack("<L", len(content)) + content


def sequence(tag: int, content: bytes) -> bytes:
    """A sequence of defined length."""
    return tag_bytes(tag) + b"SQ\0\0" + struct.pack("<L", len(content)) + content


def element(tag: int, vr: str, value: bytes) -> bytes:
    """An element in explicit VR little endian."""
    length = struct.pack("<H", len(value)) if vr in SHORT_VRS else struct.pack("<HL", 0, len(value))
    return tag_bytes(tag) + vr.encode("ascii") + length + value


def fragments(*contents: bytes) -> bytes:
    """Encapsulated Pixel Data with an empty Basic Offset Table."""
    header = tag_bytes(PIXEL_DATA) + b"OB\0\0" + struct.pack("<L", UNDEFINED)
    return b"".join((header, item(), *contents, tag_bytes(SEQUENCE_END) + bytes(4)))


def nested(depth: int, content: bytes) -> bytes:
    """Content Sequences inside each other, around some content."""
    for _ in range(depth):
        content = sequence(CONTENT_SEQUENCE, item(content))
    return content


def empty_elements(group: int) -> bytes:
    """Private elements without a value."""
    return b"".join(struct.pack("<HH", group, number) + b"SH\0\0" for number in range(0x1000, 0xF000))


# --- signatures ---


@cache
def certificate(subject: bytes = b"") -> bytes:
    """The certificate of a scanner, or one for the same key with another subject in DER; padded to even length."""
    original = signer_certificate(fixed_rsa_key("signer"))
    content = original.tbs_certificate_bytes
    if subject:
        content = encode(SEQUENCE, content[4:].replace(original.subject.public_bytes(), subject))
    signature = fixed_rsa_key("authority").sign(content, padding.PKCS1v15(), hashes.SHA256())
    whole = encode(SEQUENCE, content + SHA_256_WITH_RSA + encode(0x03, b"\0" + signature))
    return whole + b"\0" * (len(whole) % 2)


def signed(
    parts: Mapping[int, bytes],
    *tags: int,
    count: int = 1,
    syntax: str = EXPLICIT_LITTLE_ENDIAN,
    subjects: Sequence[bytes] = (b"",),
    more: bytes = b"",
) -> bytes:
    """The bytes of a data set or item, with signatures that do not verify.

    Args:
        parts: Its elements, by tag.
        tags: What each signature lists.
        count: How many there are.
        syntax: MAC Calculation Transfer Syntax UID.
        subjects: Of the certificates in turn, in DER.
        more: What stands at the end of each signature item.
    """
    parameters = b"".join(item(_parameters(mac_id, tags, syntax)) for mac_id in range(count))
    signatures = (
        item(_signature(mac_id, certificate(subjects[mac_id % len(subjects)])) + more) for mac_id in range(count)
    )
    whole = {
        **parts,
        MAC_PARAMETERS: sequence(MAC_PARAMETERS, parameters),
        DIGITAL_SIGNATURES: sequence(DIGITAL_SIGNATURES, b"".join(signatures)),
    }
    return b"".join(whole[tag] for tag in sorted(whole))


def _parameters(mac_id: int, tags: Iterable[int], syntax: str) -> bytes:
    nodes = (
        number(0x04000005, mac_id),
        text(0x04000010, "UI", syntax),
        text(0x04000015, "CS", "SHA512"),
        Node(0x04000020, "AT", b"".join(map(tag_bytes, tags))),
    )
    return explicit(nodes)


def _signature(mac_id: int, signer: bytes) -> bytes:
    nodes = (
        number(0x04000005, mac_id),
        text(0x04000100, "UI", f"2.25.{mac_id + 500}"),
        text(0x04000105, "DT", "20261101120000.000000+0000"),
        text(0x04000110, "CS", "X509_1993_SIG"),
        Node(0x04000115, "OB", signer),
        Node(0x04000120, "OB", b"\1" * 256),
    )
    return explicit(nodes)


# --- instances ---


def image() -> dict[int, bytes]:
    """The elements of an image without pixels, by tag."""
    return {node.tag: explicit((node,)) for node in instance(*EQUIPMENT, *IMAGE)}


def with_sequence(tag: int, content: bytes, count: int = 1) -> bytes:
    """An image with a sequence, which its signatures cover."""
    return raw_instance(signed(image() | {tag: sequence(tag, content)}, SOP_INSTANCE_UID, tag, count=count))


def signed_item() -> bytes:
    """An item with a signature of its own."""
    return item(signed({0x0040A040: LEAF}, 0x0040A040))


def nested_signatures(depth: int, neighbours: int) -> bytes:
    """Signed items at a depth, with many others before them."""
    content = item(sequence(CONTENT_SEQUENCE, item() * neighbours)) + signed_item() * MOST_SIGNATURES
    for _ in range(depth):
        content = item(sequence(CONTENT_SEQUENCE, content))
    return with_sequence(CONTENT_SEQUENCE, content)


def signatures_around_signatures(content: bytes) -> bytes:
    """Items inside each other, each with all the signatures that it may have."""
    whole = signed({CONTENT_SEQUENCE: content}, CONTENT_SEQUENCE, count=MOST_SIGNATURES)
    for _ in range(MOST_SIGNATURES - 1):
        parts = {CONTENT_SEQUENCE: sequence(CONTENT_SEQUENCE, item(whole))}
        whole = signed(parts, CONTENT_SEQUENCE, count=MOST_SIGNATURES)
    return with_sequence(CONTENT_SEQUENCE, item(whole), count=MOST_SIGNATURES)


def left_out(groups: int) -> bytes:
    """Private elements that none of many signatures covers, 57,344 in a group."""
    parts = image() | {group << 16: empty_elements(group) for group in range(0x0011, 0x0011 + 2 * groups, 2)}
    return raw_instance(signed(parts, SOP_INSTANCE_UID, count=MOST_SIGNATURES))


def in_many_fragments(transfer_syntax: str, frames: int, content: bytes) -> bytes:
    """Pixel Data in very small fragments, with many signatures."""
    parts = image() | {
        0x00280008: element(0x00280008, "IS", f"{frames:6}".encode("ascii")),
        PIXEL_DATA: fragments(item(content) * MANY),
    }
    return raw_instance(signed(parts, PIXEL_DATA, count=MOST_SIGNATURES, syntax=transfer_syntax), transfer_syntax)


def compressed_later(count: int, frames: int = 340) -> bytes:
    """An image, of 255 MB if nothing else is wanted, under signatures that were made before it was compressed."""
    size = 512
    runs = b"\x81\x40" * (size * size // 128)  # PS3.5 G.3.1: the same byte 128 times
    offsets = (64 + at * len(runs) for at in range(3))
    frame = struct.pack("<LLLL", 3, *offsets) + bytes(48) + runs * 3
    changes = (
        number(0x00280002, 3),
        text(0x00280004, "CS", "RGB"),
        number(0x00280006, 0),
        text(0x00280008, "IS", str(frames)),
        number(0x00280010, size),
        number(0x00280011, size),
        number(0x00280101, 7),
        number(0x00280103, 1),
    )
    parts = image() | {node.tag: explicit((node,)) for node in changes} | {PIXEL_DATA: fragments(item(frame) * frames)}
    return raw_instance(signed(parts, PIXEL_DATA, count=count), RLE)


def many_purposes(count: int) -> bytes:
    """A signature that states many purposes."""
    return raw_instance(signed(image(), SOP_INSTANCE_UID, more=sequence(0x04000401, item() * count)))


def combining_characters() -> bytes:
    """Names that are nothing but accents in the wrong order, and many certificates to compare them with."""
    accents = ("\N{COMBINING ACUTE ACCENT}" * 16_000 + "\N{COMBINING GRAVE ACCENT BELOW}" * 16_000).encode("utf-8")
    tags = (0x00080070, 0x00080080, 0x00081040, 0x00081090, 0x00181000)
    parts = image() | {0x00080005: element(0x00080005, "CS", b"ISO_IR 192")}
    parts |= {tag: element(tag, "LO", accents) for tag in tags}
    subjects = [_subject(f"A{index}") for index in range(MOST_SIGNATURES)]
    return raw_instance(signed(parts, SOP_INSTANCE_UID, count=MOST_SIGNATURES, subjects=subjects))


def _subject(name: str) -> bytes:
    attributes = {"ORGANIZATION_NAME": name, "ORGANIZATIONAL_UNIT_NAME": name, "SERIAL_NUMBER": name}
    return x509.Name(
        [x509.NameAttribute(getattr(NameOID, kind), value) for kind, value in attributes.items()]
    ).public_bytes()


def inflated_source_macs(count: int) -> bytes:
    """A deflated instance that states the MACs of its sources over very many elements."""
    stated = item(explicit((mac_item(bytes(32), [SOP_INSTANCE_UID] * 16_000),))) * count
    # What inflates more than 200-fold is refused, so noise goes first.
    parts = {
        0x00080082: element(0x00080082, "OB", _noise(len(stated) // 150)),
        0x00082112: sequence(0x00082112, stated),
    }
    return raw_instance(deflated(signed(image() | parts, SOP_INSTANCE_UID)), DEFLATED_EXPLICIT_LITTLE_ENDIAN)


def inflated_pixels(megabytes: int) -> bytes:
    """Deflated pixels, most of them zero and the others noise, with many signatures."""
    block = _noise(7_000).ljust(1 << 20, b"\0")
    parts = image() | {PIXEL_DATA: tag_bytes(PIXEL_DATA) + b"OB\0\0" + struct.pack("<L", megabytes << 20)}
    whole = signed(parts, PIXEL_DATA, count=MOST_SIGNATURES)
    at = whole.index(parts[PIXEL_DATA]) + len(parts[PIXEL_DATA])
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    start = deflater.compress(whole[:at]) + deflater.flush(zlib.Z_FULL_FLUSH)
    # A full flush forgets what came before, so the same compressed block may be repeated.
    middle = deflater.compress(block) + deflater.flush(zlib.Z_FULL_FLUSH)
    end = deflater.compress(whole[at:]) + deflater.flush()
    return raw_instance(start + middle * megabytes + end, DEFLATED_EXPLICIT_LITTLE_ENDIAN)


def _noise(size: int) -> bytes:
    return random.Random(1).randbytes(size & ~1)  # noqa: S311 - the same in every run
