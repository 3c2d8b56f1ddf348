"""What a device knows about its ownership, and keeps through every power cut: FDO 1.1, 3.5 "Device Credential".

    fdo/credential.current     the credential in use
    fdo/credential.pending     the next one, while it is not known whether the owner has it too

Both are authenticated by the HMAC secret of the device, which lives in a key store, as the device key does. Before
message 70 the next credential is on the disk; after message 71 it is in use. In between either of them may be the one
that the owner knows, so both are kept and both are tried (`onboard`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from enroll.fdo import cbor
from enroll.fdo.hashes import Hash, HashAlgorithm
from enroll.fdo.public_key import KeyType
from enroll.keystore import KeyStores
from enroll.statefile import StateFiles


@dataclass(frozen=True)
class Owner:
    """Who has onboarded the device.

    Args:
        fingerprint: Of the key that proved it, SHA-256 of its SubjectPublicKeyInfo.
        next_fingerprint: Of Owner2Key, which begins the voucher from now on.
        anchors: The certificates of its CA.
        issued: What the CA issued for the device identity, the intermediates included; for after a power cut.
        renewal: How certificates are renewed, as the owner said (`hand_over`), in JSON; empty where it said nothing.
    """

    fingerprint: str
    next_fingerprint: str
    anchors: tuple[x509.Certificate, ...] = ()
    issued: tuple[x509.Certificate, ...] = ()
    renewal: str = ""


@dataclass(frozen=True)
class DeviceCredential:
    """One credential.

    Args:
        guid: The device, for this owner.
        rendezvous: RVInfo.
        device_info: Of the OVHeader.
        owner_key_hash: Over the first key of the voucher (DCPubKeyHash).
        owner_key_kind: The type of that key, which says what key exchange to ask for.
        certificate_chain_hash: Of the OVHeader.
        key_uri: The device key.
        secret_uri: The HMAC secret.
        hmac_algorithm: How the secret is used.
        owner: Who has onboarded the device; None before that, and after `release`.
    """

    guid: bytes
    rendezvous: cbor.Raw
    device_info: str
    owner_key_hash: Hash
    owner_key_kind: KeyType
    certificate_chain_hash: Hash | None
    key_uri: str
    secret_uri: str
    hmac_algorithm: HashAlgorithm
    owner: Owner | None = None


class CredentialStore:
    """The credentials of one scanner.

    Args:
        directory: `fdo` below the state directory.
        stores: Where its key and its secret live.
        files: Reads and writes.
    """

    def __init__(self, directory: Path, stores: KeyStores, files: StateFiles) -> None:
        self._directory = directory
        self._stores = stores
        self._files = files

    def current(self) -> DeviceCredential | None:
        """The credential in use; None where the factory has made none.

        Raises:
            StateError: It is damaged, or not authenticated by the secret of this device.
        """
        raise NotImplementedError

    def pending(self) -> DeviceCredential | None:
        """The next one, while it is not known whether the owner has it too."""
        raise NotImplementedError

    def candidates(self) -> Sequence[DeviceCredential]:
        """Those that an owner may know, the more probable first."""
        raise NotImplementedError

    def propose(self, credential: DeviceCredential) -> None:
        """Write the next credential, before message 70 (or 12) is sent."""
        raise NotImplementedError

    def commit(self, credential: DeviceCredential) -> None:
        """Put a credential into use and forget every other one, after message 71 (or 13)."""
        raise NotImplementedError

    def withdraw(self) -> None:
        """Forget the next credential: the owner knows the one in use."""
        raise NotImplementedError
