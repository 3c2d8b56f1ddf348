"""The tables of scanseal.toml that say where certificates come from: one for each flow."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from enroll.algorithms import KeyAlgorithm
from enroll.options import option

_HTTPS = r"(|https://[^\s/?#@]+)/?"
_HTTPS_PATH = r"(|https://[^\s?#@]+)"
_HTTP_OR_HTTPS = r"(|https?://[^\s?#@]+)"
_LABEL = r"[A-Za-z0-9._~-]{0,64}"
_ISSUED_ANCHOR = "File (PEM or DER) with the CA certificate that every issued certificate must lead to. "
_TRUSTED_WAY = "Get it on a trusted way."
_SERVER_ANCHOR = "File (PEM or DER) with the CA certificate of the server's address, where that is another one. "


class FlowName(StrEnum):
    """The ways to a certificate."""

    EST = "est"
    ACME = "acme"
    CMP = "cmp"
    SCEP = "scep"
    OFFLINE = "offline"
    FDO = "fdo"
    VENDOR = "vendor"


@dataclass(frozen=True)
class EstSettings:
    """`[est]`: the hospital's CA over Enrollment over Secure Transport (RFC 7030)."""

    url: str = option("Address of the EST server, without /.well-known/est.", default="", pattern=_HTTPS)
    label: str = option("EST label (RFC 7030 3.2.2), where the CA wants one.", default="", pattern=_LABEL)
    anchor_file: Path | None = option(
        "File (PEM or DER) with the CA certificate that the server and every issued certificate must lead to. "
        "Get it on a trusted way.",
        default=None,
    )
    anchor_fingerprint: str = option(
        "Instead of anchor_file: SHA-256 of the CA certificate, 64 hexadecimal digits as printed on paper or by "
        "openssl, with colons or spaces between them or without. The certificate is then fetched from the server and "
        "compared.",
        default="",
        pattern=r"[^\x00-\x1f\x7f]{0,200}",
    )
    username: str = option(
        "User name of the first enrollment (HTTP Basic or Digest); without a colon.",
        default="",
        pattern=r"[^\x00-\x1f\x7f:]{0,255}",
    )
    password_file: Path | None = option("File that holds the password of the first enrollment.", default=None)
    timeout: int = option("Longest time for one exchange.", default=30, unit="seconds", at_least=1, at_most=600)


class AcmeIdentifier(StrEnum):
    """What an ACME order is about: RFC 8555 9.7.7, draft-ietf-acme-device-attest 3 and 4."""

    DNS = "dns"
    PERMANENT_IDENTIFIER = "permanent-identifier"
    HARDWARE_MODULE = "hardware-module"


class AcmeChallenge(StrEnum):
    """How control of an identifier is shown: RFC 8555 8.3 and 8.4, draft-ietf-acme-device-attest 5."""

    HTTP = "http-01"
    DNS = "dns-01"
    DEVICE_ATTEST = "device-attest-01"


@dataclass(frozen=True)
class AcmeSettings:
    """`[acme]`: the hospital's CA over ACME (RFC 8555)."""

    directory_url: str = option("Address of the ACME directory.", default="", pattern=_HTTPS_PATH)
    anchor_file: Path | None = option(_ISSUED_ANCHOR + _TRUSTED_WAY, default=None)
    server_anchor_file: Path | None = option(_SERVER_ANCHOR + "Default: anchor_file.", default=None)
    identifier_type: AcmeIdentifier = option(
        "What the order names. permanent-identifier and hardware-module: the device, which device-attest-01 proves. "
        "dns: a host name, for the device identity only.",
        default=AcmeIdentifier.PERMANENT_IDENTIFIER,
    )
    identifier: str = option(
        "The value of it. Empty: the serial number of the device; a host name has to be given.",
        default="",
        pattern=r"[^\x00-\x1f\x7f]{0,253}",
    )
    challenge: AcmeChallenge = option(
        "How the device shows that it is the one. device-attest-01: by evidence of where its key lives. http-01 and "
        "dns-01: by the program in hook.",
        default=AcmeChallenge.DEVICE_ATTEST,
    )
    hook: Path | None = option(
        "Program that puts the answer of a challenge where the CA looks for it, and takes it away.", default=None
    )
    eab_key_id: str = option(
        "Key identifier of the external account binding (RFC 8555 7.3.4), where the CA wants one.",
        default="",
        pattern=r"[^\x00-\x1f\x7f]{0,255}",
    )
    eab_key_file: Path | None = option("File with the MAC key of it, in base64url.", default=None)
    contact: str = option(
        "Mail address of who is responsible, which the CA keeps with the account; may be empty.",
        default="",
        pattern=r"(|[^\s@,?]+@[^\s@,?]+)",
    )
    account_key_store: str = option("Store of the account key.", default="software", pattern=r"software|pkcs11|tpm")
    account_key_algorithm: KeyAlgorithm = option(
        "Kind of the account key.", default=KeyAlgorithm.P_256, pattern=r"p-.*|rsa-.*"
    )
    profile: str = option(
        "Profile of certificates (draft-ietf-acme-profiles), where the CA offers several.",
        default="",
        pattern=r"[!-~]{0,64}",
    )
    terms_of_service_agreed: bool = option(
        "Whether you agree to the terms of service that the directory names; some CAs demand it.", default=False
    )
    patience: int = option(
        "How long one run waits for the CA to validate and issue; then the next run goes on.",
        default=60,
        unit="seconds",
        at_least=1,
        at_most=3600,
    )
    timeout: int = option("Longest time for one exchange.", default=30, unit="seconds", at_least=1, at_most=600)


