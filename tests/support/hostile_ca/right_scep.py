"""SCEP as it should be: RFC 8894, with a registration authority as NDES has."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs7

from enroll.clock import SystemClock
from enroll.flows.scep.syntax import PkiStatus
from enroll.flows.settings import FlowName
from tests.support.hostile_ca.certifying import LIFETIME, MARGIN, asked_content, asked_of, certs_only, der_of
from tests.support.hostile_ca.misbehaviour import Said, Step, Turn
from tests.support.pki import HospitalCa
from tests.support.scep_answers import CAPABILITIES, MEDIA_TYPE, Server, ra_certificate, sealed
from tests.support.scep_answers import Request as Message
from tests.support.scripted_server import Request

if TYPE_CHECKING:
    from tests.support.hostile_ca.server import HostileCa


@cache
def server_of(ca: HospitalCa) -> Server:
    """Who signs for a CA."""
    key = rsa.generate_private_key(65537, 2048)
    return Server(key, certificate_of_server(key, ca))


def certificate_of_server(key: rsa.RSAPrivateKey, ca: HospitalCa, **changes: Any) -> x509.Certificate:
    """Valid now."""
    now = SystemClock().now()
    return ra_certificate(key, ca, **{"begin": now - MARGIN, "end": now + LIFETIME, **changes})


def answer(stub: HostileCa, request: Request) -> bytes | Iterator[bytes]:
    """To whoever asks."""
    operation = request.path.partition("operation=")[2]
    if operation == "GetCACaps":
        return stub.turn(Step.CAPABILITIES, request, Said(CAPABILITIES.encode()))
    server = server_of(stub.ca)
    if operation == "GetCACert":
        return stub.turn(Step.AUTHORITIES, request, authorities(server.certificate, stub.ca.certificate))
    received = message_in(request, stub.ca)
    content = sealed(received, certs_only(*stub.issued(FlowName.SCEP, asked_of(received.csr))))
    return stub.turn(Step.ISSUING, request, said(server.message(received, PkiStatus.SUCCESS, content, {})))


def authorities(*certificates: x509.Certificate) -> Said:
    """What GetCACert brings (RFC 8894 4.2.1)."""
    data = pkcs7.serialize_certificates(list(certificates), serialization.Encoding.DER)
    return Said(data, content_type="application/x-x509-ca-ra-cert")


def message_in(request: Request, ca: HospitalCa) -> Message:
    """What was asked."""
    server = server_of(ca)
    return Message.read(request.body, server.key, server.certificate)


def right_content(turn: Turn) -> bytes:
    """What is encrypted in the right answer; for whom it is does not show in it."""
    received = message_in(turn.request, turn.ca)
    asked = asked_of(received.csr)
    return sealed(
        received, certs_only(der_of(turn.ca.issue(asked.public_key, asked_content(asked, SystemClock().now()))))
    )


def said(message: bytes) -> Said:
    """A message over HTTP (RFC 8894 4.3)."""
    return Said(message, content_type=MEDIA_TYPE)
