"""A scanner's TLS client in a process of its own.

OpenSSL keeps a provider until its process ends, and a crash at the end is one of the faults to be found. So tests with
keys in tokens run here. Each action answers with one line of JSON; an error of ours is an answer as well.

    python -m tests.support.tls_client CONFIGURATION ACTION...

    enroll:NAME@URL    enroll or renew that identity at that EST server
    get@URL            fetch a page as the device
    get-without:DIRECTORY@URL    the same, where that directory is away once the key has been loaded
    provider-alone     have OpenSSL load the key of the device, with no key store that has logged in before
    four-threads@URL   four threads fetch it ten times each, with one context
    route              which route TLS would take
    extract            what the key of the device says to that
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from enroll.certificates import read_certificates
from enroll.clock import SystemClock
from enroll.config import EnrollSettings, StoreName
from enroll.errors import ScansealError
from enroll.http import HttpsSession
from enroll.identity import Generation, IdentityName
from enroll.keystore import token_settings
from enroll.keystore.base import StoredKey
from enroll.keystore.keys import Scheme, stored_key
from enroll.options import read_settings, read_toml
from enroll.statefile import StateFiles
from enroll.tls import ClientIdentity, client_context, tls_route, token_provider
from enroll.tls.connection import ClientContext
from tests.support.enrolling import Scanner

ROOT = Path(__file__).parents[2]

NO_PROVIDER = "--no-provider"  # as on a machine without pkcs11-provider
NO_SIGNER = "--no-signer"  # as in an environment without sslcontext
NO_NEW_CODE = "--no-new-code"  # as in a service with MemoryDenyWriteExecute (systemd.exec(5))
PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1  # prctl(2)
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
    if NO_NEW_CODE in actions:
        deny_new_code()
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


def deny_new_code() -> None:
    """From now on, memory of this process that was ever writable is never executed."""
    assert ctypes.CDLL(None, use_errno=True).prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) == 0
    try:
        mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except PermissionError:
        return
    raise AssertionError


class Client:
    """What the actions do."""

    def __init__(self, scanner: Scanner) -> None:
        self.scanner = scanner

    def answer(self, action: str) -> Answer:
        verb, _, url = action.rpartition("@") if "@" in action else (action, "", "")
        name, _, argument = verb.partition(":")
        acts: dict[str, Callable[[], Answer]] = {
            "enroll": lambda: self.enroll(IdentityName(argument), url),
            "get": lambda: self.get(url),
            "get-without": lambda: self.get_without(Path(argument), url),
            "provider-alone": self.provider_alone,
            "four-threads": lambda: self.four_threads(url),
            "route": self.route,
            "extract": self.extract,
        }
        try:
            return acts[name]()
        except ScansealError as error:
            return described(error)

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
        device = self.device()
        key = self.scanner.stores.load(device.key_uri)
        pkcs8, open_to_all = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        return {"bytes": key.private_bytes(serialization.Encoding.DER, pkcs8, open_to_all).hex()}

    def get(self, url: str) -> Answer:
        context = self.context()
        trusted = context.cert_store_stats()["x509"]
        with HttpsSession(context, SystemClock(), 10) as session:
            answer = session.get(url, {})
        return {
            "route": context.route,
            "status": answer.status,
            "body": answer.body.decode(errors="replace"),
            "trusted": [trusted, context.cert_store_stats()["x509"]],
            "left": [path.name for path in Path(tempfile.gettempdir()).iterdir()],
        }

    def get_without(self, directory: Path, url: str) -> Answer:
        context = self.context()
        with away(directory), HttpsSession(context, SystemClock(), 10) as session:
            started = time.monotonic()
            try:
                session.get(url, {})
            except ScansealError as error:
                return {**described(error), "route": context.route, "seconds": time.monotonic() - started}
        return {"route": context.route}

    def provider_alone(self) -> Answer:
        device = self.device()
        public_key = device.certificate.public_key()
        assert isinstance(public_key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
        key = StoredKey(device.key_uri, stored_key(public_key, never), self.scanner.settings.keystore.pkcs11)
        context = client_context(self.scanner.anchors, ClientIdentity(self.scanner.identities.chain_file(device), key))
        return {"route": context.route}

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
        return {"route": context.route, "heads": heads}

    def device(self) -> Generation:
        device = self.scanner.identities.current(IdentityName.DEVICE)
        assert device
        return device

    def context(self) -> ClientContext:
        device = self.device()
        key = self.scanner.stores.tls_key(device.key_uri)
        return client_context(self.scanner.anchors, ClientIdentity(self.scanner.identities.chain_file(device), key))


def described(error: ScansealError) -> Answer:
    """An error of ours."""
    return {"error": type(error).__name__, "code": error.code, "what": error.what, "remedy": error.remedy}


@contextmanager
def away(directory: Path) -> Iterator[None]:
    """A directory has another name."""
    elsewhere = directory.rename(directory.with_name("elsewhere"))
    try:
        yield
    finally:
        elsewhere.rename(directory)


def never(digest: bytes, scheme: Scheme) -> NoReturn:
    """The private operation of a key that is not there."""
    raise AssertionError


def fetch(context: ClientContext, url: str) -> str:
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
