"""The evaluation attestation CA behind HTTPS; the calls are those of `enroll.attestation.client`. NOT FOR PRODUCTION.

Everybody who has the password of the factory line may ask, and nobody else.
"""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from enroll import der
from enroll.attestation.names import parsed
from enroll.certificates import PARSE_ERRORS
from enroll.errors import EnrollmentRefused, KeyStoreUnavailable
from enroll.evaluation.attestation_ca import AttestationCa
from enroll.evaluation.ca import USERNAME
from enroll.evaluation.https_server import LOG, EvaluationHandler, HttpsServer, Rejection


class AttestationServer(HttpsServer):
    """The server; runs between `start` and `stop`, in a `with` block, or in `serve_forever`.

    Args:
        ca: The CA behind it.
        address: Host and port; port 0 takes a free one. The server certificate is for loopback only.
        log: Gets one line for each request.
    """

    def __init__(
        self, ca: AttestationCa, address: tuple[str, int] = ("127.0.0.1", 0), log: Callable[[str], None] = LOG.info
    ) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(ca.directory / "server.pem", ca.directory / "server.key")
        super().__init__(context, partial(_Handler, ca), address, log)


class _Handler(EvaluationHandler):
    """One connection."""

    def __init__(self, ca: AttestationCa, *connection: Any) -> None:
        self._ca = ca
        super().__init__(*connection)

    def post(self) -> None:
        """Answer the three calls."""
        body = self.body()  # first: a connection that is closed with something unread may lose the answer
        answer = {
            "/attestation/challenge": self._challenge,
            "/attestation/certificate": self._certificate,
            "/attestation/key": self._key,
        }.get(self.path)
        if answer is None:
            raise Rejection(HTTPStatus.NOT_FOUND, "There is no such call.")
        self.check_password(USERNAME, self._ca.password)
        try:
            values = answer(_document(body))
        except EnrollmentRefused as error:
            raise Rejection(HTTPStatus.FORBIDDEN, error.what) from error
        except KeyStoreUnavailable as error:
            raise Rejection(HTTPStatus.NOT_IMPLEMENTED, str(error)) from error
        except PARSE_ERRORS as error:
            raise Rejection(HTTPStatus.BAD_REQUEST, "A value is not what it should be.") from error
        self.send(HTTPStatus.OK, {"Content-Type": "application/json"}, json.dumps(values).encode("ascii"))

    def _challenge(self, asked: dict[str, str]) -> dict[str, Any]:
        endorsement = parsed(_binary(asked, "ek_certificate"))
        challenge = self._ca.challenge(asked.get("serial_number", ""), endorsement, _binary(asked, "ak_public"))
        return {
            "challenge": challenge.identifier,
            "credential": _text(challenge.credential),
            "encrypted_secret": _text(challenge.encrypted_secret),
        }

    def _certificate(self, asked: dict[str, str]) -> dict[str, Any]:
        return _chain(self._ca.certify_attestation_key(asked.get("challenge", ""), _binary(asked, "secret")))

    def _key(self, asked: dict[str, str]) -> dict[str, Any]:
        request = _binary(asked, "request")
        if not der.is_one_value(request):
            raise Rejection(HTTPStatus.BAD_REQUEST, "The request is not DER.")
        return _chain(self._ca.certify_key(x509.load_der_x509_csr(request)))


def _document(body: bytes) -> dict[str, str]:
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Rejection(HTTPStatus.BAD_REQUEST, "The body is no JSON.") from error
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise Rejection(HTTPStatus.BAD_REQUEST, "The body is no JSON object of strings.")
    return values


def _chain(certificates: tuple[x509.Certificate, ...]) -> dict[str, Any]:
    return {"x5c": [_text(certificate.public_bytes(serialization.Encoding.DER)) for certificate in certificates]}


def _binary(asked: dict[str, str], name: str) -> bytes:
    return base64.b64decode(asked.get(name, ""), validate=True)


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")
