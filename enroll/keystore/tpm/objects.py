"""Objects of a TPM: how they are made, kept as files, loaded and used. Errors of the software stack pass through.

What is made here signs or authenticates, does nothing else, was made by the TPM, and can be loaded by no other:
fixedTPM, fixedParent and sensitiveDataOrigin (TPM 2.0 Library, Part 1, 27.2). It is used with an authorization value,
and not subject to the protection against dictionary attacks: mistakes of others must not stop a scanner.

Files have the format of tpm2-openssl and of the engine before it, "TSS2 PRIVATE KEY", so their tools can use the keys.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from tpm2_pytss import (
    ESYS_TR,
    TPM2_ALG,
    TPM2_CAP,
    TPM2_RH,
    TPM2B_PRIVATE,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPMA_OBJECT,
    TPMS_SCHEME_HASH,
    TPMS_SENSITIVE_CREATE,
    TPMT_PUBLIC,
    TPMT_SIG_SCHEME,
    TPMU_SIG_SCHEME,
)
from tpm2_pytss import TSS2_Exception as TssError
from tpm2_pytss.tsskey import TSSPrivKey

from enroll.algorithms import HmacAlgorithm, KeyAlgorithm
from enroll.errors import KeyDamaged, KeyStoreUnavailable, UnsupportedKey
from enroll.keystore.base import PublicKey
from enroll.keystore.keys import Ecdsa, RsaPkcs1v15, RsaPss, Scheme
from enroll.keystore.tpm.connection import LoadedObject, OpenTpm
from enroll.keystore.tpm.faults import ConnectionLost, is_authorization, is_not_loadable

STORAGE_KEY = 0x81000001  # TCG TPM v2.0 Provisioning Guidance, 7.5.1: where an owner keeps it
AUTHORIZATION_SIZE = 32  # bytes; that of SHA-256, which all our objects are named with

MADE_HERE = TPMA_OBJECT.FIXEDTPM | TPMA_OBJECT.FIXEDPARENT | TPMA_OBJECT.SENSITIVEDATAORIGIN

_SIGNS = MADE_HERE | TPMA_OBJECT.USERWITHAUTH | TPMA_OBJECT.NODA | TPMA_OBJECT.SIGN_ENCRYPT
_STORES = MADE_HERE | TPMA_OBJECT.USERWITHAUTH | TPMA_OBJECT.NODA | TPMA_OBJECT.RESTRICTED | TPMA_OBJECT.DECRYPT
_PARENT = TPMA_OBJECT.FIXEDTPM | TPMA_OBJECT.FIXEDPARENT | TPMA_OBJECT.RESTRICTED | TPMA_OBJECT.DECRYPT

# In the notation of tpm2-tools.
_KINDS: Mapping[KeyAlgorithm | HmacAlgorithm, str] = {
    KeyAlgorithm.RSA_2048: "rsa2048",
    KeyAlgorithm.RSA_3072: "rsa3072",
    KeyAlgorithm.RSA_4096: "rsa4096",
    KeyAlgorithm.P_256: "ecc256",
    KeyAlgorithm.P_384: "ecc384",
    HmacAlgorithm.SHA256: "hmac:sha256",
    HmacAlgorithm.SHA384: "hmac:sha384",
}
_HASHES = {"sha256": TPM2_ALG.SHA256, "sha384": TPM2_ALG.SHA384, "sha512": TPM2_ALG.SHA512}
_ECDSA_HASHES = {32: TPM2_ALG.SHA256, 48: TPM2_ALG.SHA384}  # by the length of the digest
_MOST_ALGORITHMS = 127  # that fit into one answer


@dataclass(frozen=True)
class WrappedObject:
    """An object as it is kept outside of the TPM: its private half is encrypted by its storage key.

    Args:
        private: The encrypted half.
        public: The other.
        parent: Handle of the storage key, or of the hierarchy that has it (`storage_key`).
    """

    private: TPM2B_PRIVATE
    public: TPM2B_PUBLIC
    parent: int

    @classmethod
    def from_pem(cls, data: bytes) -> WrappedObject:
        """Read the file.

        Raises:
            ValueError: It is not exactly such a file.
        """
        try:
            key = TSSPrivKey.from_pem(data)
            wrapped = cls(key.private, key.public, key.parent)
            whole = wrapped.to_pem() == data
        except (TypeError, OverflowError, TssError) as error:
            raise ValueError(str(error)) from error
        if not whole:
            raise ValueError("There is more in it, or it is written in another way.")
        return wrapped

    def to_pem(self) -> bytes:
        """The file."""
        pem: bytes = TSSPrivKey(self.private, self.public, empty_auth=False, parent=self.parent).to_pem()
        return pem

    @property
    def identity(self) -> bytes:
        """What no other object has: its public area."""
        marshalled: bytes = self.public.marshal()
        return marshalled

    @property
    def is_secret(self) -> bool:
        """Whether this is a secret for message authentication, and no private key."""
        return bool(self.public.publicArea.type == TPM2_ALG.KEYEDHASH)

    @property
    def never_left(self) -> bool:
        """Whether the TPM made it and nothing else can ever load it; proven once the TPM has loaded it."""
        return bool(self.public.publicArea.objectAttributes & MADE_HERE == MADE_HERE)

    def public_key(self) -> PublicKey:
        """Its public half.

        Raises:
            ValueError: There is none that is valid.
            UnsupportedKey: It is neither RSA nor of an elliptic curve.
        """
        try:
            key = serialization.load_der_public_key(self.public.to_der())
        except TypeError as error:
            raise ValueError(str(error)) from error
        if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
            raise UnsupportedKey("This is neither an RSA nor an elliptic curve key.", remedy="Enroll again.")
        return key


def authorization_value(secret: bytes) -> bytes:
    """The authorization value for a secret of any length: itself, or its SHA-256 where the TPM would not take it."""
    return secret if len(secret) <= AUTHORIZATION_SIZE else hashlib.sha256(secret).digest()


def create(tpm: OpenTpm, kind: KeyAlgorithm | HmacAlgorithm, authorization: bytes) -> WrappedObject:
    """Make an object below the storage key that the owner keeps in the TPM, or below the one that always comes out.

    Args:
        tpm: It is kept in nothing of it.
        kind: Of the object.
        authorization: See `authorization_value`.
    """
    template = TPMT_PUBLIC.parse(_KINDS[kind], objectAttributes=_SIGNS)
    sensitive = TPM2B_SENSITIVE_CREATE(TPMS_SENSITIVE_CREATE(userAuth=authorization))
    parent = parent_of_new_objects(tpm)

    def create_once() -> WrappedObject:
        with storage_key(tpm, parent) as key:
            private, public, *_ = tpm.esapi.create(key, sensitive, TPM2B_PUBLIC(template))
        return WrappedObject(private, public, parent)

    return tpm.with_room(create_once)


def parent_of_new_objects(tpm: OpenTpm) -> int:
    """`STORAGE_KEY` where the owner keeps one, otherwise the owner's hierarchy."""
    return STORAGE_KEY if _owner_keeps_storage_key(tpm) else int(TPM2_RH.OWNER)


