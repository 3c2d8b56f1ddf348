"""Why a signature was made: Digital Signature Purpose Code Sequence (0400,0401), codes of CID 7007 (PS3.16)."""

from __future__ import annotations

from collections.abc import Mapping

CODING_SCHEME = "ASTM-sigpurpose"

# Code Value (0008,0100): Code Meaning (0008,0104)
PURPOSES: Mapping[str, str] = {
    "1": "Author's Signature",
    "2": "Coauthor's Signature",
    "3": "Co-participant's Signature",
    "4": "Transcriptionist/Recorder Signature",
    "5": "Verification Signature",
    "6": "Validation Signature",
    "7": "Consent Signature",
    "8": "Signature Witness Signature",
    "9": "Event Witness Signature",
    "10": "Identity Witness Signature",
    "11": "Consent Witness Signature",
    "12": "Interpreter Signature",
    "13": "Review Signature",
    "14": "Source Signature",
    "15": "Addendum Signature",
    "16": "Modification Signature",
    "17": "Administrative (Error/Edit) Signature",
    "18": "Timestamp Signature",
}
