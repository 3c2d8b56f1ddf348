"""A SCEP server in this process that answers whatever a test wants, right or wrong; each answer is signed anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import ObjectIdentifier

from enroll import der
from enroll.config import EnrollSettings
from enroll.flows.base import Enrollment, FlowContext, Handle
from enroll.flows.scep import ScepFlow, syntax
from enroll.flows.scep.syntax import MessageType, PkiStatus
from enroll.flows.settings import ScepSettings
from enroll.http import Answer, HttpsSession
from enroll.identity import IdentityName
from enroll.time_stamp_syntax import (
    CONTENT_TYPE,
    MESSAGE_DIGEST,
    SHA_256,
    SIGNED_DATA,
    AlgorithmIdentifier,
    IssuerAndSerialNumber,
    SignedAttributes,
    SignerInfo,
    decoded,
    encoded,
    whole,
)
from tests.support.enrolling import Scanner
from tests.support.pki import DEVICE, REQUEST, Content, HospitalCa, name

CA_KEY = rsa.generate_private_key(65537, 2048)
CA = HospitalCa(key=CA_KEY)
KEY = rsa.generate_private_key(65537, 2048)
CERTIFICATE = CA.issue(KEY.public_key())
CAPABILITIES = "POSTPKIOperation\nRenewal\nSHA-256\nAES\n"
CHALLENGE = "a challenge"
REQUEST_AGENT = ObjectIdentifier("1.3.6.1.4.1.311.20.2.1")
MEDIA_TYPE = "application/x-pki-message"
RSA_ENCRYPTION = der.encode(der.SEQUENCE, der.object_identifier("1.2.840.113549.1.1.1") + b"\x05\x00")
SHA_1 = ObjectIdentifier("1.3.14.3.2.26")


def ra_certificate(key: rsa.RSAPrivateKey, ca: HospitalCa = CA, **changes: Any) -> x509.Certificate:
    """The certificate of a registration authority, as NDES has."""
    content = Content(subject=name(COMMON_NAME="RA"), alternative_names=(), extended_usage=(REQUEST_AGENT,))
    return ca.issue(key.public_key(), replace(content, **changes))


@dataclass(frozen=True)
class Request:
    """What the server sees of a message, after it has opened it."""

    kind: str
    transaction: bytes
    nonce: bytes
    certificate: x509.Certificate
    content: bytes

    @classmethod
    def read(cls, message: bytes, key: rsa.RSAPrivateKey = CA_KEY, own: x509.Certificate = CA.certificate) -> Request:
        signed = decoded(syntax.ContentInfo, message).content
        (info,) = signed.signer_infos.as_list()
        attributes = bytes([syntax.SET]) + whole(info.signed_attrs)[1:]
        listed = decoded(SignedAttributes, der.encode(der.SEQUENCE, attributes)).attributes.as_list()
        values = {each.attr_type: whole(each.attr_values.as_list()[0]) for each in listed}
        (encoded_certificate,) = signed.certificates or []
        certificate = x509.load_der_x509_certificate(whole(encoded_certificate))
        signer = cast("rsa.RSAPublicKey", certificate.public_key())
        signer.verify(info.signature, attributes, padding.PKCS1v15(), hashes.SHA256())
        return cls(
            bytes(decoded(asn1.TLV, values[syntax.MESSAGE_TYPE]).data).decode(),
            values[syntax.TRANSACTION_ID],
            values[syntax.SENDER_NONCE],
            certificate,
            pkcs7.pkcs7_decrypt_der(signed.encap_content_info.e_content or b"", own, key, []),
        )

    @property
    def csr(self) -> x509.CertificateSigningRequest:
        """What is asked for."""
        return x509.load_der_x509_csr(self.content)


def envelope(request: Request, *certificates: x509.Certificate) -> bytes:
    """Certificates, encrypted to whoever asked."""
    return sealed(request, pkcs7.serialize_certificates(list(certificates), serialization.Encoding.DER))


def sealed(request: Request, content: bytes) -> bytes:
    builder = pkcs7.PKCS7EnvelopeBuilder().set_data(content).add_recipient(request.certificate)
    builder = builder.set_content_encryption_algorithm(algorithms.AES128)
    return builder.encrypt(serialization.Encoding.DER, [pkcs7.PKCS7Options.Binary])


@dataclass(frozen=True)
class Server:
    """Who signs answers."""

    key: rsa.RSAPrivateKey = field(default_factory=lambda: CA_KEY)
    certificate: x509.Certificate = CA.certificate
    digest: tuple[ObjectIdentifier, hashes.HashAlgorithm] = (SHA_256, hashes.SHA256())
    beside: Sequence[bytes] = ()

    def message(
        self, request: Request, status: str, content: bytes | None, changes: dict[ObjectIdentifier, bytes | None]
    ) -> bytes:
        """A signed CertRep; `changes` are its attributes where they are not the right ones, None where missing."""
        attributes: dict[ObjectIdentifier, bytes | None] = {
            CONTENT_TYPE: der.object_identifier(syntax.DATA.dotted_string),
            MESSAGE_DIGEST: syntax.octet_string(self._hash(content or b"")),
            syntax.MESSAGE_TYPE: syntax.printable_string(MessageType.CERT_REP),
            syntax.PKI_STATUS: syntax.printable_string(status),
            syntax.TRANSACTION_ID: request.transaction,
            syntax.SENDER_NONCE: syntax.octet_string(b"S" * 16),
            syntax.RECIPIENT_NONCE: request.nonce,
            **changes,
        }
        return self.signed(syntax.signed_attributes({k: v for k, v in attributes.items() if v is not None}), content)

    def signed(self, attributes: bytes, content: bytes | None) -> bytes:
        oid, algorithm = self.digest
        identifier = AlgorithmIdentifier(algorithm=oid, parameters=None)
        issuer = syntax.undecoded(self.certificate.issuer.public_bytes())
        info = SignerInfo(
            version=1,
            sid=IssuerAndSerialNumber(issuer=issuer, serial_number=self.certificate.serial_number),
            digest_algorithm=identifier,
            signed_attrs=syntax.undecoded(bytes([0xA0]) + attributes[1:]),
            signature_algorithm=syntax.undecoded(RSA_ENCRYPTION),
            signature=self.key.sign(attributes, padding.PKCS1v15(), algorithm),
            unsigned_attrs=None,
        )
        return self.assembled([info], content)

    def assembled(self, infos: list[SignerInfo], content: bytes | None) -> bytes:
        signed = syntax.SignedData(
            version=1,
            digest_algorithms=asn1.SetOf([AlgorithmIdentifier(algorithm=self.digest[0], parameters=None)]),
            encap_content_info=syntax.EncapsulatedContentInfo(e_content_type=syntax.DATA, e_content=content),
            certificates=[syntax.undecoded(each) for each in self.beside] or None,
            crls=None,
            signer_infos=asn1.SetOf(infos),
        )
        return encoded(syntax.ContentInfo(content_type=SIGNED_DATA, content=signed))

    def _hash(self, data: bytes) -> bytes:
        digest = hashes.Hash(self.digest[1])
        digest.update(data)
        return digest.finalize()


def enrollment(**changes: Any) -> Enrollment:
    """A request for KEY, with a handle of its own."""
    return replace(Enrollment(KEY, REQUEST, handle=Handle()), **changes)


SERVER = Server()
Script = Callable[[Request], bytes]


def issue(request: Request) -> bytes:
    """The right answer: the certificate for KEY."""
    return SERVER.message(request, PkiStatus.SUCCESS, envelope(request, CERTIFICATE), {})


def refuse(code: str, text: str | None = None) -> Script:
    """CertRep FAILURE."""
    changes: dict[ObjectIdentifier, bytes | None] = {syntax.FAIL_INFO: syntax.printable_string(code)}
    if text is not None:
        changes[syntax.FAIL_INFO_TEXT] = der.encode(der.UTF8_STRING, text.encode())
    return lambda request: SERVER.message(request, PkiStatus.FAILURE, None, changes)


def wait(request: Request) -> bytes:
    """CertRep PENDING."""
    return SERVER.message(request, PkiStatus.PENDING, None, {})


class ScriptedSession:
    """Answers one message after the other as its scripts say; the last one again and again."""

    def __init__(
        self,
        *scripts: Script,
        status: int = 200,
        media_type: str = MEDIA_TYPE,
        capabilities: str = CAPABILITIES,
        certificates: Sequence[x509.Certificate] = (CA.certificate,),
        own: tuple[rsa.RSAPrivateKey, x509.Certificate] = (CA_KEY, CA.certificate),
    ) -> None:
        self.scripts = list(scripts)
        self.status = status
        self.media_type = media_type
        self.own = own
        self.requests: list[Request] = []
        self.gets = {
            "GetCACaps": Answer(200, {"content-type": "text/plain"}, capabilities.encode()),
            "GetCACert": ca_answer(*certificates),
        }

    def get(self, url: str, _headers: object) -> Answer:
        return self.gets[url.partition("operation=")[2]]

    def post(self, _url: str, _headers: object, body: bytes) -> Answer:
        request = Request.read(body, *self.own)
        self.requests.append(request)
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        return Answer(self.status, {"content-type": self.media_type}, script(request))

    def close(self) -> None:
        """Nothing is open."""


def ca_answer(*certificates: x509.Certificate) -> Answer:
    """What GetCACert brings (RFC 8894 4.2.1)."""
    if len(certificates) == 1:
        data = certificates[0].public_bytes(serialization.Encoding.DER)
        return Answer(200, {"content-type": "application/x-x509-ca-cert"}, data)
    data = pkcs7.serialize_certificates(list(certificates), serialization.Encoding.DER)
    return Answer(200, {"content-type": "application/x-x509-ca-ra-cert"}, data)


def scanner(folder: Path, **settings: Any) -> Scanner:
    """One that has `[scep]`, and no key store."""
    challenge_file = folder / "challenge"
    challenge_file.write_text(CHALLENGE, "ascii")
    challenge_file.chmod(0o600)
    scep = ScepSettings(enabled=True, url="http://scep.example/", challenge_file=challenge_file)
    plain = EnrollSettings(device=DEVICE, state_directory=folder / "state", scep=replace(scep, **settings))
    return Scanner(plain, (CA.certificate,))


def flow(session: ScriptedSession, folder: Path, identity: IdentityName = IdentityName.SIGNING) -> ScepFlow:
    """A flow that talks to the script."""
    return flow_in(scanner(folder).context, session, identity)


def flow_in(context: FlowContext, session: ScriptedSession, identity: IdentityName = IdentityName.SIGNING) -> ScepFlow:
    """The same in a process that is there already."""
    return ScepFlow(identity, context, cast("HttpsSession", session), (CA.certificate,))
