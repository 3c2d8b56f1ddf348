"""Asks the product why signatures do not verify, and makes signatures the way others may have made them."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable

from agent.dicom.diagnosis.diagnose import Examination, FailedSignature, diagnose
from agent.dicom.diagnosis.patience import DIAGNOSIS_WORK, Patience
from agent.dicom.diagnosis.private_dictionary import PrivateDictionary, installed_private_dictionary
from agent.dicom.headers import DEFAULT_LIMITS
from agent.dicom.mac_check import SignerCertificates, check_mac
from agent.dicom.stored_instance import StoredInstance
from agent.dicom.stored_signatures import DigitalSignature, mac_parameters_of
from tests.support.certificates import Signer
from tests.support.dicom_tree import DIGITAL_SIGNATURES, EXPLICIT_LITTLE_ENDIAN, MAC_PARAMETERS, tag_bytes
from tests.support.raw_dicom import Node, Nodes, Writer, number, part10, text


def examine(
    data: bytes,
    *,
    work: int = DIAGNOSIS_WORK,
    dictionary: Callable[[], PrivateDictionary | None] = installed_private_dictionary,
) -> Examination | None:
    """What the product says of the newest signature of the data set; None where it finds nothing to explain."""
    failed = newest_failure(data)
    return diagnose(failed, Patience(work), dictionary) if failed else None


def newest_failure(data: bytes) -> FailedSignature | None:
    """The newest signature of the data set as the verifier hands it over; None where it verifies."""
    instance = StoredInstance.read(data, DEFAULT_LIMITS)
    outline, syntax = instance.data_set.survey.outline, instance.meta.syntax
    if outline.signatures is None or outline.mac_parameters is None:
        raise LookupError("not signed")
    parameters = [mac_parameters_of(item, syntax.encoding) for item in outline.mac_parameters.items]
    signature = DigitalSignature.read(outline.signatures.items[-1], syntax.encoding)
    checked = check_mac(instance.data_set, syntax, signature, parameters, SignerCertificates())
    return FailedSignature.of(instance.data_set, syntax, checked)


def variant(data: bytes) -> str:
    """The name of the reading under which the newest signature verifies; "none" or "intact" where it is not needed."""
    examination = examine(data)
    if examination is None:
        return "intact"
    return examination.diagnosis.variant if examination.diagnosis else "none"


def diagnosed(examination: Examination | None) -> tuple[str, bool]:
    """The name of the reading, and whether it restores what was signed."""
    if examination is None or examination.diagnosis is None:
        raise LookupError("no reading was found")
    return examination.diagnosis.variant, examination.diagnosis.legitimate


def codes(examination: Examination | None) -> list[str]:
    """The codes of the findings."""
    return [finding.code for finding in examination.findings] if examination else []


def signed_over(
    stream: bytes,
    tags: Iterable[int],
    nodes: Nodes,
    signer: Signer,
    *,
    transfer_syntax: str = EXPLICIT_LITTLE_ENDIAN,
    mac_transfer_syntax: str = EXPLICIT_LITTLE_ENDIAN,
) -> bytes:
    """A file of these nodes, with a signature over any stream of bytes.

    Args:
        stream: What the signer took for the bytes of the covered elements.
        tags: Data Elements Signed.
        nodes: What is in the file.
        signer: Who signs.
        transfer_syntax: Of the file.
        mac_transfer_syntax: What the MAC parameters say.
    """
    parameters = (
        number(0x04000005, 1),
        text(0x04000010, "UI", mac_transfer_syntax),
        text(0x04000015, "CS", "SHA256"),
        Node(0x04000020, "AT", b"".join(map(tag_bytes, tags))),
    )
    covered = (
        number(0x04000005, 1),
        text(0x04000100, "UI", "2.25.77"),
        text(0x04000105, "DT", "20260102030405.000000+0000"),
        text(0x04000110, "CS", "X509_1993_SIG"),
    )
    digest = hashlib.sha256(stream + Writer(EXPLICIT_LITTLE_ENDIAN).data_set(covered)).digest()
    certificate = signer.certificate_der
    signature = (
        *covered,
        Node(0x04000115, "OB", certificate + b"\0" * (len(certificate) % 2)),
        Node(0x04000120, "OB", signer.sign_digest("sha256")(digest)),
    )
    added = (Node(MAC_PARAMETERS, "SQ", items=(parameters,)), Node(DIGITAL_SIGNATURES, "SQ", items=(signature,)))
    return part10(tuple(sorted((*nodes, *added), key=lambda node: node.tag)), transfer_syntax)


def as_signed(nodes: Iterable[Node]) -> bytes:
    """The byte stream of elements that are neither sequences nor fragments: as explicit VR little endian has them."""
    return Writer(EXPLICIT_LITTLE_ENDIAN).data_set(tuple(nodes))


def sequence_as_signed(tag: int, *items: Iterable[Node]) -> bytes:
    """The byte stream of a sequence of such elements (PS3.3 C.12.1.1.3.1.1)."""
    content = b"".join(b"\xfe\xff\x00\xe0" + as_signed(item) for item in items)
    return tag_bytes(tag) + b"SQ\0\0" + content + b"\xfe\xff\xdd\xe0"


def fragments_as_signed(vr: bytes, fragments: Iterable[bytes], *, lengths: bool = False) -> bytes:
    """The byte stream of encapsulated Pixel Data, under any VR and with or without the lengths of fragments."""
    parts = (
        b"\xfe\xff\x00\xe0" + (struct.pack("<L", len(fragment)) if lengths else b"") + fragment
        for fragment in fragments
    )
    return tag_bytes(0x7FE00010) + vr + b"\0\0" + b"".join(parts) + b"\xfe\xff\xdd\xe0"
