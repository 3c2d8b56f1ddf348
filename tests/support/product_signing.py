"""Signs bytes with the product the way a daemon worker does, with a key of the test."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from agent.dicom.profile import ProfileName, load_profile
from agent.dicom.report import SignatureReport
from agent.dicom.sign import SignaturePlan, digest_instance
from agent.dicom.splice import spliced
from agent.dicom.verify import Verification, verify_instance
from agent.dicom.window import Window
from tests.support.certificates import Signer
from tests.support.dicom_tree import DIGITAL_SIGNATURES, MAC_PARAMETERS, Instance, find, parse, without
from tests.support.mac_oracle import Signature, signature_of

_uids = (f"2.25.{number}" for number in itertools.count(10_000))


def plan(hash_name: str = "sha256", signed_at: datetime | None = None) -> SignaturePlan:
    """A Creator signature with a UID of its own, made now."""
    return SignaturePlan(
        profile=load_profile(ProfileName.CREATOR_RSA),
        hash_name=hash_name,
        signature_uid=next(_uids),
        signed_at=signed_at or datetime.now(UTC),
    )


def sign_bytes(data: bytes, plan: SignaturePlan, sign: Callable[[bytes], bytes], certificate: bytes) -> bytes:
    """Sign an instance in memory; `sign` makes the signature of a digest."""
    instance = digest_instance(Window.over(data), plan)
    edits = instance.edits(sign(instance.digest), certificate)
    return b"".join(part if isinstance(part, bytes) else data[slice(*part)] for part in spliced(len(data), edits))


def sign(data: bytes, signer: Signer, hash_name: str = "sha256") -> bytes:
    """The signed instance."""
    return sign_bytes(data, plan(hash_name), signer.sign_digest(hash_name), signer.certificate_der)


def verify(data: bytes) -> tuple[SignatureReport, ...]:
    """The product's reports on the signatures of an instance; no CA is trusted."""
    return verify_instance(data, Verification(load_profile(ProfileName.CREATOR_RSA), datetime.now(UTC))).signatures


def intact(data: bytes) -> list[bool | None]:
    """The product's verdict on each signature."""
    return [report.intact for report in verify(data)]


@dataclass(frozen=True)
class UnkeyedResult:
    """What signing made when no real key was at hand.

    Attributes:
        digests: What was given out to be signed.
    """

    signed: bytes
    digests: tuple[bytes, ...]


def sign_without_key(data: bytes, hash_name: str = "sha256") -> UnkeyedResult:
    """Sign with 384 bytes that are no signature, which is quick and shows the digest."""
    digests: list[bytes] = []

    def record(digest: bytes) -> bytes:
        digests.append(digest)
        return b"\1" * 384

    signed = sign_bytes(data, plan(hash_name), record, b"\x30\x02\x05\x00")
    return UnkeyedResult(signed, tuple(digests))


def newest_signature(signed: bytes) -> Signature:
    """The signature the product added, with the stream the oracle says it must cover."""
    elements = parse(signed).elements
    sequence = find(elements, DIGITAL_SIGNATURES)
    if sequence is None or not sequence.items:
        raise LookupError("not signed")
    return signature_of(elements, sequence.items[-1])


def assert_nothing_else_changed(original: bytes, signed: bytes) -> None:
    """Every byte outside (4FFE,0001) and (FFFA,FFFA) is as it was; of a deflated file, every inflated byte."""
    before, after = parse(original), parse(signed)
    assert after.head == before.head
    assert _rest(after) == _rest(before)


def _rest(instance: Instance) -> bytes:
    return without(instance, {MAC_PARAMETERS, DIGITAL_SIGNATURES})
