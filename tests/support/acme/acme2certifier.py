"""acme2certifier, an ACME server of another make: accounts bound to external ones, and renewal information (RFC 9773).

It is a program under the GPL in an environment of its own; nothing of it is imported here. It believes every challenge,
because it would look at port 80: pebble is the one that looks.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from enroll.certificates import pem
from enroll.clock import Clock, SystemClock
from enroll.flows.settings import AcmeChallenge, AcmeIdentifier, AcmeSettings
from tests.support import enrolling
from tests.support.acme.pebble import DEVICE_NAME, HOST, address_certificate, free_ports, started
from tests.support.enrolling import Scanner
from tests.support.pki import HospitalCa

ROOT = Path(__file__).parents[3]
PYTHON = Path(os.environ.get("SCANSEAL_ACME2CERTIFIER", ROOT / ".venv-acme2certifier")) / "bin/python"
KEY_ID = "keyid_00"
LIFETIME_DAYS = 30
RENEWAL_PERCENTAGE = 85

_CONFIGURATION = """
[DEFAULT]
debug: False
[CAhandler]
handler_module: acme2certifier.cahandlers.openssl_ca_handler
issuing_ca_key: {directory}/ca.key
issuing_ca_cert: {directory}/ca.pem
issuing_ca_crl: {directory}/crl.pem
cert_validity_days: {lifetime}
cert_save_path: {directory}/certs
ca_cert_chain_list: []
[DBhandler]
dbfile: {directory}/acme.db
[EABhandler]
eab_handler_module: acme2certifier.eabhandlers.file_handler
key_file: {directory}/eab.csv
[Challenge]
challenge_validation_disable: True
[Order]
profiles: {{"device": "http://localhost/profiles/device"}}
[Renewalinfo]
renewalthreshold_pctg: {percentage}
"""

_SERVER = """
import os, ssl
os.environ["ACME_SRV_CONFIGFILE"] = os.path.abspath("acme_srv.cfg")
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIServer, make_server
import acme2certifier.share.acme2certifier_wsgi as acme2certifier


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


def application(environment, start_response):
    environment["wsgi.url_scheme"] = "https"  # or every address that it names is one of plain HTTP
    return acme2certifier.application(environment, start_response)


server = make_server("{host}", {port}, application, server_class=Server)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("tls.pem", "tls.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


@dataclass(frozen=True)
class Acme2Certifier:
    """A running acme2certifier.

    Args:
        directory: Everything of it lies below.
        directory_url: What a client is configured with.
        ca: Whose certificates it issues.
        tls_anchor: Vouches for its address.
        mac_key_file: The MAC key of the one external account.
    """

    directory: Path
    directory_url: str
    ca: HospitalCa
    tls_anchor: Path
    mac_key_file: Path

    @property
    def revocation_list(self) -> Path:
        """Written at each revocation."""
        return self.directory / "crl.pem"

    def requests(self, path: str) -> int:
        """How often a path that begins so was fetched."""
        return (self.directory / "acme2certifier.log").read_text("utf-8").count(f'"GET {path}')

    def table(self, folder: Path) -> dict[str, Any]:
        """[acme], for a configuration file."""
        settings = self.scanner(folder).settings.acme
        defaults = AcmeSettings()
        options = {field.name: getattr(settings, field.name) for field in fields(settings)}
        changed = {name: value for name, value in options.items() if value != getattr(defaults, name)}
        return {name: str(value) if isinstance(value, Path) else value for name, value in changed.items()}

    def scanner(self, folder: Path, clock: Clock | None = None, **changes: Any) -> Scanner:
        """A scanner that is configured for it."""
        folder.mkdir(exist_ok=True)
        anchor_file, hook = folder / "acme-anchor.pem", folder / "hook"
        anchor_file.write_bytes(pem([self.ca.certificate]))
        hook.write_text("#!/bin/sh\n", "utf-8")
        hook.chmod(0o755)
        acme = AcmeSettings(
            directory_url=self.directory_url,
            anchor_file=anchor_file,
            server_anchor_file=self.tls_anchor,
            identifier_type=AcmeIdentifier.DNS,
            identifier=DEVICE_NAME,
            challenge=AcmeChallenge.HTTP,
            hook=hook,
            contact="radiology@hospital.example",  # this server wants one
            eab_key_id=KEY_ID,
            eab_key_file=self.mac_key_file,
            terms_of_service_agreed=True,
            patience=20,
            timeout=10,
        )
        settings = replace(enrolling.settings(folder), acme=replace(acme, **changes))
        return Scanner(settings, (self.ca.certificate,), clock or SystemClock())


@contextmanager
def running_acme2certifier(directory: Path) -> Iterator[Acme2Certifier]:
    """An acme2certifier for one block, with a CA whose root issues directly."""
    if not PYTHON.exists():
        pytest.skip(f"no acme2certifier in {PYTHON.parents[1].name}: scripts/test installs it where it can")
    directory.mkdir(exist_ok=True)
    (directory / "certs").mkdir()
    anchor, _, _ = address_certificate(directory)
    ca = HospitalCa("Owner CA")
    (directory / "ca.pem").write_bytes(pem([ca.certificate]))
    unencrypted = serialization.NoEncryption()
    ca_key = ca.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, unencrypted)
    (directory / "ca.key").write_bytes(ca_key)
    mac_key, mac_key_file = secrets.token_urlsafe(48), directory / "mac-key"
    mac_key_file.write_text(mac_key, "utf-8")
    mac_key_file.chmod(0o600)
    (directory / "eab.csv").write_text(f"eab_kid,eab_mac\n{KEY_ID},{mac_key}\n", "utf-8")
    configuration = _CONFIGURATION.format(directory=directory, lifetime=LIFETIME_DAYS, percentage=RENEWAL_PERCENTAGE)
    (directory / "acme_srv.cfg").write_text(configuration, "utf-8")
    (port,) = free_ports(1)
    program = directory / "serve.py"
    program.write_text(_SERVER.format(host=HOST, port=port), "utf-8")
    log = directory / "acme2certifier.log"
    with started([str(PYTHON), "-I", str(program)], {port}, log, {"ACME2CERTIFIER_I_KNOW_THE_RISK": "1"}, directory):
        # It names itself by the Host header and knows itself by no number.
        yield Acme2Certifier(directory, f"https://localhost:{port}/directory", ca, anchor, mac_key_file)
