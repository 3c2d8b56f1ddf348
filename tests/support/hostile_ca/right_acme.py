"""ACME as it should be: RFC 8555, one account, one order at a time, http-01."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cryptography import x509

from enroll.flows.acme.jws import from_base64url
from enroll.flows.settings import FlowName
from tests.support.cmp_server import Asked
from tests.support.hostile_ca.certifying import armoured, asked_of
from tests.support.hostile_ca.misbehaviour import Said, Step
from tests.support.scripted_server import Request

if TYPE_CHECKING:
    from tests.support.hostile_ca.server import HostileCa

HOST = "ct-1.hospital.example"
TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"
IDENTIFIER = {"type": "dns", "value": HOST}
PROBLEM = "urn:ietf:params:acme:error:"
CHAIN = "application/pem-certificate-chain"


class Acme:
    """The state of the order.

    Args:
        url: Of the stub.
    """

    def __init__(self, url: str) -> None:
        self.base = f"{url}/acme"
        self._state = "pending"
        self._csr: Asked | None = None
        self._nonces = itertools.count()

    def answer(self, stub: HostileCa, request: Request) -> bytes | Iterator[bytes]:
        """To whoever asks; signatures are not looked at."""
        payload = _payload(request)
        step, said = self._right(stub, request.path, payload)
        return stub.turn(step, request, replace(said, headers=(*said.headers, f"Replay-Nonce: n{next(self._nonces)}")))

    def _right(self, stub: HostileCa, path: str, payload: Any) -> tuple[Step, Said]:
        step, said = Step(f"acme {path.split('/')[2]}"), Said(status="204 No Content")
        match step:
            case Step.DIRECTORY:
                said = document(self._directory())
            case Step.ACCOUNT:
                said = document({"status": "valid"}, "201 Created", (f"Location: {self.base}/account/1",))
            case Step.NEW_ORDER:
                self._state = "pending"
                said = document(self._order(), "201 Created", (f"Location: {self.base}/order/1",))
            case Step.ORDER:
                said = document(self._order())
            case Step.AUTHORIZATION:
                said = document(self._authorization())
            case Step.CHALLENGE:
                self._state = "ready"
                said = document(self._authorization()["challenges"][0])
            case Step.FINALIZE:
                self._csr, self._state = asked_of(x509.load_der_x509_csr(from_base64url(payload["csr"]))), "valid"
                said = document(self._order())
            case Step.CERTIFICATE:
                assert self._csr is not None
                chain = b"".join(armoured("CERTIFICATE", one) for one in stub.issued(FlowName.ACME, self._csr))
                return Step.ISSUING, Said(chain, content_type=CHAIN)
        return step, said

    def _directory(self) -> dict[str, str]:
        return {
            name: f"{self.base}/{name}" for name in ("newNonce", "newAccount", "newOrder", "revokeCert", "keyChange")
        }

    def _order(self) -> dict[str, Any]:
        return {
            "status": self._state,
            "identifiers": [IDENTIFIER],
            "authorizations": [f"{self.base}/authorization/1"],
            "finalize": f"{self.base}/finalize/1",
            "certificate": f"{self.base}/certificate/1",
        }

    def _authorization(self) -> dict[str, Any]:
        state = "pending" if self._state == "pending" else "valid"
        challenge = {"type": "http-01", "status": state, "url": f"{self.base}/challenge/1", "token": TOKEN}
        return {"status": state, "identifier": IDENTIFIER, "challenges": [challenge]}


def document(content: object, status: str = "200 OK", headers: tuple[str, ...] = ()) -> Said:
    """JSON."""
    return Said(json.dumps(content).encode(), status, "application/json", headers)


def problem(kind: str, detail: str = "no", status: str = "400 Bad Request", headers: tuple[str, ...] = ()) -> Said:
    """RFC 8555 6.7."""
    said = document({"type": f"{PROBLEM}{kind}", "detail": detail}, status, headers)
    return replace(said, content_type="application/problem+json")


def _payload(request: Request) -> Any:
    if not request.body:
        return None
    payload = from_base64url(json.loads(request.body)["payload"])
    return json.loads(payload) if payload else None
