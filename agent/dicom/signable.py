"""Which elements a signature can cover at all, their VR apart (PS3.3 C.12.1.1.3.1.1)."""

from __future__ import annotations

from agent.dicom.elements import DATA_SET_TRAILING_PADDING, DIGITAL_SIGNATURES_SEQUENCE, MAC_PARAMETERS_SEQUENCE

FIRST_SIGNABLE_GROUP = 0x0008
DIGITAL_SIGNATURES_GROUP = 0xFFFA
# Wherever they stand; (0008,0001) is the retired Length to End.
NEVER_SIGNED = frozenset((0x00080001, MAC_PARAMETERS_SEQUENCE, DATA_SET_TRAILING_PADDING))
# What is there without being signed, besides group lengths: signatures, and padding.
EXPECTED_UNSIGNED = frozenset((MAC_PARAMETERS_SEQUENCE, DIGITAL_SIGNATURES_SEQUENCE, DATA_SET_TRAILING_PADDING))


def is_signable(tag: int) -> bool:
    """Whether an element can be covered; group lengths and what holds signatures cannot."""
    group = tag >> 16
    if group < FIRST_SIGNABLE_GROUP or group == DIGITAL_SIGNATURES_GROUP:
        return False
    return bool(tag & 0xFFFF) and tag not in NEVER_SIGNED
