"""Asking an attestation CA for certificates: small JSON documents over HTTPS, binary values in base64.

| POST                     | asked                                    | answered                                |
|--------------------------|------------------------------------------|-----------------------------------------|
| /attestation/challenge   | serial_number, ek_certificate, ak_public | challenge, credential, encrypted_secret |
| /attestation/certificate | challenge, secret                        | x5c                                     |
| /attestation/key         | request (PKCS#10)                        | x5c                                     |

The first two get a certificate for an attestation key: who finds the secret in the credential has the TPM with this
endorsement key, and the attestation key is in the same TPM. The third gets one for a key in a token.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from enroll.attestation.evidence import CHAIN_LIMIT
from enroll.attestation.names import parsed
from enroll.clock import Clock
from enroll.config import AttestationSettings
from enroll.errors import (
    ConfigurationError,
    EnrollmentRefused,
    KeyStoreUnavailable,
    ProtocolViolation,
    ServerUnreachable,
)
from enroll.foreign import printable
from enroll.http import Answer, HttpsSession
from enroll.keystore.secretfile import read_secret
from enroll.statefile import StateFiles
from enroll.tls import client_context
from enroll.trust import CERTIFICATE_LIMIT

_VALUE_LIMIT = 2 * CERTIFICATE_LIMIT  # characters of base64


@dataclass(frozen=True)
class Challenge:
    """What the CA asks the TPM.

    Args:
        identifier: Names the challenge.
        credential: The content of TPM2B_ID_OBJECT.
        encrypted_secret: The content of TPM2B_ENCRYPTED_SECRET.
    """

    identifier: str
    credential: bytes
    encrypted_secret: bytes


class AttestationClient:
    """An attestation CA; closes its session at the end of a `with` block.

    Args:
        url: Of the server.
        session: A connection with pinned trust.
        authorization: The Authorization header of the factory line.
    """

    def __init__(self, url: str, session: HttpsSession, authorization: str) -> None:
        self._base = f"{url.rstrip('/')}/attestation"
        self._session = session
        self._authorization = authorization

    @classmethod
    def connect(
        cls, settings: AttestationSettings, anchors: Sequence[x509.Certificate], clock: Clock, files: StateFiles
    ) -> Self:
        """The configured CA.

        Raises:
            ConfigurationError: [attestation] is incomplete.
        """
        if not settings.url:
            raise ConfigurationError("[attestation] url is not set.", remedy="Set the https address of the CA.")
        try:
            password = read_secret(settings.password_file, "[attestation] password_file", files)
        except KeyStoreUnavailable as error:
            raise ConfigurationError(error.what, remedy=error.remedy) from error
        authorization = f"Basic {_encoded(settings.username.encode() + b':' + password)}"
        return cls(settings.url, HttpsSession(client_context(anchors), clock, settings.timeout), authorization)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def challenge(self, serial_number: str, endorsement: x509.Certificate, attestation_key: bytes) -> Challenge:
        """Begin to ask for the certificate of an attestation key.

        Args:
            serial_number: Of the device.
            endorsement: The certificate of the EK.
            attestation_key: TPMT_PUBLIC of the AK.

        Raises:
            EnrollmentError: No answer, none that this protocol allows, or a refusal.
        """
        asked = {
            "serial_number": serial_number,
            "ek_certificate": _encoded(endorsement.public_bytes(serialization.Encoding.DER)),
            "ak_public": _encoded(attestation_key),
        }
        values = self._ask("challenge", asked, {"challenge", "credential", "encrypted_secret"})
        return Challenge(
            _text(values["challenge"]), _decoded(values["credential"]), _decoded(values["encrypted_secret"])
        )

    def certificate(self, challenge: Challenge, secret: bytes) -> tuple[x509.Certificate, ...]:
        """The certificate of the attestation key, then its intermediates; raises as `challenge` does."""
        asked = {"challenge": challenge.identifier, "secret": _encoded(secret)}
        return _chain(self._ask("certificate", asked, {"x5c"}))

    def key_certificate(self, request: x509.CertificateSigningRequest) -> tuple[x509.Certificate, ...]:
        """The certificate of a key in a token, then its intermediates; raises as `challenge` does."""
        encoded = _encoded(request.public_bytes(serialization.Encoding.DER))
        return _chain(self._ask("key", {"request": encoded}, {"x5c"}))

    def _ask(self, call: str, asked: Mapping[str, str], fields: set[str]) -> dict[str, Any]:
        headers = {
            "Accept": "application/json",
            "Content-Type": "application/json",
            "Authorization": self._authorization,
        }
        answer = self._session.post(f"{self._base}/{call}", headers, json.dumps(asked).encode("ascii"))
        if answer.status != 200:  # noqa: PLR2004 - RFC 9110 15.3.1
            raise _refusal(answer)
        try:
            values = json.loads(answer.body)
        except (ValueError, RecursionError) as error:
            raise _violation("no JSON") from error
        if not isinstance(values, dict) or values.keys() != fields:
            raise _violation(f"something else than {', '.join(sorted(fields))}")
        return values


def _refusal(answer: Answer) -> ServerUnreachable | EnrollmentRefused:
    said = (
        printable(answer.body[:1024].decode("utf-8", errors="replace")) if answer.content_type == "text/plain" else ""
    )
    what = f"HTTP status {answer.status}{said and ': '}{said}"
    if answer.status >= 500 or answer.status == 429:  # noqa: PLR2004 - RFC 6585 4: too many requests
        return ServerUnreachable(f"The attestation CA cannot answer now ({what}).", remedy="Try again later.")
    return EnrollmentRefused(
        f"The attestation CA refused ({what}).",
        remedy="Check [attestation] username and password_file, and that it knows the manufacturer of this TPM.",
    )


def _chain(values: Mapping[str, Any]) -> tuple[x509.Certificate, ...]:
    entries = values["x5c"]
    if not isinstance(entries, list) or not 0 < len(entries) <= CHAIN_LIMIT:
        raise _violation(f"not one to {CHAIN_LIMIT} certificates")
    try:
        return tuple(parsed(_decoded(entry)) for entry in entries)
    except ValueError as error:
        raise _violation("a certificate that is none") from error


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > _VALUE_LIMIT:
        raise _violation("a value that is no text, or too long")
    return value


def _decoded(value: object) -> bytes:
    try:
        return base64.b64decode(_text(value), validate=True)
    except ValueError as error:
        raise _violation("a value that is not base64") from error


def _encoded(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _violation(what: str) -> ProtocolViolation:
    return ProtocolViolation(
        f"The attestation CA sent {what}.", remedy="Check that [attestation] url is that of an attestation CA."
    )
