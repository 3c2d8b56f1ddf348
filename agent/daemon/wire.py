"""The frames between worker and keyholder. The keyholder unpacks one fixed layout and parses nothing.

All sockets are SOCK_SEQPACKET: one frame is one message.

* Signing channel, one for each connection and bound to its caller: `Request` up, one reply down. Anything else on
  it is an attack or a defect, and closes it.
* Control channel, one for each worker: `CONNECTION` (with two descriptors: the connection and its signing channel)
  and `DRAIN` down, `ALIVE` or `EXHAUSTED` (no memory left) up.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from agent.errors import SigningError

CONNECTION = b"C"
DRAIN = b"D"
ALIVE = b"A"
EXHAUSTED = b"E"

_VERSION = 1
_REQUEST = struct.Struct("!BBBBBB64s64s")
_SIGNATURE = struct.Struct("!IB??H")
_OK = b"\x00"
_REFUSED = b"\x01"

REQUEST_SIZE = _REQUEST.size
REPLY_LIMIT = 256 * 1024  # bytes; the longest is a chain of as many and as large certificates as are accepted


class WireError(Exception):
    """A frame that the other side can only have sent by mistake or malice."""


class Operation(IntEnum):
    """What a worker may ask of the keyholder."""

    SIGN = 1
    AUTHORIZE = 2
    CERTIFICATES = 3
    STATUS = 4


class Role(StrEnum):
    """What a caller asks for."""

    ACQUISITION = "acquisition"
    DERIVATION = "derivation"
    SYNTHESIS = "synthesis"


class Identity(StrEnum):
    """Whose certificates are asked for."""

    SIGNING = "signing"
    DEVICE = "device"
    DERIVATION = "derivation"
    SYNTHESIS = "synthesis"
    VENDOR = "vendor"


class HashName(StrEnum):
    """The hashes that are signed. There is no way to ask for MD5, SHA-1 or RIPEMD-160."""

    SHA256 = "sha256"
    SHA384 = "sha384"
    SHA512 = "sha512"


class Protection(StrEnum):
    """Where the key that signed really lives."""

    HARDWARE = "hardware"
    MEMORY = "memory"
    SOFTWARE = "software"


DIGEST_SIZES = {HashName.SHA256: 32, HashName.SHA384: 48, HashName.SHA512: 64}

_ROLES = tuple(Role)
_IDENTITIES = tuple(Identity)
_HASHES = tuple(HashName)
_PROTECTIONS = tuple(Protection)


@dataclass(frozen=True)
class Request:
    """One question of a worker.

    Args:
        operation: What is asked.
        role: For SIGN and AUTHORIZE.
        identity: For CERTIFICATES.
        hash_name: For SIGN: the hash that made `digest`.
        digest: For SIGN.
        device_unnamed: For SIGN: whether the instance does not say which device made it; for the audit trail only.
        reference: For SIGN: the SOP Instance UID, or nothing; goes into the audit trail only.
    """

    operation: Operation
    role: Role = Role.ACQUISITION
    identity: Identity = Identity.SIGNING
    hash_name: HashName = HashName.SHA256
    digest: bytes = b""
    device_unnamed: bool = False
    reference: str = ""

    def encode(self) -> bytes:
        """The frame. Characters that no UID has are left out of the reference (PS3.5 9.1)."""
        return _REQUEST.pack(
            _VERSION,
            self.operation,
            _ROLES.index(self.role),
            _IDENTITIES.index(self.identity),
            _HASHES.index(self.hash_name),
            self.device_unnamed,
            self.digest,
            re.sub(r"[^0-9.]", "", self.reference)[:64].encode("ascii"),
        )

    @classmethod
    def decode(cls, frame: bytes) -> Request:
        """The request in a frame.

        Raises:
            WireError: Not a request.
        """
        if len(frame) != REQUEST_SIZE:
            raise WireError(f"frame of {len(frame)} bytes")
        version, operation, role, identity, hash_number, device_unnamed, digest, reference = _REQUEST.unpack(frame)
        if version != _VERSION:
            raise WireError("unknown version")
        try:
            hash_name = _HASHES[hash_number]
            request = cls(
                operation=Operation(operation),
                role=_ROLES[role],
                identity=_IDENTITIES[identity],
                hash_name=hash_name,
                digest=digest[: DIGEST_SIZES[hash_name]],
                device_unnamed=(False, True)[device_unnamed],
                reference=reference.rstrip(b"\0").decode("ascii"),
            )
        except (ValueError, IndexError) as error:
            raise WireError("unknown operation, role, identity, hash or flag") from error
        if re.search(r"[^0-9.]", request.reference) or any(digest[DIGEST_SIZES[hash_name] :]):
            raise WireError("digest or reference of the wrong form")
        return request


@dataclass(frozen=True)
class Signature:
    """What the keyholder made.

    Args:
        value: The signature, RSASSA-PKCS1-v1_5.
        certificate: DER of the certificate that verifies it.
        generation: Number of the generation of the identity that signed.
        protection: Where its key lives.
        vendor_only: Whether the certificate names no device, so that it proves the vendor only (`enroll.proves`).
        clock_suspect: Whether the clock of the machine is not believed (`enroll.clock_sense`).
    """

    value: bytes
    certificate: bytes
    generation: int
    protection: Protection
    vendor_only: bool = False
    clock_suspect: bool = False


def encode_answer(payload: bytes) -> bytes:
    """The reply that grants a request."""
    return _OK + payload


def encode_signature(signature: Signature) -> bytes:
    """The reply to SIGN."""
    protection = _PROTECTIONS.index(signature.protection)
    flags = (signature.vendor_only, signature.clock_suspect)
    head = _SIGNATURE.pack(signature.generation, protection, *flags, len(signature.value))
    return encode_answer(head + signature.value + signature.certificate)


def encode_refusal(code: str, what: str, remedy: str) -> bytes:
    """The reply that refuses a request."""
    return _REFUSED + json.dumps({"code": code, "what": what[:1000], "remedy": remedy[:1000]}).encode("ascii")


def decode_answer(frame: bytes) -> bytes:
    """The payload of a reply.

    Raises:
        SigningError: The keyholder refused; code, sentence and remedy are its own.
    """
    if frame[:1] == _OK:
        return frame[1:]
    refusal = json.loads(frame[1:])
    raise SigningError(refusal["what"], remedy=refusal["remedy"], code=refusal["code"])


def decode_signature(frame: bytes) -> Signature:
    """The reply to SIGN.

    Raises:
        SigningError: The keyholder refused.
    """
    payload = decode_answer(frame)
    generation, protection, vendor_only, clock_suspect, size = _SIGNATURE.unpack_from(payload)
    value, certificate = payload[_SIGNATURE.size :][:size], payload[_SIGNATURE.size + size :]
    return Signature(value, certificate, generation, _PROTECTIONS[protection], vendor_only, clock_suspect)
