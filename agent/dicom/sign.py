"""Signing an instance: hash it as it streams by, let somebody sign the digest, say what to insert.

    digest = digest_instance(window, plan)
    signature = ...                              # RSA PKCS#1 v1.5 over digest.digest, by whoever holds the key
    edits = digest.edits(signature, certificate)

The key, and the certificate that belongs to it, are needed only after the hash: the certificate is not part of it
(PS3.3 C.12.1.1.3.1.1). Nothing here knows a key.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime

from agent.dicom import content
from agent.dicom.content import MissingDeviceIdentity
from agent.dicom.deflate import deflated_again, inflated
from agent.dicom.elements import SOP_INSTANCE_UID, tag_name
from agent.dicom.headers import DEFAULT_LIMITS, Limits, malformed
from agent.dicom.outline import Outline
from agent.dicom.profile import Profile
from agent.dicom.reader import Scanner
from agent.dicom.signature_items import MOST_SIGNATURES, MacParameters, NewSignature
from agent.dicom.splice import Edit, insertions
from agent.dicom.stored_signatures import DigitalSignature, mac_parameters_of
from agent.dicom.stream import MacStream
from agent.dicom.transfer_syntax import TransferSyntax, read_file_meta
from agent.dicom.window import Window
from agent.errors import DicomError

# PS3.15 C.2 names older ones too. There is no way to sign with those.
MAC_ALGORITHMS = {"sha256": "SHA256", "sha384": "SHA384", "sha512": "SHA512"}


@dataclass(frozen=True)
class SignaturePlan:
    """What kind of signature is to be made.

    Args:
        profile: What is covered.
        hash_name: "sha256", "sha384" or "sha512".
        signature_uid: Digital Signature UID of the new signature.
        signed_at: Digital Signature DateTime, aware.
        purpose: Why it is made: a code of CID 7007, such as "14"; empty where nobody says.
        role: What it is made as: "acquisition", "derivation" or "synthesis"; empty where that is not looked at.
        missing_device_identity: What happens if the instance does not say which device made it.
        limits: What the instance may demand.
    """

    profile: Profile
    hash_name: str
    signature_uid: str
    signed_at: datetime
    purpose: str = ""
    role: str = ""
    missing_device_identity: MissingDeviceIdentity = MissingDeviceIdentity.ALLOW
    limits: Limits = DEFAULT_LIMITS


@dataclass(frozen=True)
class InstanceDigest:
    """An instance that is hashed and waits for the signature of its digest.

    Args:
        digest: What has to be signed.
        sop_instance_uid: Of the instance.
        warnings: Codes of what somebody should know, although it is signed.
    """

    digest: bytes
    sop_instance_uid: str
    warnings: tuple[str, ...]
    _window: Window = field(repr=False)
    _syntax: TransferSyntax = field(repr=False)
    _data_set_offset: int = field(repr=False)
    _outline: Outline = field(repr=False)
    _mac_parameters: MacParameters = field(repr=False)
    _new_signature: NewSignature = field(repr=False)

    def edits(self, signature: bytes, certificate: bytes) -> tuple[Edit, ...]:
        """What makes the signed instance of the original, in order of offsets.

        Args:
            signature: RSA PKCS#1 v1.5 signature of the digest.
            certificate: The signer's certificate, DER.
        """
        encoding = self._syntax.encoding
        edits = insertions(
            self._outline,
            encoding,
            self._mac_parameters.encoded(encoding),
            self._new_signature.encoded(signature, certificate, encoding),
        )
        if not self._syntax.deflated:
            return edits
        start, end = self._data_set_offset, self._window.offset
        return (Edit(start, end - start, b"".join(deflated_again(self._window.pieces(start, end), edits))),)


def digest_instance(window: Window, plan: SignaturePlan) -> InstanceDigest:
    """Read an instance to its end and hash what the profile covers.

    Args:
        window: Stands at the preamble. A deflated instance is kept in any case: it has to be deflated again.
        plan: What kind of signature is to be made.

    Raises:
        DicomError: The instance is not well-formed, cannot be signed under the profile, or does not fit the role.
    """
    syntax = read_file_meta(window, plan.limits).syntax
    start = window.offset
    window.keep = window.keep or syntax.deflated
    data_set, limits = inflated(window, syntax, plan.limits)
    mac = MacStream(data_set, hashlib.new(plan.hash_name))
    selection = plan.profile.selection()
    scanner = Scanner(
        data_set,
        syntax.encoding,
        encapsulated=syntax.encapsulated,
        mac=mac,
        covers=selection.selects,
        must_be_signable=selection.must_be_signable,
        limits=limits,
        capture=plan.profile.mandatory | content.LOOKED_AT,
    )
    outline = scanner.walk()
    mac.flush()
    window.finish()
    _check_mandatory(outline, plan.profile)
    if plan.role:
        content.check_role(plan.role, outline.values, outline.covered)
    warnings = content.check_device_identity(outline.values, plan.missing_device_identity)
    mac_id = _free_mac_id(outline, syntax)
    new_signature = NewSignature(mac_id, plan.signature_uid, plan.signed_at, plan.purpose)
    mac.hash.update(new_signature.mac_bytes())
    return InstanceDigest(
        digest=mac.hash.digest(),
        sop_instance_uid=outline.values[SOP_INSTANCE_UID].rstrip(b"\0 ").decode("ascii", "replace"),
        warnings=warnings,
        _window=window,
        _syntax=syntax,
        _data_set_offset=start,
        _outline=outline,
        _mac_parameters=MacParameters(mac_id, syntax.for_mac, MAC_ALGORITHMS[plan.hash_name], tuple(outline.covered)),
        _new_signature=new_signature,
    )


def _check_mandatory(outline: Outline, profile: Profile) -> None:
    present = {tag for tag, value in outline.values.items() if value.rstrip(b"\0 ")}
    if missing := sorted(profile.mandatory - present):
        raise DicomError(
            f"{', '.join(tag_name(tag) for tag in missing)} must be there to be signed (PS3.15 C.2).",
            remedy="Only a composite instance with SOP Class, SOP Instance, Study and Series UIDs can be signed.",
            code="mandatory-element-missing",
        )


def _free_mac_id(outline: Outline, syntax: TransferSyntax) -> int:
    parameters = outline.mac_parameters.items if outline.mac_parameters else ()
    signatures = outline.signatures.items if outline.signatures else ()
    if max(len(parameters), len(signatures)) >= MOST_SIGNATURES:
        raise DicomError(
            f"The instance has {MOST_SIGNATURES} signatures already.",
            remedy="No more are added; ask who keeps signing it.",
            code="too-many-signatures",
        )
    used = {mac_parameters_of(item, syntax.encoding).mac_id for item in parameters}
    signed = {DigitalSignature.read(item, syntax.encoding).mac_id for item in signatures}
    if orphaned := signed - used:
        # It would find our MAC parameters instead of those it has lost.
        raise malformed(f"The signature with MAC ID {min(orphaned)} has no MAC parameters.", "signature-malformed")
    return next(number for number in range(MOST_SIGNATURES + 1) if number not in used)
