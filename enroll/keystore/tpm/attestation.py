"""What a TPM says of itself and of its keys: TPM 2.0 Library, Part 1, 31 and 9.5.3; Part 3, 12.5 and 18.2.

    endorsement key (EK)    came with the TPM, and so did its certificate; decrypts
    attestation key (AK)    made here, at the first use; restricted: signs nothing but what the TPM says itself

    <directory>/attestation/key.tss     the AK, encrypted by the TPM
    <directory>/attestation/chain.pem   its certificate, then the intermediates

The TPM is opened for each use and let go again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cryptography import x509
from tpm2_pytss import (
    ESYS_TR,
    TPM2_ALG,
    TPM2_CAP,
    TPM2_RC,
    TPM2_SE,
    TPM2B_ENCRYPTED_SECRET,
    TPM2B_ID_OBJECT,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPMA_OBJECT,
    TPMS_SENSITIVE_CREATE,
    TPMT_PUBLIC,
    TPMT_SIG_SCHEME,
    TPMT_SYM_DEF,
)
from tpm2_pytss import TSS2_Exception as TssError

from enroll import der
from enroll.certificates import PARSE_ERRORS, pem, public_key_info, read_certificates
from enroll.config import TpmStoreSettings
from enroll.errors import (
    KeyDamaged,
    KeyMismatch,
    KeyNotFound,
    KeyStoreUnavailable,
    PinRefused,
    StateError,
    StateUnreadable,
)
from enroll.keystore.base import KEY_NAME
from enroll.keystore.secretfile import read_secret
from enroll.keystore.tpm import objects
from enroll.keystore.tpm.connection import Connection, OpenTpm
from enroll.keystore.tpm.credential import EK_TEMPLATES, ek_template
from enroll.keystore.tpm.faults import is_authorization, response_code, translated
from enroll.keystore.tpm.objects import WrappedObject
from enroll.statefile import StateFiles

KEY_FILE_LIMIT = 16 * 1024  # bytes

_AK_TEMPLATE = "rsa2048:rsassa-sha256:null"  # in the notation of tpm2-tools; every ACME server knows it
_AK_ATTRIBUTES = (
    objects.MADE_HERE | TPMA_OBJECT.USERWITHAUTH | TPMA_OBJECT.NODA | TPMA_OBJECT.RESTRICTED | TPMA_OBJECT.SIGN_ENCRYPT
)
_NOT_FOR_US = (TPM2_RC.INTEGRITY, TPM2_RC.VALUE, TPM2_RC.SIZE, TPM2_RC.ECC_POINT)
_NV_LIMIT = 8 * 1024  # bytes of one EK certificate
_NV_PIECE = 512  # bytes; every TPM gives so many at once


@dataclass(frozen=True)
class Statement:
    """What TPM2_Certify gives.

    Args:
        cert_info: TPMS_ATTEST.
        signature: TPMT_SIGNATURE over it by the AK.
        public_area: TPMT_PUBLIC of the key.
    """

    cert_info: bytes
    signature: bytes
    public_area: bytes


class TpmAttestor:
    """The TPM of a key store, asked about its keys.

    Args:
        settings: `[keystore.tpm]`.
        directory: Where the wrapped keys lie.
        files: Reads and writes them.
    """

    def __init__(self, settings: TpmStoreSettings, directory: Path, files: StateFiles) -> None:
        self._settings = settings
        self._directory = directory
        self._files = files

    def endorsement_certificate(self) -> x509.Certificate:
        """The certificate of the EK, as the manufacturer of the TPM left it there.

        Raises:
            KeyMismatch: The TPM has not the key of its certificate.
            KeyStoreError: It has no certificate, or cannot be used.
        """
        with self._commands() as tpm, _endorsement_key(tpm) as (_, certificate):
            return certificate

    def attestation_key(self) -> bytes:
        """The TPMT_PUBLIC of the AK; it is made where there is none, and anew where we cannot use it any more.

        Raises:
            KeyStoreError: The TPM refused.
            StateError: The files cannot be read or written.
        """
        with self._commands() as tpm:
            if self._files.exists(self._key_file):
                try:
                    wrapped = self._read(self._key_file)
                    with self._loaded(tpm, wrapped) as key:
                        _check_authorization(tpm, key)
                        return _public_area(wrapped)
                except (KeyDamaged, PinRefused):
                    # After TPM2_Clear, in another TPM, or with another authorization value: of no use to anybody.
                    self._files.remove(self._chain_file)
            wrapped = _create(tpm, self._authorization())
            self._files.make_directory(self._key_file.parent)
            self._files.write(self._key_file, wrapped.to_pem())
            return _public_area(wrapped)

    def activate(self, blob: bytes, encrypted_secret: bytes) -> bytes:
        """The secret that was encrypted for the EK and the AK of this TPM (`make_credential`).

        Args:
            blob: The content of TPM2B_ID_OBJECT.
            encrypted_secret: The content of TPM2B_ENCRYPTED_SECRET.

        Raises:
            KeyMismatch: It was encrypted for another TPM, or for another AK.
            KeyStoreError: The TPM refused.
        """
        # The AK first: while it is being loaded its storage key takes a place as well, and a TPM may have three.
        with (
            self._commands() as tpm,
            self._loaded(tpm, self._read(self._key_file)) as key,
            _endorsement_key(tpm) as (endorsement, _),
            _endorsement_session(tpm) as session,
        ):
            try:
                secret = tpm.esapi.activate_credential(
                    key,
                    endorsement,
                    TPM2B_ID_OBJECT(blob),
                    TPM2B_ENCRYPTED_SECRET(encrypted_secret),
                    session1=ESYS_TR.PASSWORD,
                    session2=session,
                )
            except TssError as error:
                if response_code(error) not in _NOT_FOR_US:
                    raise
                raise KeyMismatch(
                    "The secret was encrypted for another TPM, or for another attestation key.",
                    remedy="Run the command again.",
                ) from error
            return bytes(secret)

    def certify(self, uri: str, qualifying_data: bytes) -> Statement:
        """What the TPM says of one of its keys.

        Args:
            uri: Names the key in the key store.
            qualifying_data: Goes into the statement; at most 32 bytes.

        Raises:
            KeyNotFound: No such key, or no AK yet.
            KeyStoreError: The TPM refused.
        """
        name = uri.removeprefix("tpm:")
        if not uri.startswith("tpm:") or not KEY_NAME.fullmatch(name):
            raise KeyNotFound("This URI names no key in a TPM.", remedy="It must be tpm:NAME.")
        certified, attestation = self._read(self._directory / f"{name}.pem"), self._read(self._key_file)
        with (
            self._commands() as tpm,
            self._loaded(tpm, certified) as certified_key,
            self._loaded(tpm, attestation) as attestation_key,
        ):
            attest, signature = tpm.esapi.certify(
                certified_key,
                attestation_key,
                qualifying_data,
                TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL),
                session1=ESYS_TR.PASSWORD,
                session2=ESYS_TR.PASSWORD,
            )
            return Statement(bytes(attest), bytes(signature.marshal()), _public_area(certified))

    def write_chain(self, chain: tuple[x509.Certificate, ...]) -> None:
        """Keep the certificate of the AK, with its intermediates.

        Raises:
            StateError: The disk refused.
        """
        self._files.make_directory(self._chain_file.parent)
        self._files.write(self._chain_file, pem(chain), 0o644)

    def chain(self) -> tuple[x509.Certificate, ...]:
        """The certificate of the AK, then its intermediates; nothing where there is none.

        Raises:
            StateError: The file is damaged.
        """
        if not self._files.exists(self._chain_file):
            return ()
        return read_certificates(self._chain_file, self._files)

    @property
    def _key_file(self) -> Path:
        return self._directory / "attestation" / "key.tss"

    @property
    def _chain_file(self) -> Path:
        return self._directory / "attestation" / "chain.pem"

    @contextmanager
    def _commands(self) -> Iterator[OpenTpm]:
        connection = Connection(self._settings.tcti)
        try:
            with connection.commands() as tpm:
                yield tpm
        finally:
            connection.close()

    def _authorization(self) -> bytes:
        secret = read_secret(self._settings.authorization_file, "[keystore.tpm] authorization_file", self._files)
        return objects.authorization_value(secret)

    def _read(self, path: Path) -> WrappedObject:
        if not self._files.exists(path):
            raise KeyNotFound(f"There is no key file {path}.", remedy="Run: scanseal attest; or enroll again.")
        try:
            return WrappedObject.from_pem(self._files.read(path, KEY_FILE_LIMIT))
        except StateUnreadable:
            raise  # whoever may read it finds it as it was
        except (ValueError, StateError) as error:
            raise KeyDamaged(f"{path} holds no key of a TPM.", remedy="Restore it, or enroll again.") from error

    @contextmanager
    def _loaded(self, tpm: OpenTpm, wrapped: WrappedObject) -> Iterator[ESYS_TR]:
        found = objects.load(tpm, "for attestation", wrapped, self._authorization())
        with tpm.flushing(found.handle):
            yield found.handle


def _create(tpm: OpenTpm, authorization: bytes) -> WrappedObject:
    template = TPM2B_PUBLIC(TPMT_PUBLIC.parse(_AK_TEMPLATE, objectAttributes=_AK_ATTRIBUTES))
    sensitive = TPM2B_SENSITIVE_CREATE(TPMS_SENSITIVE_CREATE(userAuth=authorization))
    parent = objects.parent_of_new_objects(tpm)
    with objects.storage_key(tpm, parent) as key:
        private, public, *_ = tpm.esapi.create(key, sensitive, template)
    return WrappedObject(private, public, parent)


def _check_authorization(tpm: OpenTpm, key: ESYS_TR) -> None:
    """Whether our authorization value is that of the AK: it certifies itself.

    Raises:
        PinRefused: It is not.
    """
    own = ESYS_TR.PASSWORD
    try:
        tpm.esapi.certify(key, key, b"", TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL), session1=own, session2=own)
    except TssError as error:
        if not is_authorization(error):
            raise
        raise translated(error) from error


@contextmanager
def _endorsement_key(tpm: OpenTpm) -> Iterator[tuple[ESYS_TR, x509.Certificate]]:
    """The EK, made again from its template, and its certificate."""
    for kind in EK_TEMPLATES:
        content, template = ek_template(kind, partial(_read_nv, tpm))
        if content is None:
            continue
        certificate = _certificate(content)
        with _explained():
            handle, public, *_ = tpm.esapi.create_primary(
                TPM2B_SENSITIVE_CREATE(), TPM2B_PUBLIC(template), ESYS_TR.ENDORSEMENT
            )
        with tpm.flushing(handle):
            if public.to_der() != public_key_info(certificate.public_key()):
                raise KeyMismatch(
                    "The endorsement key of the TPM is not the one of its certificate.",
                    remedy="The TPM has got a new endorsement seed, or a certificate of another TPM: replace it.",
                )
            yield handle, certificate
        return
    raise KeyStoreUnavailable(
        "The TPM has no certificate of its endorsement key.",
        remedy="Its manufacturer may offer it elsewhere; write it into the TPM at 0x01c00002 as it came, in DER.",
    )


def _certificate(content: bytes) -> x509.Certificate:
    """The certificate in an NV index, which may be longer than it."""
    try:
        certificate = x509.load_der_x509_certificate(content[: der.announced_length(content)])
        certificate.public_key()
    except PARSE_ERRORS as error:
        raise KeyStoreUnavailable(
            "The certificate of the TPM's endorsement key cannot be read.",
            remedy="Ask the manufacturer of the TPM for it, and write it into the TPM as it came, in DER.",
        ) from error
    return certificate


def _read_nv(tpm: OpenTpm, index: int) -> bytes | None:
    """The content of an NV index; None where it is not defined."""
    _, found = tpm.esapi.get_capability(TPM2_CAP.HANDLES, index, 1)
    if index not in [int(handle) for handle in found.data.handles]:
        return None
    handle = tpm.esapi.tr_from_tpmpublic(index)
    public, _ = tpm.esapi.nv_read_public(handle)
    size = min(int(public.nvPublic.dataSize), _NV_LIMIT)
    pieces = [
        bytes(tpm.esapi.nv_read(handle, min(_NV_PIECE, size - start), start, auth_handle=handle))
        for start in range(0, size, _NV_PIECE)
    ]
    return b"".join(pieces)


@contextmanager
def _endorsement_session(tpm: OpenTpm) -> Iterator[ESYS_TR]:
    """A session that lets the EK be used (PolicySecret of the endorsement hierarchy, which its templates demand)."""
    session = tpm.esapi.start_auth_session(
        ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.POLICY, TPMT_SYM_DEF(algorithm=TPM2_ALG.NULL), TPM2_ALG.SHA256
    )
    try:
        with _explained():
            tpm.esapi.policy_secret(ESYS_TR.ENDORSEMENT, session, expiration=0)
        yield session
    finally:
        tpm.flush(session)  # the command that used it may have ended it


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except TssError as error:
        if not is_authorization(error):
            raise
        raise KeyStoreUnavailable(
            "The endorsement hierarchy of this TPM has an authorization value, which is not ours to know.",
            remedy="As the owner of the TPM, take it away while you attest: tpm2_changeauth -c endorsement.",
        ) from error


def _public_area(wrapped: WrappedObject) -> bytes:
    area: bytes = wrapped.public.publicArea.marshal()
    return area