class CmpFirstRequest(StrEnum):
    """The body of a first request: RFC 9483 4.1.1 and 4.1.4."""

    IR = "ir"
    P10CR = "p10cr"


@dataclass(frozen=True)
class CmpSettings:
    """`[cmp]`: the hospital's CA over CMP, lightweight profile (RFC 9483)."""

    url: str = option(
        "Address of the CMP server with its path, such as http://ca.hospital.example/.well-known/cmp. Messages are "
        "signed, so plain HTTP will do.",
        default="",
        pattern=_HTTP_OR_HTTPS,
    )
    anchor_file: Path | None = option(
        "File (PEM or DER) with the CA certificate that every answer and every issued certificate must lead to. "
        + _TRUSTED_WAY,
        default=None,
    )
    server_anchor_file: Path | None = option(_SERVER_ANCHOR + "Default: anchor_file.", default=None)
    answered_by: str = option(
        "Subject of the certificate that signs the answers, as in an error message of scanseal; needed only where it "
        "is not that of a CA and names neither cmcCA nor cmcRA in extendedKeyUsage (RFC 9810 4.5).",
        default="",
        pattern=r"[^\x00-\x1f\x7f]{0,200}",
    )
    first_request: CmpFirstRequest = option(
        "Body of a first request. p10cr wraps a PKCS#10 request, which some CAs want.", default=CmpFirstRequest.IR
    )
    implicit_confirmation: bool = option("Whether to ask the CA to do without certConf.", default=False)
    timeout: int = option("Longest time for one exchange.", default=30, unit="seconds", at_least=1, at_most=600)


@dataclass(frozen=True)
class ScepSettings:
    """`[scep]`: the last choice, for a site with nothing but SCEP (RFC 8894), such as NDES."""

    enabled: bool = option(
        "Whether SCEP may be used at all. docs/adr/0029-scep.md says what is wrong with it.", default=False
    )
    url: str = option("Address of the SCEP server with its path.", default="", pattern=_HTTP_OR_HTTPS)
    anchor_file: Path | None = option(
        "File (PEM or DER) with the CA certificate that every answer and every issued certificate must lead to. "
        + _TRUSTED_WAY,
        default=None,
    )
    server_anchor_file: Path | None = option(_SERVER_ANCHOR + "Default: anchor_file.", default=None)
    challenge_file: Path | None = option(
        "File that holds the challenge password of a first request. Renewals take it along where it is there; those of "
        "a key that is not RSA in a file need it.",
        default=None,
    )
    timeout: int = option("Longest time for one exchange.", default=30, unit="seconds", at_least=1, at_most=600)


@dataclass(frozen=True)
class OfflineSettings:
    """`[offline]`: a CA that is reached by USB stick or mail."""

    anchor_file: Path | None = option(_ISSUED_ANCHOR + _TRUSTED_WAY, default=None)


@dataclass(frozen=True)
class VendorSettings:
    """`[vendor]`: the provisioning service of whoever built the scanner; EST (RFC 7030) with a service ticket."""

    url: str = option("Address of the service, without /.well-known/est.", default="", pattern=_HTTPS)
    label: str = option("EST label of the vendor's CA (RFC 7030 3.2.2).", default="", pattern=_LABEL)
    anchor_file: Path | None = option(
        "File (PEM or DER) with the vendor's CA certificate, which the service and all that it issues must lead to.",
        default=None,
    )
    timeout: int = option("Longest time for one exchange.", default=30, unit="seconds", at_least=1, at_most=600)


