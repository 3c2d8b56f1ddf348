"""The item of the signature: moved content, foreign elements, values that are not what they should be."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives import serialization

from tests.support.attacks.editing import (
    Change,
    in_item,
    in_mac_parameters,
    in_signature,
    one_after_the_other,
    rewritten,
    signature_of,
    top_level,
    with_items,
    with_nodes,
    with_value,
    without,
)
from tests.support.attacks.images import report, slice_signed_twice, slice_with_purpose
from tests.support.attacks.registry import NO_SIGNATURE, Attack, Dcmsign
from tests.support.attacks.resigning import stripped
from tests.support.attacks.signers import hospital_ca, scanner
from tests.support.dicom_tree import DIGITAL_SIGNATURES, MAC_PARAMETERS
from tests.support.raw_dicom import Node, number, text

ACCEPTS = Dcmsign.ACCEPTS
MAC_ID, SIGNATURE_UID, CERTIFICATE_TYPE = 0x04000005, 0x04000100, 0x04000110
CERTIFICATE, SIGNATURE, PURPOSE = 0x04000115, 0x04000120, 0x04000401
CONTENT_SEQUENCE: Final = 0x0040A730
_HIDDEN: Final = ((text(0x0040A160, "UT", "hidden"),),)
FOREIGN = ("integrity: signature-foreign-element",)
MALFORMED = ("integrity: signature-malformed",)


def _moved(data: bytes) -> bytes:
    """The Content Sequence taken out of the data set and put in front of the fields of the signature item."""
    moved = one_after_the_other(
        rewritten(without(CONTENT_SEQUENCE)), in_signature(with_nodes(top_level(data)[CONTENT_SEQUENCE]))
    )
    return moved(data)


def _item_value(tag: int, value: bytes) -> Change:
    return in_signature(with_value(tag, value))


def _longer_signature(data: bytes) -> bytes:
    value = {node.tag: node.value for node in signature_of(data)[1]}[SIGNATURE]
    return _item_value(SIGNATURE, value + b"\0\0")(data)


def _shorter_signature(data: bytes) -> bytes:
    value = {node.tag: node.value for node in signature_of(data)[1]}[SIGNATURE]
    return _item_value(SIGNATURE, value[:-2])(data)


def _certificate(of_scanner: bytes) -> Change:
    return _item_value(CERTIFICATE, of_scanner + b"\0" * (len(of_scanner) % 2))


def _two_certificates(data: bytes) -> bytes:
    ca = hospital_ca().certificate.public_bytes(serialization.Encoding.DER)
    return _certificate(scanner().certificate_der + ca)(data)


def _in_ber(data: bytes) -> bytes:
    """The length of the certificate in three bytes instead of two."""
    encoded = scanner().certificate_der
    return _certificate(b"\x30\x83\0" + encoded[2:4] + encoded[4:])(data)


_MOVED_AND_FOREIGN: Final = (
    Attack(
        "content-moved-into-the-signature-item",
        "The findings of a report are moved from the report into its signature item, where no viewer looks; the bytes "
        "that are hashed stay the same.",
        _moved,
        FOREIGN,
        ACCEPTS,
        report,
    ),
    Attack(
        "foreign-element-in-the-signature-item",
        "Text is added to the signature item.",
        in_signature(with_nodes(text(0x04000600, "CS", "LOCAL"))),
        FOREIGN,
    ),
    Attack(
        "foreign-element-in-the-mac-parameters",
        "Text is added to the MAC parameters, which no signature covers.",
        in_mac_parameters(with_nodes(text(0x04000600, "CS", "LOCAL"))),
        ("integrity: mac-parameters-missing", "instance: mac-parameters-malformed"),
        ACCEPTS,
    ),
    Attack(
        "hidden-in-the-signature-item",
        "A second pair of signature sequences is hidden inside the signature item, with any content.",
        in_signature(with_nodes(Node(DIGITAL_SIGNATURES, "SQ", items=_HIDDEN))),
        FOREIGN,
    ),
    Attack(
        "hidden-in-the-mac-parameters",
        "The same inside the MAC parameters.",
        in_mac_parameters(with_nodes(Node(MAC_PARAMETERS, "SQ", items=_HIDDEN))),
        ("integrity: mac-parameters-missing", "instance: mac-parameters-malformed"),
        ACCEPTS,
    ),
    Attack(
        "element-twice-in-the-signature-item",
        "The signature item holds two certificates as two elements.",
        in_signature(lambda item: (*item[:5], item[4], *item[5:])),
        ("refused: tag-duplicate",),
        ACCEPTS,
    ),
    Attack(
        "element-of-the-signature-with-another-vr",
        "The signature UID is stored with a VR that it cannot have.",
        in_signature(lambda item: tuple(_as_lo(node) if node.tag == SIGNATURE_UID else node for node in item)),
        MALFORMED,
    ),
    Attack(
        "signatures-in-no-sequence",
        "Digital Signatures Sequence is stored as plain bytes: programs that look for a sequence see none.",
        rewritten(with_nodes(Node(DIGITAL_SIGNATURES, "OB", b"\0\0"))),
        ("refused: signature-sequence-malformed",),
    ),
    Attack(
        "purpose-changed",
        "The stated purpose of the signature is changed from source to review.",
        in_signature(in_item(PURPOSE, with_value(0x00080100, b"13"))),
        ("integrity: signature-wrong",),
        honest=slice_with_purpose,
    ),
    Attack(
        "unknown-vr-in-the-purpose",
        "A long code is added to the purpose of the signature with unknown VR, which is never hashed.",
        in_signature(in_item(PURPOSE, with_nodes(Node(0x00080119, "UN", b"review")))),
        ("integrity: signature-foreign-element",),
        honest=slice_with_purpose,
    ),
)


def _as_lo(node: Node) -> Node:
    return Node(node.tag, "LO", node.value)


_VALUES: Final = (
    Attack("signature-emptied", "The signature itself is taken out.", _item_value(SIGNATURE, b""), MALFORMED),
    Attack(
        "signature-of-zeros",
        "The signature is overwritten with zeros.",
        _item_value(SIGNATURE, bytes(384)),
        ("integrity: signature-wrong",),
    ),
    Attack("signature-cut-off", "The last bytes of the signature are missing.", _shorter_signature, MALFORMED),
    Attack("more-behind-the-signature", "Two bytes follow the signature.", _longer_signature, MALFORMED),
    Attack("certificate-emptied", "The certificate is taken out.", _item_value(CERTIFICATE, b""), MALFORMED),
    Attack(
        "certificate-that-is-none",
        "Something else stands in the place of the certificate.",
        _item_value(CERTIFICATE, b"\x30\x02\x05\x00"),
        ("integrity: certificate-malformed",),
    ),
    Attack(
        "two-certificates",
        "The CA certificate follows that of the signer; PS3.15 C.1 has room for one, and programs differ in which they "
        "take.",
        _two_certificates,
        ("integrity: certificate-malformed",),
        ACCEPTS,
    ),
    Attack(
        "certificate-in-ber",
        "The certificate is encoded in another way than DER, so that its fingerprint is another.",
        _in_ber,
        ("integrity: certificate-malformed",),
        ACCEPTS,
    ),
    Attack(
        "certificate-type-changed",
        "Certificate Type says that the certificate is of another kind.",
        _item_value(CERTIFICATE_TYPE, b"X509_2042_SIG "),
        ("integrity: certificate-wrong-type",),
    ),
    Attack(
        "signature-uid-changed",
        "The signature gets another UID, so that it is counted twice.",
        _item_value(SIGNATURE_UID, b"2.25.6666\0"),
        ("integrity: signature-wrong",),
    ),
)

_REMOVED_AND_SHARED: Final = (
    Attack(
        "stripped",
        "The signature is removed without a trace. A file cannot tell that it was signed; a recipient who expects "
        "signatures, or who saw this one, can.",
        stripped,
        (NO_SIGNATURE,),
    ),
    Attack(
        "stripped-but-for-the-mac-parameters",
        "The signature is removed, and the MAC parameters are forgotten.",
        rewritten(without(DIGITAL_SIGNATURES)),
        (NO_SIGNATURE, "instance: signature-removed"),
    ),
    Attack(
        "signature-sequence-emptied",
        "Digital Signatures Sequence is there and holds nothing.",
        rewritten(with_items(DIGITAL_SIGNATURES, lambda _: ())),
        (NO_SIGNATURE, "instance: signature-removed"),
    ),
    Attack(
        "one-of-two-signatures-removed",
        "Of two signatures one is removed, and its MAC parameters are forgotten.",
        rewritten(with_items(DIGITAL_SIGNATURES, lambda items: items[:1])),
        ("instance: signature-removed",),
        ACCEPTS,
        slice_signed_twice,
    ),
    Attack(
        "mac-parameters-removed",
        "The MAC parameters are removed, so that nobody knows what was signed.",
        rewritten(without(MAC_PARAMETERS)),
        ("integrity: mac-parameters-missing",),
    ),
    Attack(
        "mac-parameters-twice",
        "Two items of MAC parameters have the number that the signature names.",
        rewritten(with_items(MAC_PARAMETERS, lambda items: items * 2)),
        ("integrity: mac-parameters-missing",),
        ACCEPTS,
    ),
    Attack(
        "mac-id-changed",
        "The MAC parameters get another number than the signature names.",
        in_mac_parameters(with_nodes(number(MAC_ID, 7))),
        ("integrity: mac-parameters-missing",),
    ),
    Attack(
        "mac-id-of-another-signature",
        "A signature is made to point to the MAC parameters of another one.",
        rewritten(in_item(DIGITAL_SIGNATURES, with_nodes(number(MAC_ID, 1)))),
        ("integrity: signature-wrong",),
        honest=slice_signed_twice,
    ),
    Attack(
        "two-signatures-with-one-uid",
        "A signature is there twice: whoever refers to it by its UID means both.",
        rewritten(with_items(DIGITAL_SIGNATURES, lambda items: items * 2)),
        ("instance: signature-uid-duplicate",),
        ACCEPTS,
    ),
    Attack(
        "signature-copied-a-hundred-times",
        "The signature is copied a hundred times, and each copy has to be checked.",
        rewritten(with_items(DIGITAL_SIGNATURES, lambda items: items * 100)),
        ("refused: too-many-signatures",),
        ACCEPTS,
    ),
)

ATTACKS: Final = (*_MOVED_AND_FOREIGN, *_VALUES, *_REMOVED_AND_SHARED)
