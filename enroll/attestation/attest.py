"""Making evidence of where the keys of this scanner are: for its identities, and for servers that ask.

A key in the TPM is attested by the TPM; what its attestation key says is believed because the attestation CA certified
that. A key in another token cannot prove where it is: the attestation CA of whoever built the scanner certifies it, by
what is known at the factory. Keys in files and in memory are not attested at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

from enroll import csr
from enroll.attestation.client import AttestationClient
from enroll.attestation.evidence import Evidence, StepEvidence, TpmEvidence
from enroll.attestation.kept import EvidenceStore, KeptEvidence
from enroll.attestation.tpm_structures import read_public_area
from enroll.attestation.verify import (
    Attested,
    identity_challenge,
    is_step_key,
    qualifying_data,
    verify_ak_certificate,
    verify_evidence,
    verify_identity_evidence,
)
from enroll.certificates import public_key_info
from enroll.clock import Clock
from enroll.config import EnrollSettings, StoreName
from enroll.csr import CertificateRequest, Usage
from enroll.errors import ConfigurationError, EvidenceRefused, KeyStoreUnavailable, UnsupportedKey
from enroll.identity import Generation, IdentityStore
from enroll.keystore import KeyStores
from enroll.statefile import StateFiles
from enroll.trust import read_ca_certificates

if TYPE_CHECKING:
    from enroll.keystore.tpm.attestation import TpmAttestor

ATTESTABLE = (StoreName.TPM, StoreName.PKCS11)


@dataclass(frozen=True)
class Attestation:
    """The attestation of one scanner.

    Args:
        settings: Of the scanner.
        anchors: The roots of the attestation CA.
        clock: The time.
        files: Reads and writes.
    """

    settings: EnrollSettings
    anchors: Sequence[x509.Certificate]
    clock: Clock
    files: StateFiles

    @classmethod
    def configured(cls, settings: EnrollSettings, clock: Clock, files: StateFiles) -> Attestation:
        """By the settings.

        Raises:
            ConfigurationError: [attestation] anchor_file is not set, or holds no certificate.
        """
        if settings.attestation.anchor_file is None:
            raise ConfigurationError(
                "[attestation] anchor_file is not set.", remedy="Name the file with the root of the attestation CA."
            )
        return cls(settings, read_ca_certificates(settings.attestation.anchor_file, files), clock, files)

    def evidence(self, key_uri: str, challenge: bytes, stores: KeyStores) -> Evidence:
        """Evidence of where a key lives; the CA is asked only if it has to be.

        Args:
            key_uri: Names the key.
            challenge: What the evidence is for.
            stores: The key stores of this process, which may be open. A TPM is paused: some serve one connection.

        Raises:
            UnsupportedKey: The key is in no TPM and no token, or of a kind that the format does not know.
            ConfigurationError: The evidence does not verify with [attestation] anchor_file.
            ScansealError: The token or the CA failed.
        """
        evidence = self._evidence_of(key_uri, challenge, stores)
        identifier, now = self.settings.device.serial_number, self.clock.now()
        try:
            verify_evidence(evidence, challenge=challenge, identifier=identifier, roots=self.anchors, now=now)
        except EvidenceRefused as error:
            raise _of_no_use("this key", error) from error
        return evidence

    def attest(self, generation: Generation) -> KeptEvidence:
        """Make evidence for an identity and keep it; raises as `evidence` does.

        It opens a token or the TPM for itself, so this process should not have them open in key stores.
        """
        with closing(KeyStores(self.settings.keystore, self.settings.state_directory, self.files)) as stores:
            evidence = self._evidence_of(generation.key_uri, identity_challenge(generation.certificate), stores)
        return self._keep(generation, evidence)

    def attest_alone(self, generation: Generation) -> KeptEvidence | None:
        """The same without the CA: for a new generation after a renewal.

        Returns:
            None where the CA would have to be asked: the key is not in the TPM, or its attestation key has no valid
            certificate. Then somebody has to run `scanseal attest`.

        Raises:
            ScansealError: As `attest` does.
        """
        if store_of(generation) is not StoreName.TPM:
            return None
        tpm = _open_tpm(self.settings, self.files)
        attestation_key = tpm.attestation_key()
        chain = tpm.chain()
        if not self._still_good(chain, attestation_key):
            return None
        challenge = identity_challenge(generation.certificate)
        return self._keep(generation, _certified(tpm, chain, generation.key_uri, challenge))

    def verify(self, generation: Generation, kept: KeptEvidence) -> Attested:
        """Decide whether evidence proves, now, where the key of an identity lives.

        Raises:
            EvidenceRefused: It does not.
        """
        return verify_identity_evidence(
            kept.evidence,
            generation.certificate,
            identifier=self.settings.device.serial_number,
            roots=self.anchors,
            now=self.clock.now(),
        )

    def kept(self, generation: Generation) -> KeptEvidence | None:
        """The evidence for a generation, unchecked; None where there is none.

        Raises:
            StateError: There is some, and it is damaged.
        """
        return self._evidence.read(generation)

    @property
    def _evidence(self) -> EvidenceStore:
        return EvidenceStore(IdentityStore(self.settings.state_directory, self.files), self.files)

    def _connect(self) -> AttestationClient:
        return AttestationClient.connect(self.settings.attestation, self.anchors, self.clock, self.files)

    def _keep(self, generation: Generation, evidence: Evidence) -> KeptEvidence:
        kept = KeptEvidence(evidence, self.clock.now())
        try:
            self.verify(generation, kept)
        except EvidenceRefused as error:
            raise _of_no_use(generation.identity, error) from error
        self._evidence.write(generation, kept)
        return kept

    def _evidence_of(self, key_uri: str, challenge: bytes, stores: KeyStores) -> Evidence:
        match _store_named(key_uri):
            case StoreName.TPM:
                stores.pause(key_uri)
                return self._tpm_evidence(key_uri, challenge)
            case StoreName.PKCS11:
                return self._step_evidence(key_uri, challenge, stores)
        raise UnsupportedKey(
            "This key is in no TPM and no token; nothing can attest it.",
            remedy='Set key_store = "tpm" or "pkcs11" for this identity, and enroll again.',
        )

    def _tpm_evidence(self, key_uri: str, challenge: bytes) -> TpmEvidence:
        tpm = _open_tpm(self.settings, self.files)
        attestation_key = tpm.attestation_key()
        chain = tpm.chain()
        if not self._still_good(chain, attestation_key):
            with self._connect() as ca:
                endorsement = tpm.endorsement_certificate()
                asked = ca.challenge(self.settings.device.serial_number, endorsement, attestation_key)
                chain = ca.certificate(asked, tpm.activate(asked.credential, asked.encrypted_secret))
            tpm.write_chain(chain)
        return _certified(tpm, chain, key_uri, challenge)

    def _still_good(self, chain: Sequence[x509.Certificate], attestation_key: bytes) -> bool:
        identifier = self.settings.device.serial_number
        try:
            verify_ak_certificate(chain, identifier=identifier, roots=self.anchors, now=self.clock.now())
        except EvidenceRefused:
            return False
        return public_key_info(chain[0].public_key()) == public_key_info(read_public_area(attestation_key).key)

    def _step_evidence(self, key_uri: str, challenge: bytes, stores: KeyStores) -> StepEvidence:
        key = stores.load(key_uri)
        if not is_step_key(key.public_key()):
            raise UnsupportedKey(
                "Keys in tokens are attested if they are RSA or P-256; this one is neither.",
                remedy='Set key_algorithm = "p-256" or "rsa-3072" for this identity, and enroll again.',
            )
        asked = CertificateRequest.for_device(self.settings.device, Usage.DEVICE)
        request = csr.build(key, asked, protection=stores.protection(key_uri))
        with self._connect() as ca:
            chain = ca.key_certificate(request)
        if isinstance(key, rsa.RSAPrivateKey):
            signature = key.sign(challenge, padding.PKCS1v15(), hashes.SHA256())
        else:
            signature = key.sign(challenge, ECDSA(hashes.SHA256()))
        return StepEvidence(_encoded(chain), signature)


def store_of(generation: Generation) -> StoreName | None:
    """The key store that holds the key of a generation; None where none does that we know."""
    return _store_named(generation.key_uri)


def _store_named(key_uri: str) -> StoreName | None:
    scheme, _, _ = key_uri.partition(":")
    return StoreName(scheme) if scheme in list(StoreName) else None


def _open_tpm(settings: EnrollSettings, files: StateFiles) -> TpmAttestor:
    try:
        # tpm2-pytss is an optional extra, and needs the TPM software stack.
        from enroll.keystore.tpm.attestation import TpmAttestor  # noqa: PLC0415
    except ImportError as error:
        raise KeyStoreUnavailable(
            "The TPM cannot be used: tpm2-pytss is not installed.", remedy="Run: pip install 'scanseal[tpm]'"
        ) from error
    directory = settings.keystore.tpm.directory or settings.state_directory / "tpm"
    return TpmAttestor(settings.keystore.tpm, directory, files)


def _certified(tpm: TpmAttestor, chain: Sequence[x509.Certificate], key_uri: str, challenge: bytes) -> TpmEvidence:
    statement = tpm.certify(key_uri, qualifying_data(challenge))
    return TpmEvidence(_encoded(chain), statement.cert_info, statement.signature, statement.public_area)


def _of_no_use(whose: str, error: EvidenceRefused) -> ConfigurationError:
    return ConfigurationError(
        f"The evidence for {whose} would be refused: {error.what}",
        remedy="Compare [attestation] anchor_file with the attestation CA, and [device] serial_number with what it "
        "certified.",
    )


def _encoded(chain: Sequence[x509.Certificate]) -> tuple[bytes, ...]:
    return tuple(certificate.public_bytes(serialization.Encoding.DER) for certificate in chain)
