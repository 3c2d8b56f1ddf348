"""The owner's side of fdo.csr a second time, on `cbor2` and `cryptography`: for `scripted_owner`."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from tests.support.fdo import reference_codec as codec
from tests.support.fdo.scripted_owner import Piece, Said
from tests.support.pki import HospitalCa

DEVMOD = ["active", "os", "arch", "version", "device", "sep", "bin", "nummodules", "modules"]
NO_ATTRIBUTES = "MAA="


@dataclass
class ScriptedCsr:
    """Activates fdo.csr once the device has described itself, and issues what it asks for.

    `devmod` holds what the device has said of itself, `requests` its requests; pieces of an answer have `piece_size`
    bytes at most.
    """

    ca: HospitalCa = field(default_factory=HospitalCa)
    piece_size: int = 1000
    devmod: dict[str, Any] = field(default_factory=dict)
    heard: list[tuple[str, Any]] = field(default_factory=list)
    requests: list[x509.CertificateSigningRequest] = field(default_factory=list)
    is_complete: bool = False
    _waiting: list[Piece] = field(default_factory=list)
    _pieces: list[Piece] = field(default_factory=list)

    def reply(self, pieces: Sequence[Piece], *, is_more: bool) -> Said:
        self._pieces += pieces
        if is_more:
            return Said(is_more=False, is_done=False)
        heard, self._pieces = _values(self._pieces), []
        self.heard += heard
        for key, value in heard:
            self._hear(key, value)
        if not heard and not self._waiting and not self.is_complete:
            self.say("fdo.csr:active", value=True)
        said = [self._waiting.pop(0)] if self._waiting else []
        return Said(bool(self._waiting), self.is_complete and not self._waiting, said)

    def say(self, key: str, value: Any) -> None:
        encoded = codec.write(value)
        starts = range(0, len(encoded), self.piece_size)
        self._waiting += [(key, encoded[start : start + self.piece_size]) for start in starts]

    def _hear(self, key: str, value: Any) -> None:
        module, _, name = key.partition(":")
        if module == "devmod":
            self.devmod[name] = value
            assert list(self.devmod) == DEVMOD[: len(self.devmod)]
            return
        match name:
            case "cacerts-req":
                assert value == 281
                self.say(
                    "fdo.csr:cacerts-res", in_base64(pkcs7.serialize_certificates([self.ca.certificate], Encoding.DER))
                )
            case "csrattrs-req":
                self.say("fdo.csr:csrattrs-res", NO_ATTRIBUTES)
            case "simpleenroll-req" | "simplereenroll-req":
                request = x509.load_der_x509_csr(base64.b64decode(value))
                assert request.is_signature_valid
                public = request.public_key()
                assert isinstance(public, rsa.RSAPublicKey | ec.EllipticCurvePublicKey)
                self.requests.append(request)
                certificate = self.ca.issue(public, subject=request.subject)
                answer = in_base64(certificate.public_bytes(Encoding.DER))
                self.say(f"fdo.csr:{name.removesuffix('req')}res", answer)
            case "active" if value is False:
                self.is_complete = True


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _values(pieces: Sequence[Piece]) -> list[tuple[str, Any]]:
    """Put together: a key that follows itself goes on."""
    joined: list[Piece] = []
    for key, piece in pieces:
        if joined and joined[-1][0] == key:
            joined[-1] = (key, joined[-1][1] + piece)
        else:
            joined.append((key, piece))
    return [(key, codec.read(value)) for key, value in joined]