def check_storage_key(tpm: OpenTpm) -> None:
    """Whether objects could be made; raises as `storage_key` does."""
    with storage_key(tpm, parent_of_new_objects(tpm)):
        pass


def load(tpm: OpenTpm, name: str, wrapped: WrappedObject, authorization: bytes) -> LoadedObject:
    """Load an object; it stays loaded until others need the room.

    Raises:
        KeyDamaged: This TPM will never load it.
    """

    def load_once() -> ESYS_TR:
        with storage_key(tpm, wrapped.parent) as parent:
            return _load(tpm, parent, name, wrapped)

    handle = tpm.with_room(load_once)
    tpm.esapi.tr_set_auth(handle, authorization)
    return LoadedObject(handle, wrapped.identity)


def check_loaded(tpm: OpenTpm, found: LoadedObject) -> None:
    """Whether the handle still leads to what was loaded.

    Raises:
        ConnectionLost: The TPM was reset since, and the handle leads nowhere or to something else.
    """
    try:
        public, *_ = tpm.esapi.read_public(found.handle)
        same = public.marshal() == found.identity
    except TssError as error:
        raise _gone() from error
    if not same:
        raise _gone()


def sign(tpm: OpenTpm, key: LoadedObject, digest: bytes, scheme: Scheme) -> bytes:
    """The signature over a digest; see `enroll.keystore.keys.Signer`."""
    return bytes(tpm.esapi.sign(key.handle, digest, _tpm_scheme(*_algorithms(digest, scheme))))


def authenticate(tpm: OpenTpm, name: str, secret: LoadedObject, data: bytes) -> bytes:
    """The HMAC over `data`: by one command, or as a sequence where it does not fit into one (Part 3, 17).

    Args:
        tpm: The TPM.
        name: Under which the secret is loaded.
        secret: Its handle leads to it.
        data: Of any length.
    """
    if len(data) <= tpm.input_buffer:
        return bytes(tpm.esapi.hmac(secret.handle, data, TPM2_ALG.NULL))
    first, *parts = (data[start : start + tpm.input_buffer] for start in range(0, len(data), tpm.input_buffer))
    sequence = tpm.with_room(lambda: tpm.esapi.hmac_start(secret.handle, b"", TPM2_ALG.NULL), keep=name)
    try:
        tpm.esapi.sequence_update(sequence, first)
        for part in parts[:-1]:
            tpm.esapi.sequence_update(sequence, part)
        result, _ = tpm.esapi.sequence_complete(sequence, parts[-1], ESYS_TR.NULL)
    except TssError:
        tpm.flush(sequence)
        raise
    return bytes(result)


