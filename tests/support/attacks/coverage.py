"""What a signature does not cover: added, left out, or outside of the minimum of PS3.15 C.2."""

from __future__ import annotations

from typing import Final

from tests.support.attacks.editing import (
    in_item,
    meta_rewritten,
    one_after_the_other,
    rewritten,
    with_nodes,
    with_unknown_vr,
    with_value,
    without,
)
from tests.support.attacks.images import SLICE, equipment, reference, report, slice_under_c_2
from tests.support.attacks.registry import Attack, Dcmsign
from tests.support.attacks.resigning import resigned_by_hand
from tests.support.attacks.signers import scanner
from tests.support.raw_dicom import Node, number, text

ACCEPTS = Dcmsign.ACCEPTS
NOT_COVERED = ("coverage: element-not-covered",)
UNSIGNABLE = ("integrity: signed-element-unsignable",)
_UIDS: Final = (0x00080016, 0x00080018, 0x0020000D, 0x0020000E)


def _added(name: str, what: str, *nodes: Node, findings: tuple[str, ...] = NOT_COVERED, seen: bool = False) -> Attack:
    """Elements added to a signed image; `seen` tells whether dcmsign takes notice."""
    return Attack(name, what, rewritten(with_nodes(*nodes)), findings, Dcmsign.REFUSES if seen else ACCEPTS)


_ADDED: Final = (
    _added(
        "overlay-added",
        "Graphics are laid over the image in an overlay that was not there; the profile check of dcmsign looks at the "
        "first overlay only.",
        *(number(0x60020010, 4), number(0x60020011, 4), Node(0x60023000, "OW", b"\xff\xff")),
        findings=("coverage: overlay-not-covered",),
    ),
    _added(
        "last-overlay-added",
        "The same in the last overlay that there can be.",
        Node(0x60FE3000, "OW", b"\xff\xff"),
        findings=("coverage: overlay-not-covered",),
    ),
    _added(
        "curve-added",
        "A curve (retired) is laid over the image.",
        Node(0x50023000, "OW", b"\xff\xff"),
        seen=True,
    ),
    _added(
        "attribute-of-c-2-added",
        "Software Versions is added, which C.2 would have covered. Some archives supplement it without ill intent.",
        text(0x00181020, "LO", "9.9"),
        seen=True,
    ),
    _added(
        "attribute-beyond-c-2-added",
        "Imager Pixel Spacing is added, by which many viewers measure; C.2 does not know it.",
        text(0x00181164, "DS", "9\\9"),
    ),
    _added(
        "attribute-of-a-later-edition-added",
        "An attribute is added that no dictionary knows yet.",
        text(0x0018FFF0, "LO", "invented"),
    ),
    _added(
        "look-up-table-added",
        "A VOI LUT is added that makes everything black.",
        Node(0x00283010, "SQ", items=((Node(0x00283002, "US", b"\1\0\0\0\20\0"), Node(0x00283006, "OW", bytes(2))),)),
    ),
    _added(
        "icon-added",
        "An icon of another image is added, which programs show in their lists.",
        Node(0x00880200, "SQ", items=((number(0x00280010, 1), Node(0x7FE00010, "OW", b"\xff\xff")),)),
        seen=True,
    ),
    _added(
        "known-attribute-as-unknown-vr",
        "Imager Pixel Spacing is added with unknown VR; pydicom restores the VR and shows it as if it had always been "
        "there.",
        Node(0x00181164, "UN", b"9\\9 "),
        findings=("coverage: element-unsignable",),
    ),
    _added(
        "known-sequence-as-unknown-vr",
        "The same with a sequence: Source Image Sequence, with another source.",
        Node(0x00082112, "UN", items=(reference("2.25.66"),), undefined_length=True),
        findings=("coverage: element-unsignable",),
        seen=True,
    ),
    _added(
        "float-pixel-data-added",
        "Float Pixel Data is added beside Pixel Data: which one is shown depends on the program.",
        Node(0x7FE00008, "OF", bytes(64)),
        findings=("coverage: pixel-data-not-covered",),
    ),
    _added(
        "double-float-pixel-data-added",
        "The same with Double Float Pixel Data.",
        Node(0x7FE00009, "OD", bytes(128)),
        findings=("coverage: pixel-data-not-covered",),
    ),
)

