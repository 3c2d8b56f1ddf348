"""The enrollment part of scanseal.toml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from enroll.algorithms import KeyAlgorithm
from enroll.flows.settings import (
    AcmeSettings,
    CmpSettings,
    EstSettings,
    FdoSettings,
    OfflineSettings,
    ScepSettings,
    VendorSettings,
)
from enroll.options import option
from enroll.renewal.window import PATTERN as WINDOW_PATTERN

DEFAULT_CONFIGURATION = Path("/etc/scanseal/scanseal.toml")


@dataclass(frozen=True)
class DeviceSettings:
    """`[device]`: what the scanner is. Goes into certificate requests."""

    # Certificates hold the serial number as a PrintableString (X.520), which has no underscore.
    serial_number: str = option(
        "Serial number as in (0018,1000) Device Serial Number: letters, digits, spaces and '()+,-./:=?",
        pattern=r"(?=\S)[A-Za-z0-9'()+,./:=? -]{1,64}(?<=\S)",
    )
    model: str = option(
        "Model as in (0008,1090); becomes the common name together with the serial number.",
        default="",
        pattern=r"[^\x00-\x1f\x7f]{0,64}",
    )
    hardware_type: str = option(
        "Object identifier of the model for hardwareModuleName (RFC 4108), below the vendor's enterprise number. "
        "Empty: the certificate carries no hardwareModuleName.",
        default="",
        pattern=r"(|([01]\.[1-3]?[0-9]|2\.(0|[1-9][0-9]{0,9}))(\.(0|[1-9][0-9]{0,17})){1,30})",
    )


@dataclass(frozen=True)
class SoftwareStoreSettings:
    """`[keystore.software]`: encrypted PKCS#8 files. Protects against a copied backup, not against root."""

    directory: Path | None = option("Where the key files lie. Default: keys/ below state_directory.", default=None)
    passphrase_file: Path | None = option(
        "File that holds the passphrase of all key files, readable by the service only (a systemd credential fits). "
        "Without it the store cannot be used.",
        default=None,
    )


@dataclass(frozen=True)
class TokenSettings:
    """`[keystore.pkcs11.tokens.LABEL]`: one more token, with the label LABEL."""

    pin_file: Path | None = option("File that holds the user PIN of this token.", default=None)
    module: Path | None = option("PKCS#11 library of this token. Default: that of [keystore.pkcs11].", default=None)


@dataclass(frozen=True)
class Pkcs11StoreSettings:
    """`[keystore.pkcs11]`: a token, reached through p11-kit."""

    module: Path = option(
        "PKCS#11 library. Only p11-kit-proxy.so is used by several threads at once; any other is used with one lock.",
        default=Path("/usr/lib/x86_64-linux-gnu/p11-kit-proxy.so"),
    )
    token: str = option("Label of the token.", default="scanseal")
    pin_file: Path | None = option("File that holds the user PIN (a systemd credential fits).", default=None)
    sessions: int = option("Signatures at the same time through p11-kit-proxy.", default=2, at_least=1, at_most=64)
    tokens: Mapping[str, TokenSettings] = option(
        "More tokens, each in a table of its own: [keystore.pkcs11.tokens.LABEL] with pin_file and module.",
        default_factory=dict,
    )


@dataclass(frozen=True)
class TpmStoreSettings:
    """`[keystore.tpm]`: a TPM 2.0, spoken to directly, which also attests its keys."""

    tcti: str = option(
        "How the TPM is reached, in the words of the TPM software stack.",
        default="device:/dev/tpmrm0",
        pattern=r"[^\x00-\x1f\x7f]{1,255}",
    )
    directory: Path | None = option(
        "Where the wrapped keys lie; only this TPM can use them. Default: tpm/ below state_directory.", default=None
    )
    authorization_file: Path | None = option(
        "File that holds the authorization value of all keys (a systemd credential fits): who has the wrapped key "
        "and the TPM still needs it. Without it the store cannot be used.",
        default=None,
    )


@dataclass(frozen=True)
class KeyStoreSettings:
    """`[keystore]`: where private keys live."""

    software: SoftwareStoreSettings = field(default_factory=SoftwareStoreSettings)
    pkcs11: Pkcs11StoreSettings = field(default_factory=Pkcs11StoreSettings)
    tpm: TpmStoreSettings = field(default_factory=TpmStoreSettings)


class StoreName(StrEnum):
    """The key stores that can be asked for a new key."""

    SOFTWARE = "software"
    PKCS11 = "pkcs11"
    TPM = "tpm"
    MEMORY = "memory"


@dataclass(frozen=True)
class IdentitySettings:
    """`[identity.NAME]`: how the next key of an identity is made."""

    key_store: StoreName = option("Store of new keys.", default=StoreName.SOFTWARE, pattern=r"software|pkcs11|tpm")
    key_algorithm: KeyAlgorithm = option("Kind of new keys.", default=KeyAlgorithm.P_256)
    token: str = option(
        "Label of the token of new keys, where there are several. Empty: [keystore.pkcs11] token.", default=""
    )


