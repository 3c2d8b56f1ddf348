"""A second opinion on the bytes a DICOM signature covers.

Written from the rules of PS3.3 C.12.1.1.3.1.1 and .2 alone and sharing nothing with the product: it writes the stream
from a tree of elements, one element after the other. Nothing here is clever enough to be wrong as a fast encoder may
be.

    instance = parse(signed_file)
    for signature in signatures(instance.elements):
        assert signature.stream_digest() == signature.recovered_digest()
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.support.dicom_tree import (
    DIGITAL_SIGNATURES,
    ITEM,
    ITEM_END,
    MAC_PARAMETERS,
    SEQUENCE_END,
    SHORT_VRS,
    Element,
    Elements,
    find,
    number,
    tag_bytes,
    value,
)

UNSIGNED_TAGS: Final = frozenset({0x00080001, MAC_PARAMETERS, 0xFFFCFFFC, ITEM_END, SEQUENCE_END})
UNSIGNED_IN_SIGNATURE_ITEM: Final = frozenset({0x04000115, 0x04000120, 0x04000305, 0x04000310})
HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "SHA256": hashes.SHA256(),
    "SHA384": hashes.SHA384(),
    "SHA512": hashes.SHA512(),
}


@dataclass(frozen=True)
class Signature:
    """One signature of a data set or item, and the stream its MAC must cover."""

    stream: bytes
    mac_id: int
    hash_name: str
    mac_transfer_syntax: str
    tags: tuple[int, ...]
    signature: bytes
    certificate: bytes

    def recovered_digest(self) -> bytes:
        """The digest inside the RSA signature (RFC 8017 8.2.2), opened with the certificate's key."""
        key = x509.load_der_x509_certificate(without_der_padding(self.certificate)).public_key()
        if not isinstance(key, rsa.RSAPublicKey):
            raise TypeError(f"not an RSA certificate but {type(key).__name__}")
        return key.recover_data_from_signature(self.signature, padding.PKCS1v15(), HASHES[self.hash_name])

    def stream_digest(self) -> bytes:
        """The digest the signature should hold."""
        context = hashes.Hash(HASHES[self.hash_name])
        context.update(self.stream)
        return context.finalize()


def without_der_padding(der: bytes) -> bytes:
    """Cut the byte that makes a DER value even in length."""
    if der[1] < 0x80:
        return der[: 2 + der[1]]
    octets = der[1] & 0x7F
    return der[: 2 + octets + int.from_bytes(der[2 : 2 + octets], "big")]


def is_signable(element: Element) -> bool:
    """Tell whether a signature may cover the element (PS3.3 C.12.1.1.3.1.2)."""
    if element.tag in UNSIGNED_TAGS or element.tag & 0xFFFF == 0:
        return False
    if element.tag >> 16 < 0x0008 or element.tag >> 16 == 0xFFFA:
        return False
    return not holds_unknown_vr(element)


def holds_unknown_vr(element: Element) -> bool:
    """Tell whether the element is UN or a sequence with UN somewhere inside."""
    return element.vr == "UN" or any(holds_unknown_vr(child) for item in element.items or () for child in item)


def element_stream(element: Element) -> bytes:
    """The bytes one element adds to the stream, whatever encoding it was read from."""
    head = tag_bytes(element.tag) + element.vr.encode("ascii")
    if element.items is not None:
        inside = b"".join(tag_bytes(ITEM) + item_stream(item) for item in element.items)
        return head + b"\0\0" + inside + tag_bytes(SEQUENCE_END)
    if element.fragments is not None:
        inside = b"".join(tag_bytes(ITEM) + fragment for fragment in element.fragments)
        return head + b"\0\0" + inside + tag_bytes(SEQUENCE_END)
    if element.vr in SHORT_VRS:
        return head + struct.pack("<H", len(element.value)) + element.value
    return head + b"\0\0" + struct.pack("<L", len(element.value)) + element.value


def item_stream(item: Elements) -> bytes:
    """The bytes of an item's elements without those that are never signed."""
    return b"".join(element_stream(element) for element in item if is_signable(element))


def mac_stream(elements: Elements, tags: Collection[int], signature_item: Elements) -> bytes:
    """The exact bytes the MAC covers.

    Args:
        elements: The data set, or the item that holds a nested signature.
        tags: The Data Elements Signed (0400,0020), in any order.
        signature_item: The item of (FFFA,FFFA); it need not hold certificate and signature yet.
    """
    signed = b"".join(element_stream(element) for element in elements if element.tag in tags)
    own = (element for element in signature_item if element.tag not in UNSIGNED_IN_SIGNATURE_ITEM)
    return signed + b"".join(element_stream(element) for element in own)


def signatures(elements: Elements) -> tuple[Signature, ...]:
    """The signatures of one data set or item, in the order of (FFFA,FFFA); nested ones are not looked for."""
    sequence = find(elements, DIGITAL_SIGNATURES)
    return tuple(signature_of(elements, item) for item in (sequence and sequence.items) or ())


def signature_of(elements: Elements, item: Elements) -> Signature:
    """One signature with its item of (4FFE,0001)."""
    sequence = find(elements, MAC_PARAMETERS)
    parameters = {number(each, 0x04000005): each for each in (sequence and sequence.items) or ()}
    mac = parameters[number(item, 0x04000005)]
    tags = tuple(group << 16 | element for group, element in struct.iter_unpack("<HH", value(mac, 0x04000020)))
    return Signature(
        stream=mac_stream(elements, set(tags), item),
        mac_id=number(item, 0x04000005),
        hash_name=value(mac, 0x04000015).decode("ascii").strip(),
        mac_transfer_syntax=value(mac, 0x04000010).decode("ascii").rstrip("\0"),
        tags=tags,
        signature=value(item, 0x04000120),
        certificate=value(item, 0x04000115),
    )


def signable_tags(elements: Elements) -> tuple[int, ...]:
    """All tags a signature without profile would list."""
    return tuple(element.tag for element in elements if is_signable(element))
