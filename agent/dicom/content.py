"""What an instance says of itself, and who may sign it because of that. Pure: values in, a refusal or nothing out.

| role          | Image Type (0008,0008), value 1 | Synthetic Data (0008,001C)     |
|---------------|---------------------------------|--------------------------------|
| `acquisition` | ORIGINAL                        | absent, empty or NO            |
| `derivation`  | not ORIGINAL                    | absent, empty or NO            |
| `synthesis`   | anything                        | YES, and covered               |

An instance without an Image Type, such as a report, makes no claim that a role could contradict. The words are those of
PS3.3 C.7.6.1.1.2, C.8.16.1.1 (MIXED: some frames are derived) and C.12.1; why, is in ADR 15.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from enum import StrEnum

from agent.dicom.elements import DEVICE_SERIAL_NUMBER, DEVICE_UID
from agent.errors import DicomError
from enroll.foreign import printable

IMAGE_TYPE = 0x00080008
SYNTHETIC_DATA = 0x0008001C

LOOKED_AT = frozenset((IMAGE_TYPE, SYNTHETIC_DATA, DEVICE_SERIAL_NUMBER, DEVICE_UID))

Values = Mapping[int, bytes]


class MissingDeviceIdentity(StrEnum):
    """What happens to an instance that does not say which device made it."""

    REFUSE = "refuse"
    WARN = "warn"
    ALLOW = "allow"


def check_role(role: str, values: Values, covered: Collection[int]) -> None:
    """Whether what an instance says of itself fits the role that it is to be signed in.

    Args:
        role: "acquisition", "derivation" or "synthesis".
        values: Of the elements of `LOOKED_AT` that are there.
        covered: The tags that the signature covers.

    Raises:
        DicomError: It does not; the remedy names the role that would fit.
    """
    _RULES[role](values, covered)


def check_device_identity(values: Values, missing: MissingDeviceIdentity) -> tuple[str, ...]:
    """Whether an instance says which device made it: what a recipient compares with the signer's certificate.

    Args:
        values: Of the elements of `LOOKED_AT` that are there.
        missing: What happens if it does not.

    Returns:
        The codes of warnings.

    Raises:
        DicomError: It does not, and is to be refused.
    """
    if missing is MissingDeviceIdentity.ALLOW or _text(values, DEVICE_SERIAL_NUMBER) or _text(values, DEVICE_UID):
        return ()
    if missing is MissingDeviceIdentity.WARN:
        return ("device-identity-missing",)
    raise DicomError(
        "Neither Device Serial Number (0018,1000) nor Device UID (0018,1002) says which device made the instance.",
        remedy="Have the scanner fill one of them in, or set [signing] missing_device_identity to warn or allow.",
        code="device-identity-missing",
    )


def _acquisition(values: Values, _covered: Collection[int]) -> None:
    _refuse_synthetic(values)
    if _text(values, IMAGE_TYPE) and (kind := _pixel_data_characteristics(values)) != "ORIGINAL":
        raise DicomError(
            f"Image Type (0008,0008) says that the image is {printable(kind, 16) or 'nothing'}, not ORIGINAL.",
            remedy="Have it signed in the role derivation; the role acquisition signs originals (PS3.3 C.7.6.1.1.2).",
            code="derived-instance",
        )


def _derivation(values: Values, _covered: Collection[int]) -> None:
    _refuse_synthetic(values)
    if _pixel_data_characteristics(values) == "ORIGINAL":
        raise DicomError(
            "Image Type (0008,0008) says that the image is ORIGINAL; the role derivation signs what is made of others.",
            remedy="If it is one, have it signed in the role acquisition; else correct it (PS3.3 C.7.6.1.1.2).",
            code="original-instance",
        )


def _synthesis(values: Values, covered: Collection[int]) -> None:
    if _text(values, SYNTHETIC_DATA) != "YES":
        raise DicomError(
            "Synthetic Data (0008,001C) is not YES, but the role synthesis signs what was made artificially.",
            remedy="Set it to YES (PS3.3 C.12.1), or have an image that was acquired signed in the role acquisition.",
            code="not-marked-synthetic",
        )
    if SYNTHETIC_DATA not in covered:
        raise DicomError(
            "The signature would not cover Synthetic Data (0008,001C), so the mark could be taken away unnoticed.",
            remedy="Use the profile creator-plus, and the VR that the element has in the standard (CS).",
            code="not-marked-synthetic",
        )


_RULES: Mapping[str, Callable[[Values, Collection[int]], None]] = {
    "acquisition": _acquisition,
    "derivation": _derivation,
    "synthesis": _synthesis,
}


def _refuse_synthetic(values: Values) -> None:
    """Neither YES nor NO may be read as YES by somebody, so it counts as YES here."""
    if _text(values, SYNTHETIC_DATA).upper() not in {"", "NO"}:
        raise DicomError(
            "Synthetic Data (0008,001C) says that the instance was made artificially.",
            remedy="Have it signed in the role synthesis.",
            code="synthetic-instance",
        )


def _pixel_data_characteristics(values: Values) -> str:
    return _text(values, IMAGE_TYPE).partition("\\")[0].strip().upper()


def _text(values: Values, tag: int) -> str:
    return values.get(tag, b"").decode("ascii", "replace").strip("\0 ")
