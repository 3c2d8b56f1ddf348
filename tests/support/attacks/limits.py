"""What no signature under creator-plus shows: shown here, so that nobody relies on it."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from tests.support.attacks.editing import (
    in_mac_parameters,
    meta_rewritten,
    relabelled,
    rewritten,
    with_items,
    with_nodes,
    with_value,
)
from tests.support.attacks.images import reduced_jpeg_2000, slice_signed_twice
from tests.support.attacks.registry import Limit
from tests.support.attacks.resigning import resigned, slice_of_a_former_key, stamped
from tests.support.attacks.signers import FORMER_KEY_UNTIL, SIGNED_AT, former_key, signer
from tests.support.dicom_tree import DIGITAL_SIGNATURES, MAC_PARAMETERS
from tests.support.raw_dicom import Node, text

LIMITS: Final = (
    Limit(
        "patient-exchanged",
        "Patient Name and Patient ID are those of somebody else.",
        "They are left out on purpose, because they may rightly be corrected (IHE PIR). Study, series and instance are "
        "covered: compare the patient with what the archive knows of the study.",
        rewritten(with_nodes(text(0x00100010, "PN", "Roe^Richard"), text(0x00100020, "LO", "67890"))),
        0x00100020,
    ),
    Limit(
        "weight-changed",
        "Patient's Weight is changed or added, from which viewers calculate uptake values.",
        "It belongs to the patient, as above.",
        rewritten(with_nodes(text(0x00101030, "DS", "7"))),
        0x00101030,
    ),
    Limit(
        "study-date-changed",
        "Study Date says that the examination was in 2019; viewers sort by it.",
        "It belongs to the study, which is merged and corrected later. Acquisition and content dates are signed.",
        rewritten(with_nodes(text(0x00080020, "DA", "20190101"))),
        0x00080020,
    ),
    Limit(
        "series-description-changed",
        "The description of the series is changed.",
        "Archives do that as a matter of course.",
        rewritten(with_value(0x0008103E, b"Other ")),
        0x0008103E,
    ),
    Limit(
        "private-element-changed",
        "A private attribute is changed or added.",
        "They are left out unless `private_elements` is set, because gateways drop them.",
        rewritten(with_value(0x00091001, b"forged")),
        0x00091001,
    ),
    Limit(
        "de-identification-claimed",
        "The image is said to be free of the patient's identity.",
        "De-identification comes after signing, so that its marks cannot be covered.",
        rewritten(with_nodes(text(0x00120062, "CS", "YES"))),
        0x00120062,
    ),
    Limit(
        "preamble-tiff",
        "The 128 bytes in front of the file hold the header of a TIFF image, which other viewers would show.",
        "PS3.10 7.1 foresees it, and some scanners do it. What a viewer for TIFF shows is not what was signed.",
        lambda data: b"II*\0\x08\0\0\0" + data[8:],
    ),
    Limit(
        "scanner-signs-what-it-did-not-make",
        "Somebody who can use another scanner of the hospital changes serial number and pixels and signs.",
        "The image is now one of that scanner, and rightly signed. What a scanner signs is as good as access to it.",
        resigned(
            lambda: signer("CT-000777"),
            change=with_nodes(text(0x00181000, "LO", "CT-000777"), Node(0x7FE00010, "OW", bytes(32))),
        ),
    ),
    Limit(
        "one-of-two-signatures-removed-with-its-parameters",
        "Of two signatures one is removed without a trace.",
        "Signatures do not know of each other. A recipient who expects both has to say so.",
        rewritten(
            lambda nodes: with_items(MAC_PARAMETERS, lambda items: items[:1])(
                with_items(DIGITAL_SIGNATURES, lambda items: items[:1])(nodes)
            )
        ),
        honest=slice_signed_twice,
    ),
    Limit(
        "time-stamp-added-or-removed",
        "A time stamp is added, or removed while the certificate is valid.",
        "It is no part of the signature. Without it the claimed time is only a claim, and the report says so.",
        stamped(SIGNED_AT),
    ),
    Limit(
        "key-used-after-its-period-and-dated-back",
        "A copy of a key that the scanner had for a week signs other pixels after that, and sets the date back.",
        "The date is the signer's word. A time stamp from within the week proves that a signature was made in time; "
        "the report says where there is none. Of a key that is known to be stolen, have the certificate revoked.",
        resigned(
            former_key,
            at=FORMER_KEY_UNTIL - timedelta(minutes=1),
            change=with_nodes(Node(0x7FE00010, "OW", bytes(32))),
        ),
        honest=slice_of_a_former_key,
    ),
    Limit(
        "mac-syntax-native-or-deflated",
        "The signature is said to have been made over the deflated form of the same bytes.",
        "What is hashed is the same in both.",
        in_mac_parameters(with_nodes(text(0x04000010, "UI", "1.2.840.10008.1.2.1.99"))),
    ),
    Limit(
        "jpeg-2000-of-reduced-quality-called-lossless",
        "A JPEG 2000 image with the reversible wavelet, of which the encoder left out the finest detail, is said to be "
        "lossless.",
        "Its header is that of a lossless one, and so it is with all of JPEG XL. Look at Lossy Image Compression "
        "(0028,2110), which is covered.",
        relabelled("4.90"),
        honest=reduced_jpeg_2000,
    ),
    Limit(
        "file-meta-names-another-program",
        "The file meta information says that another program wrote the file.",
        "It is outside of the data set; every program that copies the file writes it anew.",
        meta_rewritten(with_value(0x00020012, b"2.25.66\0")),
    ),
    Limit(
        "group-lengths-and-padding-added",
        "Group lengths and trailing padding are added.",
        "They are no part of the content, and programs skip them.",
        rewritten(with_nodes(Node(0x00080000, "UL", b"\x10\0\0\0"), Node(0xFFFCFFFC, "OB", bytes(64)))),
    ),
)
