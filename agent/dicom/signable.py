"""Which elements a signature can cover at all, their VR apart (PS3.3 C.12.1.1.3.1.1)."""

from __future__ import annotations

from agent.dicom.elements import DATA_SET_TRAILING_PADDING, DIGITAL_SIGNATURES_SEQUENCE, MAC_PARAMETERS_SEQUENCE

LENGTH_TO_END = 0x00080001  # retired; neither it nor anything before it can be signed
DIGITAL_SIGNATURES_GROUP = 0xFFFA
_NEVER_SIGNED = frozenset((MAC_PARAMETERS_SEQUENCE, DATA_SET_TRAILING_PADDING))
# What is there without being signed, besides group lengths: signatures, and padding.
EXPECTED_UNSIGNED = frozenset((MAC_PARAMETERS_SEQUENCE, DIGITAL_SIGNATURES_SEQUENCE, DATA_SET_TRAILING_PADDING))


def is_signable(tag: int) -> bool:
    """Whether an element can be covered; group lengths and what holds signatures cannot."""
    if tag <= LENGTH_TO_END or tag >> 16 == DIGITAL_SIGNATURES_GROUP:
        return False
    return bool(tag & 0xFFFF) and tag not in _NEVER_SIGNED
