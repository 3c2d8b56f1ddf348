"""pebble, the ACME server of Let's Encrypt for tests, with the name server and the hook that its challenges need.

Everything listens on loopback, on ports of its own. pebble forgets everything when it ends.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from enroll.certificates import pem
from enroll.clock import Clock, SystemClock
from enroll.flows.settings import AcmeChallenge, AcmeIdentifier, AcmeSettings
from enroll.statefile import StateFiles
from tests.support import enrolling
from tests.support.enrolling import Scanner
from tests.support.pki import Content, HospitalCa, name, new_key
from tests.support.swtpm import listening_ports

HOST = "127.0.0.1"
DEVICE_NAME = "ct-1.radiology.example"
START_SECONDS = 20.0
LIFETIME_SECONDS = 864000

_HOOK = """#!{python} -I
import json, os, sys, urllib.request
action, kind, host, place, value = sys.argv[1:]
with open({calls!r}, "a") as calls:
    print(action, kind, host, place, value, file=calls)
if os.path.exists({silent!r}):
    sys.exit()
present = action == "present"
if kind == "dns-01":
    path = "set-txt" if present else "clear-txt"
    body = {{"host": place + "."}} | ({{"value": value}} if present else {{}})
else:
    path = "add-http01" if present else "del-http01"
    body = {{"token": place}} | ({{"content": value}} if present else {{}})