class FdoApproval(StrEnum):
    """When a person has to approve an owner."""

    NEVER = "never"
    REOWNING = "reowning"
    ALWAYS = "always"


class FdoRenewal(StrEnum):
    """How a certificate that came by FDO is renewed."""

    AS_OWNER_SAYS = "as-owner-says"
    EST = "est"
    ACME = "acme"
    CMP = "cmp"


class FdoCipher(StrEnum):
    """The cipher suites, by the names of FDO 1.1, 4.4."""

    A128GCM = "A128GCM"
    A256GCM = "A256GCM"
    AES_CCM_64_128_128 = "AES-CCM-64-128-128"
    AES_CCM_64_128_256 = "AES-CCM-64-128-256"
    AES128_CBC = "AES128/CBC"
    AES128_CTR = "AES128/CTR"
    AES256_CBC = "AES256/CBC"
    AES256_CTR = "AES256/CTR"


@dataclass(frozen=True)
class FdoSettings:
    """`[fdo]`: the owner takes the scanner over by FIDO Device Onboard 1.1, which ends in a certificate."""

    owner_anchor_file: Path | None = option(
        "File (PEM or DER) with the roots of those who may own this scanner: the certificates of an owner's key must "
        "lead to one of them.",
        default=None,
    )
    owner_fingerprints: tuple[str, ...] = option(
        "SHA-256 fingerprints of the keys of those who may own this scanner, as `scanseal fdo voucher show` prints "
        "them. With neither these nor owner_anchor_file nor voucher_fingerprints, whoever the voucher names may.",
        default=(),
    )
    voucher_fingerprints: tuple[str, ...] = option(
        "SHA-256 fingerprints of vouchers, as `scanseal fdo voucher show` prints them: who shows one of them may own "
        "this scanner.",
        default=(),
    )
    approval: FdoApproval = option(
        "When a person at the scanner has to approve its owner (scanseal fdo approve). reowning: when it is not the "
        "first one, so that who had the scanner before cannot take it back unseen. always: every time that the owner "
        "changes. never: the voucher and the lists above decide alone.",
        default=FdoApproval.REOWNING,
    )
    credential_reuse: bool = option(
        "Whether an owner may onboard this scanner without giving it a new credential.", default=False
    )
    anchor_file: Path | None = option(
        "File (PEM or DER) with the CA certificate that issued certificates must lead to. Default: what the owner "
        "brings, which has proved to be the owner.",
        default=None,
    )
    renewal: FdoRenewal = option(
        "How the certificate is renewed; FDO itself does not renew. est, acme, cmp: by the table of that name. "
        "as-owner-says: as the owner's server said.",
        default=FdoRenewal.AS_OWNER_SAYS,
    )
    cipher: FdoCipher = option(
        "Cipher suite. CBC and CTR only for an owner's server that knows no other: implementations differ in them.",
        default=FdoCipher.A256GCM,
    )
    key_exchange: str = option(
        "Key exchange. Empty: what fits the key that the voucher began with.",
        default="",
        pattern=r"(|ECDH256|ECDH384|DHKEXid14|DHKEXid15|ASYMKEX2048|ASYMKEX3072)",
    )
    service_info_size: int = option(
        "Longest message of service info that is accepted.", default=4096, unit="bytes", at_least=256, at_most=65535
    )
    timeout: int = option("Longest time for one exchange.", default=30, unit="seconds", at_least=1, at_most=600)
    factory_mode: bool = option(
        "Whether `scanseal fdo init` may make the credential. Only on the factory line: whoever answers there becomes "
        "the manufacturer.",
        default=False,
    )
    manufacturer_url: str = option(
        "Address of the manufacturer's server; only in the factory.", default="", pattern=_HTTP_OR_HTTPS
    )
    key_store: str = option(
        "Store of the device key and the HMAC secret; only in the factory.",
        default="software",
        pattern=r"software|pkcs11|tpm",
    )
    token: str = option(
        "Label of the token, where there are several; only in the factory. Empty: [keystore.pkcs11] token.", default=""
    )
    key_algorithm: KeyAlgorithm = option(
        "Kind of the device key; those of manufacturer and owners are of the same kind. Only in the factory.",
        default=KeyAlgorithm.P_256,
        pattern=r"p-.*|rsa-[23].*",
    )
    key_encoding: str = option(
        "How the keys of manufacturer and owners are written in the voucher; only in the factory.",
        default="X5CHAIN",
        pattern=r"X509|X5CHAIN|COSEKEY",
    )
