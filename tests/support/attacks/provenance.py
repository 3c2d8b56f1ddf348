"""Why an image was made, and from what: marks that are changed, removed or invented."""

from __future__ import annotations

from typing import Final

from tests.support.attacks.editing import in_item, rewritten, with_nodes, with_unknown_vr, with_value, without
from tests.support.attacks.images import derived_slice, phantom_slice, reference, slice_under_c_2
from tests.support.attacks.registry import Attack, Dcmsign
from tests.support.attacks.resigning import resigned
from tests.support.attacks.signers import MODEL, OWNER, SERIAL, Signer, rsa_key, signer
from tests.support.data_sets import code
from tests.support.pki import name
from tests.support.raw_dicom import Node, text

WRONG = ("integrity: signature-wrong",)
ABSENT = ("integrity: signed-element-absent",)
UNREADABLE = ("integrity: signed-element-unsignable", "instance: attribute-unreadable")
NOT_COVERED = ("coverage: element-not-covered",)
FUNCTION = ("identity: function-mismatch",)
IMAGE_TYPE, SYNTHETIC_DATA, SOURCE_IMAGE_SEQUENCE = 0x00080008, 0x0008001C, 0x00082112


def _key_of(function: str) -> Signer:
    """The scanner with its certificate for derived or synthetic images."""
    names = {"ORGANIZATION_NAME": OWNER, "COMMON_NAME": f"{MODEL} {SERIAL}", "SERIAL_NUMBER": SERIAL}
    return signer(key=rsa_key(SERIAL, 3072), subject=name(**names, ORGANIZATIONAL_UNIT_NAME=function))


