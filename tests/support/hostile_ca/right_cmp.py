"""CMP as it should be: RFC 9483."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from enroll import der
from enroll.clock import SystemClock
from enroll.flows.cmp import syntax
from enroll.flows.cmp.syntax import Body
from enroll.flows.cmp.transaction import CONTENT_TYPE
from enroll.flows.settings import FlowName
from enroll.time_stamp_syntax import decoded
from tests.support.cmp_answers import Request as Message
from tests.support.cmp_answers import Server, reply, response, server_certificate, waiting
from tests.support.cmp_server import asked, parsed_message
from tests.support.hostile_ca.certifying import LIFETIME, MARGIN
from tests.support.hostile_ca.misbehaviour import Said, Step, Turn
from tests.support.pki import HospitalCa, new_key
from tests.support.scripted_server import Request

if TYPE_CHECKING:
    from tests.support.hostile_ca.server import HostileCa

ANSWERS = {Body.IR: Body.IP, Body.CR: Body.CP, Body.P10CR: Body.CP, Body.KUR: Body.KUP}


@cache
def server_of(ca: HospitalCa) -> Server:
    """Who signs for a CA."""
    key = new_key()
    return Server(key, certificate_of_server(key, ca))


def certificate_of_server(key: Any, ca: HospitalCa, **changes: Any) -> Any:
    """Valid now."""
    now = SystemClock().now()
    return server_certificate(key, ca, **{"begin": now - MARGIN, "end": now + LIFETIME, **changes})


def answer(stub: HostileCa, request: Request) -> bytes | Iterator[bytes]:
    """To whoever asks."""
    received = Message.read(request.body)
    server = server_of(stub.ca)
    if received.body is Body.CERTCONF:
        return stub.turn(Step.CONFIRMATION, request, said(server.message(received, Body.PKICONF, b"\x05\x00")))
    if received.body is Body.POLLREQ:
        return stub.turn(Step.POLL, request, said(server.message(received, Body.POLLREP, waiting(1))))
    certificates = stub.issued(FlowName.CMP, asked(parsed_message(request.body)))
    return stub.turn(
        Step.ISSUING, request, said(server.message(received, ANSWERS[received.body], content(certificates)))
    )


def content(certificates: Sequence[bytes]) -> bytes:
    """Of ip, cp and kup: a certificate, and others beside it."""
    first, *others = certificates
    pair = syntax.CertifiedKeyPair(
        cert_or_enc_cert=syntax.undecoded(der.encode(0xA0, first)), private_key=None, publication_info=None
    )
    return reply(response(None, certified_key_pair=pair), ca_pubs=others or None)


def said(message: bytes) -> Said:
    """A message over HTTP (RFC 9811 3)."""
    return Said(message, content_type=CONTENT_TYPE)


def signed_anew(turn: Turn, server: Server | None = None, body: int | None = None, **header: Any) -> Said:
    """The right answer with another header, body or signer."""
    message = decoded(syntax.PkiMessage, turn.said.body)
    kind = message.body.tag_bytes[0] & 0x1F if body is None else body
    signer = server or server_of(turn.ca)
    return said(signer.message(Message.read(turn.request.body), kind, bytes(message.body.data), **header))


def with_content(turn: Turn, data: bytes, body: int = Body.KUP) -> Said:
    """Another body, properly signed."""
    return said(server_of(turn.ca).message(Message.read(turn.request.body), body, data))
