"""The stub: one server that speaks EST, ACME, CMP and SCEP rightly, until a `Conduct` says otherwise."""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509

from enroll.clock import SystemClock
from enroll.flows.settings import FlowName
from tests.support.cmp_server import Asked
from tests.support.hostile_ca import right_cmp, right_est, right_scep
from tests.support.hostile_ca.certifying import asked_content, der_of
from tests.support.hostile_ca.misbehaviour import Conduct, Issuing, Said, Step, Turn
from tests.support.hostile_ca.right_acme import Acme
from tests.support.pki import HospitalCa
from tests.support.scripted_server import Request, ScriptedServer

_RIGHT = Conduct()


class HostileCa(ScriptedServer):
    """A CA that does as its `conduct` says.

    Args:
        ca: Of the hospital.
        folder: For the files that TLS wants.
    """

    def __init__(self, ca: HospitalCa, folder: Path) -> None:
        super().__init__(ca, folder, self._answer)
        self.conduct = _RIGHT
        self.in_use: dict[FlowName, x509.Certificate] = {}
        self._right_context = self._context
        self._asked: Counter[Step] = Counter()
        self._acme = Acme(self.url)

    @contextmanager
    def behaving(self, conduct: Conduct) -> Iterator[None]:
        """As long as this lasts, for new connections."""
        self._asked.clear()
        self.requests.clear()
        self.conduct = conduct
        self._context = conduct.tls(self.ca, self.folder) if conduct.tls else self._right_context
        try:
            yield
        finally:
            self.conduct, self._context = _RIGHT, self._right_context

    def issued(self, flow: FlowName, asked: Asked) -> tuple[bytes, ...]:
        """Certificates in DER: what was asked for first, unless the conduct is another."""
        now = SystemClock().now()
        issuing = Issuing(asked, asked_content(asked, now), self.ca, self.in_use.get(flow), now)
        if self.conduct.issue:
            return tuple(self.conduct.issue(issuing))
        return (der_of(self.ca.issue(asked.public_key, issuing.content)), der_of(self.ca.certificate))

    def carried(self, message: bytes) -> bytes:
        """What comes back by hand."""
        nobody = Request("", "", {}, b"", None, None, None)
        changed = self._changed(Step.IMPORT, nobody, Said(message))
        assert isinstance(changed, Said)
        return changed.body

    def turn(self, step: Step, request: Request, said: Said) -> bytes | Iterator[bytes]:
        """What is said in the end."""
        changed = self._changed(step, request, said)
        return changed.wire if isinstance(changed, Said) else changed

    def _changed(self, step: Step, request: Request, said: Said) -> Said | bytes | Iterator[bytes]:
        self._asked[step] += 1
        change = self.conduct.changes.get(step)
        return change(Turn(step, request, said, self.ca, self.url, self._asked[step])) if change else said

    def _answer(self, request: Request) -> bytes | Iterator[bytes]:
        if request.path.startswith("/.well-known/est/"):
            return right_est.answer(self, request)
        if request.path.startswith("/acme/"):
            return self._acme.answer(self, request)
        if request.path.startswith("/scep"):
            return right_scep.answer(self, request)
        return right_cmp.answer(self, request)

    def _serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # an answer does not wait for an ACK
        greeting = self.conduct.greeting
        if greeting is None:
            super()._serve(connection)
            return
        connection.settimeout(10)
        with contextlib.suppress(OSError), connection:
            greeting(connection)
