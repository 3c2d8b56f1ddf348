"""EST as it should be: RFC 7030 with RFC 8951."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import TYPE_CHECKING

from enroll.flows.settings import FlowName
from tests.support.hostile_ca.certifying import asked_of, certs_only, der_of
from tests.support.hostile_ca.misbehaviour import Said, Step
from tests.support.scripted_server import CERTS_ONLY, Request

if TYPE_CHECKING:
    from tests.support.hostile_ca.server import HostileCa


def answer(stub: HostileCa, request: Request) -> bytes | Iterator[bytes]:
    """To whoever asks."""
    match request.path.rpartition("/")[2]:
        case "cacerts":
            return stub.turn(Step.CA_CERTIFICATES, request, bag(der_of(stub.ca.certificate)))
        case "csrattrs":
            return stub.turn(Step.ATTRIBUTES, request, Said(status="204 No Content"))
        case "simpleenroll" | "simplereenroll":
            return stub.turn(Step.ISSUING, request, bag(*stub.issued(FlowName.EST, asked_of(request.csr))))
        case other:
            return Said(other.encode(), "404 Not Found").wire


def bag(*certificates: bytes) -> Said:
    """What holds certificates."""
    return message(certs_only(*certificates))


def message(content: bytes, content_type: str = CERTS_ONLY) -> Said:
    """Anything in base64."""
    return Said(base64.encodebytes(content), content_type=content_type)
