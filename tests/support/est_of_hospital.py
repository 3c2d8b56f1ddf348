"""An evaluation CA that answers as a host of a hospital, in a machine of its own (tests/support/unpacked_machine.py).

python -m tests.support.est_of_hospital FOLDER HOST
"""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from enroll.certificates import pem
from enroll.clock import SystemClock
from enroll.evaluation.authority import Authority, certificate_builder
from enroll.evaluation.ca import EvaluationCa
from enroll.evaluation.est_server import EstServer
from enroll.statefile import StateFiles

PORT = 443


def certify_host(ca: EvaluationCa, host: str) -> None:
    """A server certificate for the name; the CA makes one for loopback only."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = certificate_builder(x509.Name([]), key.public_key(), SystemClock().now(), timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=True)
    certificate = Authority(ca.directory / "root", StateFiles()).sign(builder)
    kind = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (ca.directory / "server.pem").write_bytes(pem([certificate]))
    (ca.directory / "server.key").write_bytes(key.private_bytes(*kind))


def main(folder: Path, host: str) -> None:
    """Serve until the machine ends."""
    ca = EvaluationCa.create_or_open(folder, SystemClock())
    certify_host(ca, host)
    EstServer(ca, ("127.0.0.1", PORT)).serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