ATTACKS: Final = (
    Attack(
        "phantom-passed-off-as-patient",
        "Quality Control Subject is changed: the image of a phantom becomes that of a patient.",
        rewritten(with_value(0x00100200, b"NO")),
        WRONG,
        honest=phantom_slice,
    ),
    Attack(
        "phantom-mark-removed",
        "Quality Control Subject is removed.",
        rewritten(without(0x00100200)),
        ABSENT,
        honest=phantom_slice,
    ),
    Attack(
        "patient-passed-off-as-phantom",
        "The image of a patient is said to be one of a phantom, so that nobody looks at it.",
        rewritten(with_value(0x00100200, b"YES ")),
        WRONG,
    ),
    Attack(
        "artificial-image-passed-off-as-real",
        "Synthetic Data is changed to NO.",
        rewritten(with_value(SYNTHETIC_DATA, b"NO")),
        WRONG,
        honest=phantom_slice,
    ),
    Attack(
        "artificial-mark-removed",
        "Synthetic Data is removed.",
        rewritten(without(SYNTHETIC_DATA)),
        ABSENT,
        honest=phantom_slice,
    ),
    Attack(
        "service-image-passed-off-as-product",
        "Content Qualification is changed: a service image becomes one for diagnosis.",
        rewritten(with_value(0x00189004, b"PRODUCT ")),
        WRONG,
        honest=phantom_slice,
    ),
    Attack(
        "quality-control-mark-removed",
        "Quality Control Image is removed.",
        rewritten(without(0x00280300)),
        ABSENT,
        honest=phantom_slice,
    ),
    Attack(
        "calibration-mark-changed",
        "Calibration Image is changed to NO.",
        rewritten(with_value(0x00500004, b"NO")),
        WRONG,
        honest=phantom_slice,
    ),
    Attack(
        "contributing-equipment-removed",
        "The equipment that took part in making the image is no longer named.",
        rewritten(without(0x0018A001)),
        ABSENT,
        honest=phantom_slice,
    ),
    Attack(
        "derived-passed-off-as-original",
        "Image Type is changed: a processed image becomes an original.",
        rewritten(with_value(IMAGE_TYPE, b"ORIGINAL\\PRIMARY\\AXIAL")),
        WRONG,
        honest=derived_slice,
    ),
    Attack(
        "derivation-description-removed",
        "How the image was processed is no longer said.",
        rewritten(without(0x00082111)),
        ABSENT,
        honest=derived_slice,
    ),
    Attack(
        "source-exchanged",
        "The image is said to have been made of another one.",
        rewritten(in_item(SOURCE_IMAGE_SEQUENCE, with_value(0x00081155, b"2.25.8"))),
        WRONG,
        honest=derived_slice,
    ),
    Attack(
        "source-removed",
        "What the image was made of is no longer said.",
        rewritten(without(SOURCE_IMAGE_SEQUENCE)),
        ABSENT,
        honest=derived_slice,
    ),
    Attack(
        "source-hidden-by-unknown-vr",
        "What the image was made of is still there, under unknown VR: who looks for a sequence finds none.",
        rewritten(with_unknown_vr(SOURCE_IMAGE_SEQUENCE)),
        UNREADABLE,
        Dcmsign.ACCEPTS,
        derived_slice,
    ),
    Attack(
        "source-hidden-in-bytes",
        "The same under the VR OB.",
        rewritten(with_nodes(Node(SOURCE_IMAGE_SEQUENCE, "OB", b"hidden"))),
        ("integrity: signature-wrong", "instance: attribute-unreadable"),
        honest=derived_slice,
    ),
    Attack(
        "image-type-hidden-by-unknown-vr",
        "That the image was processed is still there, under unknown VR.",
        rewritten(with_unknown_vr(IMAGE_TYPE)),
        UNREADABLE,
        honest=derived_slice,
    ),
    Attack(
        "artificial-mark-hidden-by-unknown-vr",
        "Synthetic Data is still there, under unknown VR.",
        rewritten(with_unknown_vr(SYNTHETIC_DATA)),
        UNREADABLE,
        honest=phantom_slice,
    ),
    Attack(
        "source-hidden-by-unknown-vr-under-c-2",
        "A source is named under unknown VR, where the minimum of C.2 leaves it open.",
        rewritten(with_nodes(Node(SOURCE_IMAGE_SEQUENCE, "UN", items=(reference("2.25.66"),), undefined_length=True))),
        ("instance: attribute-unreadable",),
        honest=slice_under_c_2,
        known=NOT_COVERED,
    ),
    Attack(
        "derivation-key-signs-an-original-with-a-description",
        "The key that signs processed images signs one that says it is an original, and describes a derivation.",
        resigned(lambda: _key_of("derivation"), change=with_nodes(text(0x00082111, "ST", "denoised"))),
        FUNCTION,
        Dcmsign.ACCEPTS,
    ),
    Attack(
        "derivation-key-signs-an-original-with-a-code",
        "The same with the code of a derivation.",
        resigned(lambda: _key_of("derivation"), change=with_nodes(code(0x00089215, "113072"))),
        FUNCTION,
        Dcmsign.ACCEPTS,
    ),
    Attack(
        "synthesis-key-signs-an-original-with-a-contribution",
        "The key that signs artificial images signs an original that is said not to be artificial, and names equipment "
        "that made it so.",
        resigned(
            lambda: _key_of("synthesis"),
            change=with_nodes(Node(0x0018A001, "SQ", items=((code(0x0040A170, "109100"),),))),
        ),
        FUNCTION,
        Dcmsign.ACCEPTS,
    ),
    Attack(
        "original-passed-off-as-derived",
        "Image Type is changed the other way, to excuse an image without a signature of the scanner.",
        rewritten(with_value(IMAGE_TYPE, b"DERIVED\\SECONDARY\\AXIAL ")),
        WRONG,
    ),
    Attack(
        "research-mark-added",
        "A mark is added that says the image is for research.",
        rewritten(with_nodes(text(0x00189004, "CS", "RESEARCH"))),
        NOT_COVERED,
    ),
    Attack(
        "artificial-mark-removed-under-c-2",
        "The minimum of C.2 leaves Synthetic Data open: the mark goes, and the signature holds.",
        rewritten(without(SYNTHETIC_DATA)),
        NOT_COVERED,
        Dcmsign.ACCEPTS,
        slice_under_c_2,
        known=NOT_COVERED,
    ),
)