urllib.request.urlopen("http://{management}/" + path, json.dumps(body).encode(), timeout=10)
"""


@dataclass
class Pebble:
    """A running pebble; `running_pebble` makes one.

    Args:
        directory: Everything of it lies below.
        directory_url: What a client is configured with.
        management_url: Of pebble's own interface for tests.
        tls_anchor: The certificate of its address.
        hook: Answers http-01 and dns-01.
        start: Starts it anew, on the same ports.
    """

    directory: Path
    directory_url: str
    management_url: str
    tls_anchor: Path
    hook: Path
    start: Callable[[], AbstractContextManager[subprocess.Popen[bytes]]]
    silent: Path = field(init=False)
    ends: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __post_init__(self) -> None:
        self.silent = self.directory / "hook.silent"
        self.ends.enter_context(self.start())

    def restart(self) -> None:
        """End it and start it; it knows nothing of before, and its root is new."""
        self.stop()
        self.ends.enter_context(self.start())

    def root(self) -> x509.Certificate:
        """What it issues leads to this certificate, new at every start."""
        return x509.load_pem_x509_certificate(self._managed("/roots/0"))

    def is_revoked(self, certificate: x509.Certificate) -> bool:
        """What pebble itself says of a certificate."""
        status = json.loads(self._managed(f"/cert-status-by-serial/{certificate.serial_number:x}"))
        return bool(status["Status"] == "Revoked")

    def issued(self) -> int:
        """How many certificates it has issued, by its own log."""
        return (self.directory / "pebble.log").read_text("utf-8", errors="replace").count("Issued certificate serial")

    def hook_calls(self) -> list[list[str]]:
        """With which arguments the hook was called."""
        calls = self.directory / "hook.calls"
        return [line.split() for line in calls.read_text("utf-8").splitlines()] if calls.exists() else []

    def stop(self) -> None:
        """End it; bounded."""
        self.ends.close()

    def _managed(self, path: str) -> bytes:
        context = ssl.create_default_context(cafile=str(self.tls_anchor))
        port = int(self.management_url.rpartition(":")[2])
        connection = http.client.HTTPSConnection(HOST, port, timeout=10, context=context)
        with contextlib.closing(connection):
            connection.request("GET", path)
            return connection.getresponse().read()

    def settings(self, **changes: Any) -> AcmeSettings:
        """What to write into [acme], beside anchor_file."""
        usual = AcmeSettings(
            directory_url=self.directory_url,
            server_anchor_file=self.tls_anchor,
            identifier_type=AcmeIdentifier.DNS,
            identifier=DEVICE_NAME,
            challenge=AcmeChallenge.HTTP,
            hook=self.hook,
            terms_of_service_agreed=True,
            patience=20,
            timeout=10,
        )
        return replace(usual, **changes)

    def scanner(
        self, folder: Path, clock: Clock | None = None, files: StateFiles | None = None, **changes: Any
    ) -> Scanner:
        """A scanner that is configured for it."""
        folder.mkdir(exist_ok=True)
        anchor_file = folder / "acme-anchor.pem"
        anchor = self.root()
        anchor_file.write_bytes(pem([anchor]))
        acme = replace(self.settings(**changes), anchor_file=anchor_file)
        settings = replace(enrolling.settings(folder), acme=acme)
        return Scanner(settings, (anchor,), clock or SystemClock(), files)


@contextmanager
def running_pebble(
    directory: Path, *, external_account: dict[str, str] | None = None, **variables: str
) -> Iterator[Pebble]:
    """A pebble for one block, with its name server.

    Args:
        directory: For it alone.
        external_account: Key identifiers and MAC keys; with any, pebble demands a binding.
        variables: For its environment, such as PEBBLE_WFE_NONCEREJECT; by default it refuses nothing at random.
    """
    for program in ("pebble", "pebble-challtestsrv"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} on the PATH: apt-get install pebble")
    directory.mkdir(exist_ok=True)
    acme, management, web, tls, names, challenges = free_ports(6)
    anchor, certificate, key = address_certificate(directory)
    configuration = {
        "listenAddress": f"{HOST}:{acme}",
        "managementListenAddress": f"{HOST}:{management}",
        "certificate": str(certificate),
        "privateKey": str(key),
        "httpPort": web,
        "tlsPort": tls,
        "ocspResponderURL": "",
        "certificateValidityPeriod": LIFETIME_SECONDS,
        "externalAccountBindingRequired": external_account is not None,
        "externalAccountMACKeys": external_account or {},
    }
    configuration_file = directory / "pebble.json"
    configuration_file.write_text(json.dumps({"pebble": configuration}), "utf-8")
    environment = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": "0", **variables}
    with contextlib.ExitStack() as ends:
        # Without -defaultIPv6 "" its name server answers with ::1 as well, where nobody listens.
        name_server = ["pebble-challtestsrv", "-management", f"{HOST}:{challenges}", "-http01", f"{HOST}:{web}"]
        name_server += ["-tlsalpn01", "", "-https01", "", "-dns01", f"{HOST}:{names}", "-defaultIPv6", ""]
        ends.enter_context(started(name_server, {challenges, web}, directory / "names.log"))
        command = ["pebble", "-config", str(configuration_file), "-dnsserver", f"{HOST}:{names}", "-strict"]
        running = Pebble(
            directory,
            f"https://{HOST}:{acme}/dir",
            f"https://{HOST}:{management}",
            anchor,
            _hook(directory, f"{HOST}:{challenges}"),
            lambda: started(command, {acme, management}, directory / "pebble.log", environment),
        )
        ends.callback(running.stop)
        yield running


@contextmanager
def started(
    command: list[str],
    ports: set[int],
    log_file: Path,
    environment: dict[str, str] | None = None,
    directory: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A server for one block, once the process that was started itself listens on these ports."""
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **(environment or {})},
            cwd=directory,
        )
        try:
            deadline = time.monotonic() + START_SECONDS
            while not ports <= listening_ports(process.pid):
                said = log_file.read_text("utf-8", errors="replace")[-2000:]
                assert process.poll() is None, f"{command[0]} ended with {process.returncode}: {said}"
                assert time.monotonic() < deadline, f"{command[0]} did not start in {START_SECONDS} s: {said}"
                time.sleep(0.02)
            yield process
        finally:
            _end(process)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with contextlib.ExitStack() as sockets:
        taken = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for one in taken:
            one.bind((HOST, 0))
        return [one.getsockname()[1] for one in taken]


def address_certificate(directory: Path) -> tuple[Path, Path, Path]:
    """The anchor, the chain and the key of a server on this machine."""
    ca, key = HospitalCa("CA of addresses"), new_key()
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(HOST))]
    now = datetime.now(UTC)
    content = Content(
        subject=name(COMMON_NAME="localhost"),
        alternative_names=names,
        extended_usage=(ExtendedKeyUsageOID.SERVER_AUTH,),
        begin=now - timedelta(hours=1),
        end=now + timedelta(days=2),
    )
    anchor_file, chain_file, key_file = (directory / file for file in ("anchor.pem", "tls.pem", "tls.key"))
    anchor_file.write_bytes(pem([ca.certificate]))
    chain_file.write_bytes(pem([ca.issue(key.public_key(), content)]))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return anchor_file, chain_file, key_file


def _hook(directory: Path, management: str) -> Path:
    hook = directory / "hook"
    calls, silent = str(directory / "hook.calls"), str(directory / "hook.silent")
    hook.write_text(_HOOK.format(python=sys.executable, calls=calls, silent=silent, management=management), "utf-8")
    hook.chmod(0o755)
    return hook


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout=10)