@dataclass(frozen=True)
class SigningIdentitySettings(IdentitySettings):
    """`[identity.NAME]`: how the next key of an identity that signs is made."""

    key_store: StoreName = option(
        "Store of new keys. memory: the agent makes the key in its own memory, where it is gone after key_lifetime or "
        "with the process, and the device identity has it certified.",
        default=StoreName.SOFTWARE,
    )
    key_lifetime: int = option(
        "How long a key in memory signs; its certificate lives longer. The next key takes over in the last third.",
        default=7,
        unit="days",
        at_least=1,
        at_most=90,
    )
    key_algorithm: KeyAlgorithm = option(
        "Kind of new keys. Image signatures need RSA (PS3.15 C.2).", default=KeyAlgorithm.RSA_3072, pattern=r"rsa-.*"
    )


@dataclass(frozen=True)
class VendorIdentitySettings(IdentitySettings):
    """`[identity.vendor]`: how the next key is made that the vendor certifies for signing original images."""

    key_algorithm: KeyAlgorithm = option(
        "Kind of new keys. Image signatures need RSA (PS3.15 C.2).", default=KeyAlgorithm.RSA_3072, pattern=r"rsa-.*"
    )


@dataclass(frozen=True)
class IdentitiesSettings:
    """`[identity]`: device says "I am this scanner"; signing, derivation and synthesis sign, each for one role.

    idevid and vendor are the same from the vendor: the factory identity, and what signs original images.
    """

    idevid: IdentitySettings = field(default_factory=IdentitySettings)
    vendor: VendorIdentitySettings = field(default_factory=VendorIdentitySettings)
    device: IdentitySettings = field(default_factory=IdentitySettings)
    signing: SigningIdentitySettings = field(default_factory=SigningIdentitySettings)
    derivation: SigningIdentitySettings = field(default_factory=SigningIdentitySettings)
    synthesis: SigningIdentitySettings = field(default_factory=SigningIdentitySettings)


@dataclass(frozen=True)
class AttestationSettings:
    """`[attestation]`: who certifies that keys of this scanner are in its TPM or its token (docs/attestation.md)."""

    url: str = option(
        "Address of the attestation CA. Needed only when the scanner is made or its TPM is replaced.",
        default="",
        pattern=r"(|https://[^\s/?#@]+)/?",
    )
    anchor_file: Path | None = option(
        "File (PEM or DER) with the root of the attestation CA. The server and all evidence must lead to it.",
        default=None,
    )
    username: str = option(
        "User name of the factory line (HTTP Basic); without a colon.",
        default="",
        pattern=r"[^\x00-\x1f\x7f:]{0,255}",
    )
    password_file: Path | None = option("File that holds the password of the factory line.", default=None)
    timeout: int = option("Longest time for one exchange.", default=30, unit="seconds", at_least=1, at_most=600)


@dataclass(frozen=True)
class RevocationSettings:
    """`[revocation]`: how this scanner hears that the CA has revoked one of its certificates. Then it stops signing."""

    watch: bool = option("Whether `scanseal renew` asks, by OCSP and then by CRL.", default=True)
    ocsp_url: str = option(
        "Address of the OCSP responder of the owner's CA, beside those that the certificates name.",
        default="",
        pattern=r"(|https?://[^\s?#@]+)",
    )
    crl_url: str = option(
        "Address of the revocation list of the owner's CA, beside those that the certificates name.",
        default="",
        pattern=r"(|https?://[^\s#@]+)",
    )
    patience: int = option(
        "After how long without an answer `status` and `check` warn. Signing goes on in any case.",
        default=7,
        unit="days",
        at_least=1,
        at_most=366,
    )
    timeout: int = option("Longest time for one exchange.", default=10, unit="seconds", at_least=1, at_most=600)


@dataclass(frozen=True)
class RenewalSettings:
    """`[renewal]`: when the timer renews. What a person runs (`scanseal renew`) does not wait."""

    window: str = option(
        "Hours of the day in which certificates are renewed, by the local time of this machine, like 22:00-05:00. "
        "Default: any time. Where a tenth of the lifetime or two days are left, it is any time as well.",
        default="",
        pattern=WINDOW_PATTERN,
    )


@dataclass(frozen=True)
class EnrollSettings:
    """Everything that enrollment and renewal need."""

    device: DeviceSettings
    state_directory: Path = option(
        "Where keys, certificates and the audit trail live.", default=Path("/var/lib/scanseal")
    )
    keystore: KeyStoreSettings = field(default_factory=KeyStoreSettings)
    identity: IdentitiesSettings = field(default_factory=IdentitiesSettings)
    est: EstSettings = field(default_factory=EstSettings)
    acme: AcmeSettings = field(default_factory=AcmeSettings)
    cmp: CmpSettings = field(default_factory=CmpSettings)
    scep: ScepSettings = field(default_factory=ScepSettings)
    offline: OfflineSettings = field(default_factory=OfflineSettings)
    fdo: FdoSettings = field(default_factory=FdoSettings)
    vendor: VendorSettings = field(default_factory=VendorSettings)
    revocation: RevocationSettings = field(default_factory=RevocationSettings)
    renewal: RenewalSettings = field(default_factory=RenewalSettings)
    attestation: AttestationSettings = field(default_factory=AttestationSettings)