@contextmanager
def storage_key(tpm: OpenTpm, parent: int) -> Iterator[ESYS_TR]:
    """The key that encrypts what is kept outside of the TPM, for one block.

    Args:
        tpm: The TPM.
        parent: `STORAGE_KEY`, or the owner's hierarchy: then it is made anew, and it is the same each time until the
            TPM is cleared.

    Raises:
        KeyDamaged: The TPM has no such storage key.
        KeyStoreUnavailable: The storage key or the hierarchy has an authorization value, which is not ours to know.
    """
    try:
        if parent == TPM2_RH.OWNER:
            with tpm.flushing(_primary(tpm)) as handle:
                yield handle
        elif parent == STORAGE_KEY and _owner_keeps_storage_key(tpm):
            handle = tpm.esapi.tr_from_tpmpublic(STORAGE_KEY)
            try:
                yield handle
            finally:
                with contextlib.suppress(TssError):
                    tpm.esapi.tr_close(handle)
        else:
            raise KeyDamaged(
                f"The TPM has no storage key at 0x{parent:08x}, which protects this key.",
                remedy="If the owner removed it, make it again in the same way; otherwise enroll again.",
            )
    except TssError as error:
        if not is_authorization(error):
            raise
        raise KeyStoreUnavailable(
            "The owner of this TPM has set an authorization value, which is not ours to know.",
            remedy=f"As the owner, keep a storage key without one at 0x{STORAGE_KEY:08x}: tpm2_createprimary, then "
            "tpm2_evictcontrol.",
        ) from error


@cache
def _tpm_scheme(algorithm: TPM2_ALG, hashed_with: TPM2_ALG) -> TPMT_SIG_SCHEME:
    """Kept, because making one takes longer than checking a signature of an RSA key."""
    details = TPMU_SIG_SCHEME(any=TPMS_SCHEME_HASH(hashAlg=hashed_with))
    return TPMT_SIG_SCHEME(scheme=algorithm, details=details)


def _algorithms(digest: bytes, scheme: Scheme) -> tuple[TPM2_ALG, TPM2_ALG]:
    match scheme:
        case RsaPkcs1v15(hash_name):
            return TPM2_ALG.RSASSA, _HASHES[hash_name]
        case RsaPss(hash_name, salt_length):
            if salt_length != len(digest):
                raise UnsupportedKey(
                    f"A TPM does not sign with a PSS salt of {salt_length} bytes.", remedy="Use PSS.DIGEST_LENGTH."
                )
            return TPM2_ALG.RSAPSS, _HASHES[hash_name]
        case Ecdsa():
            # The TPM wants a hash of the length of the digest; the signature does not depend on which.
            return TPM2_ALG.ECDSA, _ECDSA_HASHES[len(digest)]


def _load(tpm: OpenTpm, parent: ESYS_TR, name: str, wrapped: WrappedObject) -> ESYS_TR:
    try:
        return tpm.esapi.load(parent, wrapped.private, wrapped.public)
    except TssError as error:
        if not is_not_loadable(error):
            raise
        raise KeyDamaged(
            f"The TPM does not load the key {name}: another TPM made it, this one has been cleared since, or the file "
            "is damaged.",
            remedy="Enroll again.",
        ) from error


def _primary(tpm: OpenTpm) -> ESYS_TR:
    """The storage key that tpm2-openssl would make: of P-256 where the TPM has elliptic curves."""
    _, data = tpm.esapi.get_capability(TPM2_CAP.ALGS, 0, _MOST_ALGORITHMS)
    has_curves = any(each.alg == TPM2_ALG.ECC for each in data.data.algorithms)
    kind = "ecc256:aes128cfb" if has_curves else "rsa2048:aes128cfb"
    template = TPMT_PUBLIC.parse(kind, objectAttributes=_STORES)
    handle, *_ = tpm.esapi.create_primary(TPM2B_SENSITIVE_CREATE(), TPM2B_PUBLIC(template), ESYS_TR.OWNER)
    return handle


def _owner_keeps_storage_key(tpm: OpenTpm) -> bool:
    _, data = tpm.esapi.get_capability(TPM2_CAP.HANDLES, STORAGE_KEY, 1)
    if STORAGE_KEY not in [int(handle) for handle in data.data.handles]:
        return False
    handle = tpm.esapi.tr_from_tpmpublic(STORAGE_KEY)
    try:
        public, *_ = tpm.esapi.read_public(handle)
    finally:
        with contextlib.suppress(TssError):
            tpm.esapi.tr_close(handle)
    return bool(public.publicArea.objectAttributes & _PARENT == _PARENT)


def _gone() -> ConnectionLost:
    return ConnectionLost("The TPM has forgotten the key.", remedy="The next call loads it again.")
