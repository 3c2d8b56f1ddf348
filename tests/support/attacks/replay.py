"""What is right in one place, put into another: between patients, between instances, between the parts of one."""

from __future__ import annotations

from functools import cache
from typing import Final

from tests.support.attacks.editing import (
    Change,
    in_item,
    in_signature,
    one_after_the_other,
    rewritten,
    signature_of,
    top_level,
    with_items,
    with_nodes,
    with_signature_of,
    with_value,
)
from tests.support.attacks.forging import signed_by_hand
from tests.support.attacks.images import content_item, other_slice, report, signed
from tests.support.attacks.registry import Attack
from tests.support.attacks.resigning import stripped
from tests.support.attacks.signers import scanner
from tests.support.dicom_tree import DIGITAL_SIGNATURES
from tests.support.raw_dicom import Node, Nodes

WRONG = ("integrity: signature-wrong",)
NESTED_WRONG = ("nested integrity: signature-wrong",)
CONTENT_SEQUENCE, PIXEL_DATA, SIGNATURE = 0x0040A730, 0x7FE00010, 0x04000120


def _of_the_other(*tags: int) -> Change:
    """Elements of the slice of the other patient in place of one's own."""

    def of_file(data: bytes) -> bytes:
        other = top_level(other_slice())
        return rewritten(with_nodes(*(other[tag] for tag in tags)))(data)

    return of_file


def _value_of_the_other(data: bytes) -> bytes:
    """The signature value, and only that, of the other slice."""
    value = {node.tag: node.value for node in signature_of(other_slice())[1]}[SIGNATURE]
    return in_signature(with_value(SIGNATURE, value))(data)


@cache
def _report_with_signed_finding() -> bytes:
    """A report whose first finding has a signature of its own."""
    items = (signed_by_hand(content_item("No tumour."), scanner()), content_item("No metastases."))
    return signed(rewritten(with_nodes(Node(CONTENT_SEQUENCE, "SQ", items=items)))(stripped(report())))


def _signature_moved(items: tuple[Nodes, ...]) -> tuple[Nodes, ...]:
    """The signature of the first finding put into the second one."""
    first, second = items
    content = [node for node in first if node.tag >> 16 == 0x0040]
    return tuple(content), (*second, *(node for node in first if node not in content))


_BETWEEN_PATIENTS: Final = (
    Attack(
        "pixels-of-another-patient",
        "The pixels of another patient, signed by the same scanner, are put into the image.",
        _of_the_other(PIXEL_DATA),
        WRONG,
    ),
    Attack(
        "signature-of-another-image",
        "An image gets the whole signature of another one, MAC parameters included.",
        with_signature_of(other_slice),
        WRONG,
    ),
    Attack(
        "signature-value-of-another-image",
        "Only the value of the signature comes from another image.",
        _value_of_the_other,
        WRONG,
    ),
    Attack(
        "pixels-and-signature-of-another-patient",
        "Pixels and signature of another patient are put into the image.",
        one_after_the_other(_of_the_other(PIXEL_DATA), with_signature_of(other_slice)),
        WRONG,
    ),
    Attack(
        "passed-off-as-another-instance",
        "The image gets the SOP Instance UID of another one, to take its place in the archive.",
        rewritten(with_value(0x00080018, b"2.25.5")),
        (*WRONG, "instance: meta-contradicts"),
    ),
    Attack(
        "moved-to-another-study",
        "The image is filed in the study of another patient.",
        rewritten(with_value(0x0020000D, b"2.25.66\0")),
        WRONG,
    ),
    Attack(
        "moved-to-another-series",
        "The image is filed in another series: before the contrast agent instead of after.",
        rewritten(with_value(0x0020000E, b"2.25.66\0")),
        WRONG,
    ),
)

_BETWEEN_PARTS: Final = (
    Attack(
        "findings-exchanged",
        "Two findings of a report change places.",
        rewritten(with_items(CONTENT_SEQUENCE, lambda items: items[::-1])),
        WRONG,
        honest=report,
    ),
    Attack(
        "finding-removed",
        "A finding is removed from a report.",
        rewritten(with_items(CONTENT_SEQUENCE, lambda items: items[:1])),
        WRONG,
        honest=report,
    ),
    Attack(
        "signed-finding-changed",
        "A finding that has a signature of its own is changed.",
        rewritten(in_item(CONTENT_SEQUENCE, with_value(0x0040A160, b"Large tumour. "))),
        (*WRONG, *NESTED_WRONG),
        honest=_report_with_signed_finding,
    ),
    Attack(
        "signature-of-a-finding-moved",
        "The signature of one finding is put into another one. That of the report does not cover signatures inside of "
        "it, so it holds.",
        rewritten(with_items(CONTENT_SEQUENCE, _signature_moved)),
        NESTED_WRONG,
        honest=_report_with_signed_finding,
    ),
    Attack(
        "signature-of-a-finding-broken",
        "The signature of a finding is overwritten; that of the report holds.",
        rewritten(in_item(CONTENT_SEQUENCE, in_item(DIGITAL_SIGNATURES, with_value(SIGNATURE, bytes(384))))),
        NESTED_WRONG,
        honest=_report_with_signed_finding,
    ),
)

ATTACKS: Final = (*_BETWEEN_PATIENTS, *_BETWEEN_PARTS)
