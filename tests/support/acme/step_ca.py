"""A real step-ca (smallstep), the ACME server that knows device-attest-01, with a root and a provisioner of its own.

It is a Go module. `python -m tests.support.acme.step_ca` builds it once into a cache outside of the repository; without
Go, or before that, the tests that need it are skipped.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from enroll.certificates import pem
from tests.support import go_programs
from tests.support.pki import CA_KEY_USAGE, name
from tests.support.swtpm import listening_ports

VERSION: Final = "v0.30.2"
PROVISIONER: Final = "scanners"

_MODULE = f"github.com/smallstep/certificates/cmd/step-ca@{VERSION}"
_CACHE = go_programs.cache_of(f"step-ca-{VERSION}")
_START_SECONDS = 30.0
_GUIDE = Path(__file__).parents[3] / "docs" / "attestation.md"


@dataclass(frozen=True)
class StepCa:
    """A running step-ca.

    Args:
        directory: All files of it.
        port: Of HTTPS, on this machine only.
    """

    directory: Path
    port: int

    @property
    def directory_url(self) -> str:
        """What to write into [acme] directory_url."""
        return f"https://127.0.0.1:{self.port}/acme/{PROVISIONER}/directory"

    @property
    def anchor_file(self) -> Path:
        """The root that its server and all that it issues lead to."""
        return self.directory / "root.pem"

    @property
    def log(self) -> str:
        """What it has said."""
        return (self.directory / "log").read_text("utf-8", errors="replace")


def build() -> None:
    """Build step-ca into the cache; nothing happens where it is there already."""
    go_programs.build(_CACHE, ["step-ca"], lambda _: ["go", "install", _MODULE], Path.cwd())


def step_ca_program() -> Path:
    """The program; a test that needs it is skipped where it has not been built."""
    return go_programs.program_in(_CACHE, "step-ca", f"step-ca {VERSION}", "tests.support.acme.step_ca")


def guide() -> tuple[dict[str, Any], str]:
    """The provisioner and the template that the guide gives to a hospital."""
    text = _GUIDE.read_text("utf-8")
    (provisioner,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    (template,) = re.findall(r"```gotemplate\n(.*?)```", text, re.DOTALL)
    values: dict[str, Any] = json.loads(provisioner)
    return values, template


@contextmanager
def running_step_ca(directory: Path, attestation_root: Path, **changes: Any) -> Iterator[StepCa]:
    """A step-ca for one block, with the provisioner of the guide.

    Args:
        directory: For it alone; empty.
        attestation_root: PEM; whose word it takes for where a key is.
        changes: Of the provisioner.
    """
    program = step_ca_program()
    _write_configuration(directory, attestation_root, changes)
    environment = {**os.environ, "STEPPATH": str(directory)}  # otherwise it reads and writes in $HOME
    with (directory / "log").open("wb") as log:
        command = [program, directory / "ca.json"]
        process = subprocess.Popen(command, cwd=directory, env=environment, stdout=log, stderr=log)
    try:
        yield StepCa(directory, _port(process, directory))
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _port(process: subprocess.Popen[bytes], directory: Path) -> int:
    """The port that the process itself listens on."""
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        for port in listening_ports(process.pid):
            return port
        time.sleep(0.05)
    raise AssertionError(f"step-ca did not start: {(directory / 'log').read_text('utf-8')}")


def _write_configuration(directory: Path, attestation_root: Path, changes: Mapping[str, Any]) -> None:
    directory.mkdir(exist_ok=True)
    _write_authority(directory)
    provisioner, template = guide()
    (directory / "scanner.tpl").write_text(template, "utf-8")
    roots = base64.b64encode(attestation_root.read_bytes()).decode("ascii")
    provisioner |= {"attestationRoots": roots, **changes}
    configuration = {
        "root": "root.pem",
        "crt": "intermediate.pem",
        "key": "intermediate.key",
        "address": "127.0.0.1:0",
        "dnsNames": ["localhost", "127.0.0.1"],
        "db": {"type": "badgerv2", "dataSource": "db"},
        "logger": {"format": "text"},
        "authority": {"provisioners": [provisioner]},
    }
    (directory / "ca.json").write_text(json.dumps(configuration), "utf-8")


def _write_authority(directory: Path) -> None:
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = _ca_certificate(root_key, name(COMMON_NAME="Hospital Root"), None, root_key)
    intermediate = _ca_certificate(key, name(COMMON_NAME="Hospital CA"), root, root_key)
    (directory / "root.pem").write_bytes(pem((root,)))
    (directory / "intermediate.pem").write_bytes(pem((intermediate,)))
    encoding = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (directory / "intermediate.key").write_bytes(key.private_bytes(*encoding))


def _ca_certificate(
    key: ec.EllipticCurvePrivateKey,
    subject: x509.Name,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    now = datetime.now(UTC)
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    builder = x509.CertificateBuilder(issuer.subject if issuer else subject, subject, key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=30))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0 if issuer else 1), critical=True)
    builder = builder.add_extension(CA_KEY_USAGE, critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return builder.add_extension(authority, critical=False).sign(issuer_key, hashes.SHA256())


if __name__ == "__main__":
    go_programs.build_or_exit(build, "step-ca")
