"""A CMP server in this process that answers whatever a test wants, right or wrong; each answer is signed anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from enroll import der
from enroll.csr import CertificateRequest, Usage
from enroll.flows.base import Enrollment
from enroll.flows.cmp import CmpFlow, protection, syntax
from enroll.flows.cmp.protection import Signer
from enroll.flows.cmp.syntax import Body
from enroll.flows.cmp.transaction import CONTENT_TYPE, Channel
from enroll.flows.settings import CmpSettings
from enroll.http import Answer, HttpsSession
from enroll.identity import IdentityName
from enroll.keystore.base import PrivateKey
from enroll.time_stamp_syntax import PkiStatusInfo, decoded, encoded, whole
from tests.support.clocks import SteppedClock
from tests.support.cmp_server import CMC_RA
from tests.support.pki import DEVICE, REQUEST, Content, HospitalCa, name, new_key

CA = HospitalCa()
VENDOR = HospitalCa("Vendor CA")
KEY = new_key()
ENROLLMENT = Enrollment(KEY, REQUEST)
CERTIFICATE = CA.issue(KEY.public_key())
_FACTORY_KEY = new_key()
_FACTORY = VENDOR.issue(
    _FACTORY_KEY.public_key(), Content(subject=CertificateRequest.for_device(DEVICE, Usage.DEVICE).subject)
)
SIGNER = Signer(IdentityName.IDEVID, _FACTORY, (), _FACTORY_KEY)


def server_certificate(key: PrivateKey, ca: HospitalCa = CA, **changes: Any) -> x509.Certificate:
    """The certificate of a CMP server."""
    content = Content(subject=name(COMMON_NAME="CMP server"), alternative_names=(), extended_usage=(CMC_RA,))
    return ca.issue(key.public_key(), replace(content, **changes))


@dataclass(frozen=True)
class Request:
    """What the server sees of a message."""

    transaction_id: bytes
    sender_nonce: bytes
    body: Body

    @classmethod
    def read(cls, message: bytes) -> Request:
        outer = decoded(syntax.PkiMessage, message)
        header = decoded(syntax.PkiHeader, whole(outer.header))
        assert header.transaction_id is not None
        assert header.sender_nonce is not None
        return cls(header.transaction_id, header.sender_nonce, Body(outer.body.tag_bytes[0] & 0x1F))


@dataclass(frozen=True)
class Server:
    """Who signs answers."""

    key: PrivateKey = field(default_factory=new_key)
    certificate: x509.Certificate | None = None
    extra: Sequence[bytes] | None = None
    digest: hashes.HashAlgorithm = field(default_factory=hashes.SHA256)

    def message(self, request: Request, body: int, content: bytes, **header: Any) -> bytes:
        """A signed answer; `header` are its fields where they are not the right ones."""
        certificate = self.certificate or server_certificate(self.key)
        fields: dict[str, Any] = {
            "pvno": 2,
            "sender": syntax.general_name(certificate.subject),
            "recipient": syntax.general_name(SIGNER.certificate.subject),
            "message_time": None,
            "protection_alg": [syntax.undecoded(encoded(protection.algorithm_for(self.key)))],
            "sender_kid": None,
            "recip_kid": None,
            "transaction_id": request.transaction_id,
            "sender_nonce": b"S" * 16,
            "recip_nonce": request.sender_nonce,
            "free_text": None,
            "general_info": None,
        }
        head = encoded(syntax.PkiHeader(**{**fields, **header}))
        whole_body = der.encode(0xA0 | body, content)
        signature = self.sign(protection.protected_part(head, whole_body))
        extra = [syntax.der_of(certificate)] if self.extra is None else self.extra
        return assemble(head, whole_body, asn1.BitString(signature, 0), extra)

    def sign(self, data: bytes) -> bytes:
        digest = cast("Any", self.digest)
        if isinstance(self.key, rsa.RSAPrivateKey):
            return self.key.sign(data, padding.PKCS1v15(), digest)
        return self.key.sign(data, ec.ECDSA(digest))


SERVER = Server()


def assemble(header: bytes, body: bytes, signature: asn1.BitString | None, extra: Sequence[bytes] | None) -> bytes:
    """A message from its parts."""
    certificates = None if extra is None else [syntax.undecoded(each) for each in extra]
    return encoded(
        syntax.PkiMessage(
            header=syntax.undecoded(header),
            body=syntax.undecoded(body),
            protection=signature,
            extra_certs=certificates,
        )
    )


def status(number: int, *texts: str, failures: bytes | None = None) -> PkiStatusInfo:
    bits = None if failures is None else asn1.BitString(failures, 0)
    return PkiStatusInfo(status=number, status_string=list(texts) or None, fail_info=bits)


def response(certificate: x509.Certificate | None = CERTIFICATE, **changes: Any) -> syntax.CertResponse:
    """A CertResponse with a certificate, or what a test wants instead."""
    pair = certificate and syntax.CertifiedKeyPair(
        cert_or_enc_cert=syntax.undecoded(der.encode(0xA0, syntax.der_of(certificate))),
        private_key=None,
        publication_info=None,
    )
    fields: dict[str, Any] = {"cert_req_id": 0, "status": status(0), "certified_key_pair": pair, "rsp_info": None}
    return syntax.CertResponse(**{**fields, **changes})


def reply(*responses: syntax.CertResponse, ca_pubs: Sequence[bytes] | None = None) -> bytes:
    """The content of ip."""
    certificates = None if ca_pubs is None else [syntax.undecoded(each) for each in ca_pubs]
    return encoded(syntax.CertRepMessage(ca_pubs=certificates, response=list(responses)))


def waiting(check_after: int, request_id: int = 0) -> bytes:
    """The content of pollRep."""
    told = syntax.PollResponse(cert_req_id=request_id, check_after=check_after, reason=None)
    return der.encode(der.SEQUENCE, encoded(told))


def error(info: PkiStatusInfo, *details: str) -> bytes:
    """The content of an error message."""
    return encoded(syntax.ErrorMsgContent(pki_status_info=info, error_code=None, error_details=list(details) or None))


Script = Callable[[Request], bytes]


class ScriptedSession:
    """Answers one message after the other as its scripts say; the last one again and again."""

    def __init__(self, *scripts: Script, status: int = 200, content_type: str = CONTENT_TYPE) -> None:
        self.scripts = list(scripts)
        self.status = status
        self.content_type = content_type
        self.requests: list[Request] = []

    def post(self, _url: str, _headers: object, body: bytes) -> Answer:
        request = Request.read(body)
        self.requests.append(request)
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        return Answer(self.status, {"content-type": self.content_type}, script(request))

    def close(self) -> None:
        """Nothing is open."""


def issue(request: Request) -> bytes:
    """The right answer to ir."""
    return SERVER.message(request, Body.IP, reply(response()))


def confirm(request: Request) -> bytes:
    """The right answer to certConf."""
    return SERVER.message(request, Body.PKICONF, b"\x05\x00")


def flow(
    session: ScriptedSession,
    clock: SteppedClock | None = None,
    anchors: tuple[x509.Certificate, ...] = (CA.certificate,),
    **settings: Any,
) -> CmpFlow:
    """A flow that talks to the script."""
    channel = Channel(
        "http://cmp.example/",
        cast("HttpsSession", session),
        SIGNER,
        anchors,
        clock or SteppedClock(),
        settings.get("answered_by", ""),
    )
    settings.pop("answered_by", "")
    return CmpFlow(CmpSettings(url=channel.url, **settings), channel)
