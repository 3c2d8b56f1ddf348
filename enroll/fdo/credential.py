"""What a device knows about its ownership, and keeps through every power cut: FDO 1.1, 3.5 "Device Credential".

    fdo/credential.current     the credential in use
    fdo/credential.pending     the next one, while it is not known whether the owner has it too

Both are authenticated by the HMAC secret of the device, which lives in a key store, as the device key does; neither can
be put in the place of the other. Before message 70 the next credential is on the disk; after message 71 it is in use.
In between either of them may be the one that the owner knows, so both are kept and both are tried (`onboard`).
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from enroll.certificates import PARSE_ERRORS
from enroll.errors import VENDOR, StateError, StateTooNew
from enroll.fdo import cbor
from enroll.fdo.fault import Fault
from enroll.fdo.hashes import Hash, HashAlgorithm
from enroll.fdo.messages import read_guid
from enroll.fdo.public_key import KeyType
from enroll.keystore import KeyStores
from enroll.record import damaged
from enroll.statefile import GROUP_DIRECTORY, StateFiles
from enroll.trust import CERTIFICATES_LIMIT

CREDENTIAL_LIMIT = 256 * 1024  # bytes

_FORMAT = 1
_FILE_MODE = 0o640  # administrators may see whose the scanner is; nothing here is secret
# No CBOR array begins with it, so no OVHeader can be taken for a credential, and none of these for an OVHeader.
_PURPOSE: Final = b"scanseal device "
_TEXT_LIMIT = 4 * 1024  # bytes


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
        owner: Who has onboarded the device; None before that, and after it was released.
        was_owned: Whether it was released by an owner.
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
    was_owned: bool = False


class CredentialStore:
    """The credentials of one scanner.

    Args:
        directory: `fdo` below the state directory.
        stores: Where its key and its secret live.
        files: Reads and writes.
    """

    def __init__(self, directory: Path, stores: KeyStores, files: StateFiles) -> None:
        self._current = directory / "credential.current"
        self._pending = directory / "credential.pending"
        self._stores = stores
        self._files = files

    def current(self) -> DeviceCredential | None:
        """The credential in use; None where the factory has made none.

        Raises:
            StateError: It is damaged, or not authenticated by the secret of this device.
            KeyStoreError: The secret cannot be used.
        """
        return self._read(self._current)

    def pending(self) -> DeviceCredential | None:
        """The next one, while it is not known whether the owner has it too; raises as `current`."""
        return self._read(self._pending)

    def candidates(self) -> tuple[DeviceCredential, ...]:
        """Those that an owner may know, the more probable first; raises as `current`."""
        both = (self.pending(), self.current())
        return tuple(each for each in dict.fromkeys(both) if each is not None)

    def propose(self, credential: DeviceCredential) -> None:
        """Write the next credential, before message 12 or 70 is sent.

        Raises:
            StateError: The disk refused.
            KeyStoreError: The secret cannot be used.
        """
        self._write(self._pending, credential)

    def commit(self, credential: DeviceCredential) -> None:
        """Put a credential into use and forget every other one, after message 13 or 71; raises as `propose`."""
        self._write(self._current, credential)
        self.withdraw()

    def withdraw(self) -> None:
        """Forget the next credential: the owner knows the one in use.

        Raises:
            StateError: The disk refused.
        """
        self._files.remove(self._pending)

    def release(self) -> None:
        """Forget the owner, who gives the device up; every credential stays. Raises as `current` and `propose`."""
        for path in (self._pending, self._current):
            credential = self._read(path)
            if credential is not None:
                self._write(path, replace(credential, owner=None, was_owned=True))

    def _read(self, path: Path) -> DeviceCredential | None:
        if not self._files.exists(path):
            return None
        content, tag = _parts(path, self._files)
        credential = _decoded(content, path)
        if not hmac.compare_digest(self._tag(path, credential, content), tag):
            raise StateError(
                f"{path} was not written by this device.",
                remedy="Put back the file of this very scanner as it was written last: no owner knows an earlier one. "
                "Where there is none, the factory has to make a new credential in an empty state directory.",
                code="credential-forged",
                who_must_act=VENDOR,
            )
        return credential

    def _write(self, path: Path, credential: DeviceCredential) -> None:
        content = _encoded(credential)
        if len(content) > CREDENTIAL_LIMIT // 2:
            raise StateError(
                "The owner brings more certificates than can be kept.",
                remedy="Ask the owner to bring less.",
                code="credential-too-large",
            )
        self._files.make_directory(path.parent, GROUP_DIRECTORY)
        self._files.write(path, cbor.encode([content, self._tag(path, credential, content)]), _FILE_MODE)

    def _tag(self, path: Path, credential: DeviceCredential, content: bytes) -> bytes:
        return self._stores.load_secret(credential.secret_uri).sign(_PURPOSE + path.name.encode() + b"\x00" + content)


def fdo_directory(state_directory: Path) -> Path:
    """Where everything of FDO is kept."""
    return state_directory / "fdo"


def has_credential(directory: Path, files: StateFiles) -> bool:
    """Whether the factory has made a credential, which may be damaged."""
    return any(files.exists(directory / name) for name in ("credential.current", "credential.pending"))


def read_owner(directory: Path, files: StateFiles) -> Owner | None:
    """Who has onboarded the device last; raises, and proves nothing, as `read_unauthenticated`."""
    credentials = read_unauthenticated(directory, files)
    return credentials[0].owner if credentials else None


def read_unauthenticated(directory: Path, files: StateFiles) -> tuple[DeviceCredential, ...]:
    """The credentials, the next one first, as far as they are known without the key store: nothing is authenticated.

    Args:
        directory: `fdo` below the state directory.
        files: Reads.

    Raises:
        StateError: A credential is damaged.
    """
    paths = (directory / "credential.pending", directory / "credential.current")
    return tuple(_decoded(_parts(path, files)[0], path) for path in paths if files.exists(path))


def _parts(path: Path, files: StateFiles) -> tuple[bytes, bytes]:
    try:
        content, tag = cbor.read(files.read(path, CREDENTIAL_LIMIT), CREDENTIAL_LIMIT).array(2)
        return content.bytes(CREDENTIAL_LIMIT), tag.bytes()
    except Fault as error:
        raise damaged(path) from error


def _encoded(credential: DeviceCredential) -> bytes:
    chain_hash = credential.certificate_chain_hash
    return cbor.encode(
        [
            _FORMAT,
            credential.guid,
            credential.rendezvous,
            credential.device_info,
            cbor.Raw(credential.owner_key_hash.raw),
            credential.owner_key_kind,
            None if chain_hash is None else cbor.Raw(chain_hash.raw),
            credential.key_uri,
            credential.secret_uri,
            credential.hmac_algorithm,
            None if credential.owner is None else _encoded_owner(credential.owner),
            credential.was_owned,
        ]
    )


def _encoded_owner(owner: Owner) -> list[cbor.Encodable]:
    anchors, issued = (
        [each.public_bytes(serialization.Encoding.DER) for each in chain] for chain in (owner.anchors, owner.issued)
    )
    return [owner.fingerprint, owner.next_fingerprint, anchors, issued, owner.renewal]


def _decoded(content: bytes, path: Path) -> DeviceCredential:
    try:
        version, guid, rendezvous, info, key_hash, kind, chain_hash, key, secret, algorithm, owner, was_owned = (
            cbor.read(content, CREDENTIAL_LIMIT).array(12)
        )
        if version.unsigned() != _FORMAT:
            raise StateTooNew(f"{path} was written by another version of scanseal.", remedy="Install that version.")
        return DeviceCredential(
            guid=read_guid(guid),
            rendezvous=cbor.Raw(rendezvous.raw),
            device_info=info.text(_TEXT_LIMIT),
            owner_key_hash=Hash.read(key_hash),
            owner_key_kind=KeyType(kind.unsigned()),
            certificate_chain_hash=None if chain_hash.is_null else Hash.read(chain_hash),
            key_uri=key.text(_TEXT_LIMIT),
            secret_uri=secret.text(_TEXT_LIMIT),
            hmac_algorithm=HashAlgorithm(algorithm.integer()),
            owner=None if owner.is_null else _decoded_owner(owner),
            was_owned=was_owned.boolean(),
        )
    except (Fault, *PARSE_ERRORS) as error:
        raise damaged(path) from error


def _decoded_owner(item: cbor.Item) -> Owner:
    fingerprint, next_fingerprint, anchors, issued, renewal = item.array(5)
    return Owner(
        fingerprint.text(_TEXT_LIMIT),
        next_fingerprint.text(_TEXT_LIMIT),
        _certificates(anchors),
        _certificates(issued),
        renewal.text(_TEXT_LIMIT),
    )


def _certificates(item: cbor.Item) -> tuple[x509.Certificate, ...]:
    if len(item.array()) > CERTIFICATES_LIMIT:
        raise Fault("There are too many certificates.")
    return tuple(x509.load_der_x509_certificate(part.bytes()) for part in item.array())
