"""Credentials of a device for tests."""

from __future__ import annotations

from dataclasses import replace

from enroll.algorithms import HmacAlgorithm
from enroll.fdo import cbor
from enroll.fdo.credential import DeviceCredential, Owner
from enroll.fdo.hashes import Hash, HashAlgorithm
from enroll.fdo.public_key import KeyType
from tests.support.pki import HospitalCa

CA = HospitalCa()
HMACS = {
    HmacAlgorithm.SHA256: HashAlgorithm.HMAC_SHA256,
    HmacAlgorithm.SHA384: HashAlgorithm.HMAC_SHA384,
}


def credential(secret_uri: str, number: int = 1, algorithm: HmacAlgorithm = HmacAlgorithm.SHA256) -> DeviceCredential:
    """As a factory makes one.

    Args:
        secret_uri: The HMAC secret.
        number: Each has another GUID.
        algorithm: Of the secret.
    """
    return DeviceCredential(
        guid=number.to_bytes(16, "big"),
        rendezvous=cbor.Raw(cbor.encode([[[5, cbor.encode("rendezvous.example")]]])),
        device_info="Example CT",
        owner_key_hash=Hash.of(HashAlgorithm.SHA256, b"the key of the manufacturer"),
        owner_key_kind=KeyType.SECP256R1,
        certificate_chain_hash=Hash.of(HashAlgorithm.SHA256, b"the certificates of the device"),
        key_uri="software:fdo-key",
        secret_uri=secret_uri,
        hmac_algorithm=HMACS[algorithm],
    )


def owned(before: DeviceCredential) -> DeviceCredential:
    """The same device, with an owner and all that can be known of one."""
    owner = Owner("a" * 64, "b" * 64, (CA.certificate,), (CA.certificate, CA.certificate), '{"way": "est"}')
    return replace(before, certificate_chain_hash=None, owner=owner, was_owned=True)
