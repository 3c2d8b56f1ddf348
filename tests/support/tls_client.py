"""A scanner's TLS client in a process of its own.

OpenSSL keeps a provider until its process ends, and a crash at the end is one of the faults to be found. So tests with
keys in tokens run here. Each action answers with one line of JSON; an error of ours is an answer as well.

    python -m tests.support.tls_client CONFIGURATION ACTION...

    enroll:NAME@URL    enroll or renew that identity at that EST server
    get@URL            fetch a page as the device
    four-threads@URL   four threads fetch it ten times each, with one context
    route              which route TLS takes
    extract            what the key of the device says to that
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives import serialization

from enroll.certificates import read_certificates
from enroll.clock import SystemClock
from enroll.config import EnrollSettings, StoreName, read_settings, read_toml
from enroll.errors import ScansealError
from enroll.http import HttpsSession
from enroll.identity import IdentityName
from enroll.keystore import token_settings
from enroll.statefile import StateFiles
from enroll.tls import ClientIdentity, client_context, tls_route, token_provider
from tests.support.enrolling import Scanner

ROOT = Path(__file__).parents[2]

NO_PROVIDER = "--no-provider"  # as on a machine without pkcs11-provider
NO_SIGNER = "--no-signer"  # as in an environment without sslcontext
Answer = dict[str, Any]


def run(configuration: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> list[Answer]:
    """What the process answers; it has to end as a process should."""
    command = [sys.executable, "-m", "tests.support.tls_client", str(configuration), *arguments]
    everything = {**os.environ, **(environment or {})}
    done = subprocess.run(command, cwd=ROOT, env=everything, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def main(arguments: list[str]) -> None:
    configuration, *actions = arguments
    files = StateFiles()
    settings = read_settings(EnrollSettings, read_toml(Path(configuration), files), "")
    assert settings.est.anchor_file
    anchors = read_certificates(settings.est.anchor_file, files)
    client = Client(Scanner(settings, anchors, SystemClock()))
    if NO_PROVIDER in actions:
        token_provider.MODULE = "none.so"
    if NO_SIGNER in actions:
        sys.modules["sslcontext"] = None  # type: ignore[assignment]
    for action in actions:
        if not action.startswith("--"):
            sys.stdout.write(f"{json.dumps(client.answer(action))}\n")


class Client:
    """What the actions do."""

    def __init__(self, scanner: Scanner) -> None:
        self.scanner = scanner

    def answer(self, action: str) -> Answer:
        verb, _, url = action.partition("@")
        name, _, identity = verb.partition(":")
        acts: dict[str, Callable[[], Answer]] = {
            "enroll": lambda: self.enroll(IdentityName(identity), url),
            "get": lambda: self.get(url),
            "four-threads": lambda: self.four_threads(url),
            "route": self.route,
            "extract": self.extract,
        }
        try:
            return acts[name]()
        except ScansealError as error:
            return {"error": type(error).__name__, "code": error.code, "what": error.what, "remedy": error.remedy}

    def enroll(self, identity: IdentityName, url: str) -> Answer:
        scanner = self.scanner
        scanner.settings = replace(scanner.settings, est=replace(scanner.settings.est, url=url))
        generation = scanner.enroll(identity)
        assert scanner.matching_pair(identity) == generation
        return {"number": generation.number, "key_uri": generation.key_uri, "protection": generation.protection}

    def route(self) -> Answer:
        device = self.scanner.settings.identity.device
        token = None
        if device.key_store is StoreName.PKCS11:
            token = token_settings(self.scanner.settings.keystore.pkcs11, device.token)
        route = tls_route(device.key_store, token)
        return {"name": route.name, "reason": route.reason, "remedy": route.remedy}

    def extract(self) -> Answer:
        device = self.scanner.identities.current(IdentityName.DEVICE)
        assert device
        key = self.scanner.stores.load(device.key_uri)
        pkcs8, open_to_all = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        return {"bytes": key.private_bytes(serialization.Encoding.DER, pkcs8, open_to_all).hex()}

    def get(self, url: str) -> Answer:
        context = self.context()
        trusted = context.cert_store_stats()["x509"]
        with HttpsSession(context, SystemClock(), 10) as session:
            answer = session.get(url, {})
        return {
            "status": answer.status,
            "body": answer.body.decode(errors="replace"),
            "trusted": [trusted, context.cert_store_stats()["x509"]],
            "left": [path.name for path in Path(tempfile.gettempdir()).iterdir()],
        }

    def four_threads(self, url: str) -> Answer:
        context, heads = self.context(), list[str]()

        def ten_times() -> None:
            for _ in range(10):
                heads.append(fetch(context, url))

        threads = [threading.Thread(target=ten_times) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {"heads": heads}

    def context(self) -> ssl.SSLContext:
        device = self.scanner.identities.current(IdentityName.DEVICE)
        assert device
        key = self.scanner.stores.tls_key(device.key_uri)
        return client_context(self.scanner.anchors, ClientIdentity(self.scanner.identities.chain_file(device), key))


def fetch(context: ssl.SSLContext, url: str) -> str:
    """The first line of the answer."""
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    with (
        socket.create_connection((parts.hostname, parts.port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname=parts.hostname) as secured,
    ):
        secured.sendall(f"GET {parts.path} HTTP/1.0\r\n\r\n".encode("ascii"))
        return secured.recv(15).decode("ascii")


if __name__ == "__main__":
    main(sys.argv[1:])
