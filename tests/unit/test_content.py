"""What an instance says of itself decides in which role it may be signed, and whether it names its device."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any

import pytest

from agent.daemon.wire import Role
from agent.dicom.content import LOOKED_AT, MissingDeviceIdentity, check_role
from agent.dicom.profile import ProfileName, load_profile
from agent.dicom.sign import InstanceDigest, SignaturePlan, digest_instance
from agent.dicom.window import Window
from agent.errors import DicomError
from tests.support.dicom_tree import DEFLATED_EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN
from tests.support.raw_dicom import NATIVE_ENCODINGS, Node, instance, part10, text

PLAN = SignaturePlan(load_profile(ProfileName.CREATOR_PLUS), "sha256", "2.25.1", datetime(2026, 11, 22, tzinfo=UTC))
ORIGINAL = text(0x00080008, "CS", "ORIGINAL\\PRIMARY\\AXIAL")
DERIVED = text(0x00080008, "CS", "DERIVED\\PRIMARY\\AXIAL")
MIXED = text(0x00080008, "CS", "MIXED\\PRIMARY\\VOLUME\\NONE")
SYNTHETIC = text(0x0008001C, "CS", "YES")
NOT_SYNTHETIC = text(0x0008001C, "CS", "NO")


def digested(*nodes: Node, syntax: str = IMPLICIT_LITTLE_ENDIAN, **changes: Any) -> InstanceDigest:
    return digest_instance(Window.over(part10(instance(*nodes), syntax)), dataclasses.replace(PLAN, **changes))


def refusal(role: Role, *nodes: Node, **changes: Any) -> str:
    """The code of the refusal; empty if the instance may be signed in this role."""
    try:
        digested(*nodes, role=role, **changes)
    except DicomError as error:
        return error.code
    return ""


@pytest.mark.parametrize(
    ("nodes", "acquisition", "derivation", "synthesis"),
    [
        ((), "", "", "not-marked-synthetic"),
        ((ORIGINAL,), "", "original-instance", "not-marked-synthetic"),
        ((ORIGINAL, NOT_SYNTHETIC), "", "original-instance", "not-marked-synthetic"),
        ((DERIVED,), "derived-instance", "", "not-marked-synthetic"),
        ((DERIVED, NOT_SYNTHETIC), "derived-instance", "", "not-marked-synthetic"),
        ((MIXED,), "derived-instance", "", "not-marked-synthetic"),
        ((SYNTHETIC,), "synthetic-instance", "synthetic-instance", ""),
        ((ORIGINAL, SYNTHETIC), "synthetic-instance", "synthetic-instance", ""),
        ((DERIVED, SYNTHETIC), "synthetic-instance", "synthetic-instance", ""),
    ],
)
def test_each_role_signs_what_says_so_of_itself(
    nodes: tuple[Node, ...], acquisition: str, derivation: str, synthesis: str
) -> None:
    """PS3.3 C.7.6.1.1.2, C.8.16.1.1 and C.12.1."""
    assert [refusal(role, *nodes) for role in Role] == [acquisition, derivation, synthesis]


@pytest.mark.parametrize("syntax", NATIVE_ENCODINGS)
def test_the_encoding_hides_nothing(syntax: str) -> None:
    assert refusal(Role.ACQUISITION, DERIVED, syntax=syntax) == "derived-instance"
    assert refusal(Role.ACQUISITION, SYNTHETIC, syntax=syntax) == "synthetic-instance"
    assert refusal(Role.SYNTHESIS, ORIGINAL, syntax=syntax) == "not-marked-synthetic"


@pytest.mark.parametrize("value", ["DERIVED ", " DERIVED\\PRIMARY", "derived\\PRIMARY", "DERIVED", "DERIVED\\ORIGINAL"])
def test_a_derived_image_is_known_however_it_is_written(value: str) -> None:
    """PS3.5 6.2: spaces around a CS mean nothing; small letters break it, and some readers take them."""
    assert refusal(Role.ACQUISITION, text(0x00080008, "CS", value)) == "derived-instance"


@pytest.mark.parametrize("value", ["DERIVED\0\\PRIMARY", "DERIVED\xa0", "DERIVEDX", "\\DERIVED", "\\ ", "SCREEN", "? "])
def test_what_may_be_read_as_derived_is_no_original(value: str) -> None:
    """PS3.3 C.7.6.1.1.2 knows two words for value 1, and a reader may stop at a byte NUL."""
    assert refusal(Role.ACQUISITION, Node(0x00080008, "CS", value.encode("latin_1"))) == "derived-instance"


@pytest.mark.parametrize("value", ["ORIGINAL\\DERIVED", " original ", ""])
def test_only_the_first_value_tells_originals_from_derived_images(value: str) -> None:
    """PS3.3 C.7.6.1.1.2."""
    assert refusal(Role.ACQUISITION, text(0x00080008, "CS", value)) == ""


@pytest.mark.parametrize("value", ["YES ", " YES", "yes", "Y", "TRUE", "NO\\YES", "N0"])
def test_what_may_be_read_as_synthetic_is_no_original(value: str) -> None:
    assert refusal(Role.ACQUISITION, text(0x0008001C, "CS", value)) == "synthetic-instance"
    assert refusal(Role.DERIVATION, DERIVED, text(0x0008001C, "CS", value)) == "synthetic-instance"


@pytest.mark.parametrize("value", ["NO", "NO ", " NO", "no", ""])
def test_what_is_not_synthetic_may_say_so(value: str) -> None:
    assert refusal(Role.ACQUISITION, text(0x0008001C, "CS", value)) == ""


@pytest.mark.parametrize("value", ["yes", "Y", "NO", "", "YES\\NO"])
def test_only_the_mark_of_the_standard_makes_an_image_synthetic(value: str) -> None:
    """PS3.3 C.12.1: whoever looks for the mark looks for YES."""
    assert refusal(Role.SYNTHESIS, text(0x0008001C, "CS", value)) == "not-marked-synthetic"


@pytest.mark.parametrize("nodes", [(SYNTHETIC,), (SYNTHETIC, DERIVED)])
def test_a_mark_that_could_be_taken_away_unnoticed_does_not_count(nodes: tuple[Node, ...]) -> None:
    """PS3.15 C.2 leaves Synthetic Data out."""
    assert refusal(Role.SYNTHESIS, *nodes, profile=load_profile(ProfileName.CREATOR_RSA)) == "not-marked-synthetic"


def test_a_mark_of_unknown_vr_is_seen_but_does_not_count() -> None:
    """PS3.3 C.12.1.1.3.1.1: what is UN cannot be covered."""
    unknown = Node(0x0008001C, "UN", b"YES ")

    assert refusal(Role.ACQUISITION, unknown, syntax=NATIVE_ENCODINGS[0]) == "synthetic-instance"
    assert refusal(Role.SYNTHESIS, unknown, syntax=NATIVE_ENCODINGS[0]) == "not-marked-synthetic"


def test_a_mark_inside_a_sequence_is_not_that_of_the_instance() -> None:
    inside = Node(0x00082112, "SQ", items=((SYNTHETIC,),))

    assert refusal(Role.ACQUISITION, inside) == ""
    assert refusal(Role.SYNTHESIS, inside) == "not-marked-synthetic"


@pytest.mark.parametrize(
    ("role", "node", "other"),
    [
        (Role.ACQUISITION, DERIVED, Role.DERIVATION),
        (Role.ACQUISITION, SYNTHETIC, Role.SYNTHESIS),
        (Role.DERIVATION, ORIGINAL, Role.ACQUISITION),
        (Role.DERIVATION, SYNTHETIC, Role.SYNTHESIS),
        (Role.SYNTHESIS, ORIGINAL, Role.ACQUISITION),
    ],
)
def test_the_remedy_names_the_right_role(role: Role, node: Node, other: Role) -> None:
    with pytest.raises(DicomError) as refused:
        digested(node, role=role)
    assert f"role {other}" in refused.value.remedy


def test_every_role_has_a_rule() -> None:
    for role in Role:
        check_role(role, {0x0008001C: b"YES "} if role is Role.SYNTHESIS else {}, LOOKED_AT)


# --- which device made it


@pytest.mark.parametrize("syntax", NATIVE_ENCODINGS)
@pytest.mark.parametrize("node", [text(0x00181000, "LO", "CT-0001"), text(0x00181002, "UI", "2.25.7")])
def test_a_serial_number_or_a_uid_names_the_device(node: Node, syntax: str) -> None:
    named = digested(node, syntax=syntax, missing_device_identity=MissingDeviceIdentity.REFUSE)

    assert named.warnings == ()


EMPTY = [
    (),
    (text(0x00181000, "LO", ""),),
    (text(0x00181000, "LO", "   "), text(0x00181002, "UI", "")),
    (Node(0x00181002, "UI", b"\0\0"),),
    (Node(0x00181000, "SQ", items=()),),
]


@pytest.mark.parametrize("nodes", EMPTY)
def test_an_instance_that_names_no_device_is_refused_where_it_has_to(nodes: tuple[Node, ...]) -> None:
    with pytest.raises(DicomError) as refused:
        digested(*nodes, syntax=NATIVE_ENCODINGS[0], missing_device_identity=MissingDeviceIdentity.REFUSE)
    assert refused.value.code == "device-identity-missing"
    assert "missing_device_identity" in refused.value.remedy


@pytest.mark.parametrize("nodes", EMPTY)
@pytest.mark.parametrize(
    ("missing", "warnings"),
    [(MissingDeviceIdentity.WARN, ("device-identity-missing",)), (MissingDeviceIdentity.ALLOW, ())],
)
def test_otherwise_it_is_signed_with_a_warning_or_without(
    nodes: tuple[Node, ...], missing: MissingDeviceIdentity, warnings: tuple[str, ...]
) -> None:
    signed = digested(*nodes, syntax=NATIVE_ENCODINGS[0], missing_device_identity=missing)

    assert signed.warnings == warnings


def test_a_value_that_is_far_too_long_is_refused_and_not_kept() -> None:
    with pytest.raises(DicomError) as refused:
        digested(Node(0x00080008, "UT", b"A" * 70_000), syntax=DEFLATED_EXPLICIT_LITTLE_ENDIAN)
    assert refused.value.code == "length-wrong"