_CHANGED: Final = (
    Attack(
        "signed-attribute-to-unknown-vr",
        "A signed attribute keeps its value and gets unknown VR: a program that goes by the VR takes no notice of it "
        "any more, here of the distance between the pixels.",
        rewritten(with_unknown_vr(0x00280030)),
        UNSIGNABLE,
    ),
    Attack(
        "signed-attribute-of-unknown-vr-changed",
        "The same, and the value is another one.",
        rewritten(with_nodes(Node(0x00280030, "UN", b"9\\9 "))),
        UNSIGNABLE,
    ),
    Attack(
        "signed-report-to-unknown-vr",
        "The same with the Content Sequence of a report, which some programs show as empty then.",
        rewritten(with_unknown_vr(0x0040A730)),
        UNSIGNABLE,
        ACCEPTS,
        report,
    ),
    Attack(
        "signed-attribute-of-an-item-to-unknown-vr",
        "The same with the text in an item of that report.",
        rewritten(in_item(0x0040A730, with_unknown_vr(0x0040A160))),
        UNSIGNABLE,
        honest=report,
    ),
    Attack(
        "signed-attribute-removed",
        "A signed attribute is removed: the orientation of the patient.",
        rewritten(without(0x00200037)),
        ("integrity: signed-element-absent",),
    ),
    Attack(
        "character-set-changed",
        "Specific Character Set is changed, so that the same bytes read as other words.",
        rewritten(with_value(0x00080005, b"ISO_IR 144")),
        ("integrity: signature-wrong",),
    ),
    Attack(
        "institution-changed",
        "The image is passed off as that of another hospital.",
        rewritten(with_value(0x00080080, b"Other Hospital")),
        ("integrity: signature-wrong",),
    ),
    Attack(
        "pixel-spacing-changed-under-c-2",
        "The minimum of C.2 leaves Pixel Spacing open: a tumour of two centimetres becomes one of one.",
        rewritten(with_value(0x00280030, b"0.25\\0.25 ")),
        NOT_COVERED,
        ACCEPTS,
        slice_under_c_2,
        known=NOT_COVERED,
    ),
    Attack(
        "image-mirrored-under-c-2",
        "It leaves Image Orientation open as well: left becomes right.",
        rewritten(with_value(0x00200037, b"-1\\0\\0\\0\\1\\0")),
        NOT_COVERED,
        ACCEPTS,
        slice_under_c_2,
        known=NOT_COVERED,
    ),
)

_LEFT_OUT: Final = (
    Attack(
        "pixel-data-never-signed",
        "A signer covers everything but the pixels.",
        resigned_by_hand(scanner, tags=[node.tag for node in SLICE if node.tag not in {0x00091001, 0x7FE00010}]),
        ("coverage: pixel-data-not-covered",),
    ),
    Attack(
        "only-uids-signed",
        "A signer covers the UIDs and nothing else.",
        resigned_by_hand(scanner, tags=_UIDS),
        ("coverage: pixel-data-not-covered", "coverage: overlay-not-covered", "identity: identity-not-covered"),
    ),
    Attack(
        "mandatory-uids-missing",
        "There is no SOP Class, SOP Instance, Study and Series Instance UID, so that the signature fits any image.",
        one_after_the_other(
            rewritten(without(*_UIDS)), meta_rewritten(without(0x00020002, 0x00020003)), resigned_by_hand(scanner)
        ),
        ("coverage: instance-not-named",),
    ),
    Attack(
        "signature-of-an-item-at-the-top",
        "An item that describes the scanner was signed on its own; item and signature are passed off as an image.",
        one_after_the_other(
            rewritten(lambda _: equipment()), meta_rewritten(without(0x00020002, 0x00020003)), resigned_by_hand(scanner)
        ),
        ("coverage: instance-not-named",),
    ),
)

ATTACKS: Final = (*_ADDED, *_CHANGED, *_LEFT_OUT)
