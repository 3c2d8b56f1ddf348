"""TLS client authentication with a key that stays in its token: openssl as the server, SoftHSM as the token.

Every process here has to end with status 0: without no-deinit, one that used pkcs11-provider with SoftHSM would not.
"""

from __future__ import annotations

import ctypes
import json
import os
import pty
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from enroll.algorithms import KeyAlgorithm
from enroll.tls import RouteName
from tests.support.device_keys import ALGORITHMS, TLS_VERSIONS, TokenScanner, demanding_server, in_softhsm, needs_route
from tests.support.hospital import Hospital
from tests.support.key_stores import secret_file
from tests.support.openssl import needs_openssl
from tests.support.records import set_key_uri
from tests.support.softhsm import SoftHsm, softhsm_of_this_process
from tests.support.tls_client import NO_NEW_CODE, NO_PROVIDER, NO_SIGNER, Answer

ROOT = Path(__file__).parents[2]
ROUTES = {RouteName.PROVIDER: NO_SIGNER, RouteName.SIGNER: NO_PROVIDER}  # and how to have no other
PAGE = "/.well-known/est/cacerts"
PR_GET_MDWE = 66
SPY = Path("/usr/lib/x86_64-linux-gnu/pkcs11-spy.so")

each_route = pytest.mark.parametrize("route", list(ROUTES))


@pytest.fixture(scope="module")
def hsm(tmp_path_factory: pytest.TempPathFactory) -> SoftHsm:
    return softhsm_of_this_process(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module", params=ALGORITHMS)
def scanner(request: pytest.FixtureRequest, hsm: SoftHsm, tmp_path_factory: pytest.TempPathFactory) -> TokenScanner:
    scanner = in_softhsm(tmp_path_factory.mktemp("scanner"), request.param, hsm)
    scanner.enroll_with_password()
    return scanner


@pytest.fixture(scope="module")
def ec_scanner(hsm: SoftHsm, tmp_path_factory: pytest.TempPathFactory) -> TokenScanner:
    scanner = in_softhsm(tmp_path_factory.mktemp("scanner"), KeyAlgorithm.P_256, hsm)
    scanner.enroll_with_password()
    return scanner


@contextmanager
def openssl_server(hospital: Hospital, version: ssl.TLSVersion) -> Iterator[str]:
    """The address of a server that takes nobody without a certificate of this CA and shows whom it sees."""
    directory = hospital.ca.directory
    command = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-www", "-cert", str(directory / "server.pem")]
    command += ["-key", str(directory / "server.key"), "-CAfile", str(hospital.ca.anchor_file), "-Verify", "2"]
    command += ["-verify_return_error", "-tls1_3" if version is ssl.TLSVersion.TLSv1_3 else "-tls1_2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        assert server.stdout
        try:
            accepting = next(line for line in server.stdout if line.startswith("ACCEPT"))
            yield f"https://127.0.0.1:{accepting.rpartition(':')[2].strip()}"
        finally:
            server.terminate()


@needs_openssl
@each_route
@pytest.mark.parametrize("version", TLS_VERSIONS)
def test_openssl_sees_the_certificate_of_the_device(
    scanner: TokenScanner, route: RouteName, version: ssl.TLSVersion
) -> None:
    needs_route(route)
    with openssl_server(scanner.hospital, version) as url:
        chosen, answer = scanner.run(ROUTES[route], "route", f"get@{url}/")

    assert chosen["name"] == route
    assert answer["status"] == 200
    serial = f"{scanner.device().certificate.serial_number:x}"
    assert serial in answer["body"].replace(":", "").lower()
    assert version.name.replace("_", ".") in answer["body"]


@each_route
def test_one_context_serves_several_threads(scanner: TokenScanner, route: RouteName) -> None:
    """OpenSSL with pkcs11-provider alone does not: verification fails, or the process crashes (ADR 21)."""
    needs_route(route)
    with demanding_server(scanner.hospital) as (server, seen):
        (answer,) = scanner.run(ROUTES[route], f"four-threads@{server.url}{PAGE}")

    assert answer["route"] == route
    assert answer["heads"] == ["HTTP/1.1 200 OK"] * 40
    assert len(seen) == 40


@each_route
def test_memory_that_was_written_is_never_executed(scanner: TokenScanner, route: RouteName) -> None:
    """MemoryDenyWriteExecute of systemd.exec(5), where it is made of PR_SET_MDWE of prctl(2)."""
    needs_route(route)
    if ctypes.CDLL(None).prctl(PR_GET_MDWE, 0, 0, 0, 0) < 0:
        pytest.skip("the kernel has no PR_SET_MDWE: use Linux 6.3 or later")
    with demanding_server(scanner.hospital) as (server, _):
        (answer,) = scanner.run(ROUTES[route], NO_NEW_CODE, f"get@{server.url}{PAGE}")

    assert (answer["route"], answer["status"]) == (route, 200)


@each_route
@pytest.mark.parametrize("variable", ["", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_nothing_is_trusted_besides_the_anchor(ec_scanner: TokenScanner, route: RouteName, variable: str) -> None:
    needs_route(route)
    environment = {variable: str(ec_scanner.hospital.ca.anchor_file)} if variable else {}
    with demanding_server(ec_scanner.hospital) as (server, _):
        (answer,) = ec_scanner.run(ROUTES[route], f"get@{server.url}{PAGE}", **environment)

    assert answer["status"] == 200
    assert answer["trusted"] == [1, 1]


@each_route
def test_nothing_is_left_in_the_file_system(ec_scanner: TokenScanner, route: RouteName) -> None:
    needs_route(route)
    with demanding_server(ec_scanner.hospital) as (server, _):
        (answer,) = ec_scanner.run(ROUTES[route], f"get@{server.url}{PAGE}")

    assert answer["status"] == 200
    assert answer["left"] == []


# --- what goes wrong


def with_spy(scanner: TokenScanner, hsm: SoftHsm, log: Path, pin_file: Path) -> TokenScanner:
    """The same scanner, its token behind a library that writes down every call."""
    if not SPY.exists():
        pytest.skip("no pkcs11-spy.so: apt-get install opensc")
    token = {"module": SPY, "token": "direct", "pin_file": pin_file}
    environment = {"PKCS11SPY": str(hsm.library), "PKCS11SPY_OUTPUT": str(log)}
    return replace(scanner, tables={**scanner.tables, "keystore.pkcs11": token}, environment=environment)


def logins(log: Path) -> int:
    return len(re.findall(r"^[0-9]+: C_Login", log.read_text("utf-8", "replace"), re.MULTILINE))


@each_route
def test_a_wrong_pin_is_sent_once(ec_scanner: TokenScanner, hsm: SoftHsm, route: RouteName, tmp_path: Path) -> None:
    """Tokens lock after a few."""
    needs_route(route)
    wrong = secret_file(tmp_path / "wrong", "not-the-pin-9876")
    scanner = with_spy(ec_scanner, hsm, tmp_path / "calls", wrong)
    (answer,) = scanner.run(ROUTES[route], "get@https://127.0.0.1:1/")

    assert answer["error"] == "PinRefused"
    assert "not-the-pin" not in str(answer)
    assert logins(tmp_path / "calls") == 1


def test_a_wrong_pin_is_sent_once_by_the_provider_too_and_nobody_is_asked(
    ec_scanner: TokenScanner, hsm: SoftHsm, tmp_path: Path
) -> None:
    """OpenSSL would ask on the terminal, and send what it hears five times; a service with a terminal would hang."""
    needs_route(RouteName.PROVIDER)
    if shutil.which("setsid") is None:
        pytest.skip("no setsid on the PATH: apt-get install util-linux")
    wrong = secret_file(tmp_path / "wrong", "not-the-pin-9876")
    scanner = with_spy(ec_scanner, hsm, tmp_path / "calls", wrong)
    shown, answer = on_a_terminal(scanner, NO_SIGNER, "provider-alone")

    assert answer["error"] == "PinRefused"
    assert shown == b""
    assert logins(tmp_path / "calls") == 1


def on_a_terminal(scanner: TokenScanner, *actions: str) -> tuple[bytes, Answer]:
    """What a process shows on its terminal, where nobody types, and what it answers."""
    command = ["setsid", "--ctty", "--wait", sys.executable, "-m", "tests.support.tls_client"]
    command += [str(scanner.configure()), *scanner.options, *actions]
    environment = {**os.environ, **scanner.environment, "TMPDIR": str(scanner.temporary)}
    terminal, its_side = pty.openpty()
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdin=its_side,
            stderr=its_side,
            stdout=subprocess.PIPE,
            check=False,
            timeout=20,
        )
        os.set_blocking(terminal, False)
        try:
            shown = os.read(terminal, 4096)
        except BlockingIOError:
            shown = b""
    finally:
        os.close(terminal)
        os.close(its_side)
    assert done.returncode == 0, shown
    return shown, json.loads(done.stdout)


@each_route
def test_a_token_that_goes_away_before_the_handshake_is_the_token_s_fault(
    scanner: TokenScanner, hsm: SoftHsm, route: RouteName
) -> None:
    """Not that of the server, nor of the certificate."""
    needs_route(route)
    with demanding_server(scanner.hospital) as (server, seen):
        (answer,) = scanner.run(ROUTES[route], f"get-without:{hsm.tokens}@{server.url}{PAGE}")

    assert [line.partition(":")[0] for line in seen] == ["A connection ended"]
    assert answer["route"] == route
    assert answer["error"] == "KeyStoreUnavailable"
    assert "token" in answer["what"]
    assert answer["seconds"] < 1


def test_the_key_store_and_the_provider_log_in_once_each_at_most(
    ec_scanner: TokenScanner, hsm: SoftHsm, tmp_path: Path
) -> None:
    """The provider has the PIN from its file, and asks nobody."""
    needs_route(RouteName.PROVIDER)
    scanner = with_spy(ec_scanner, hsm, tmp_path / "calls", hsm.pin_file)
    with demanding_server(scanner.hospital) as (server, _):
        (answer,) = scanner.run(NO_SIGNER, f"get@{server.url}{PAGE}")

    assert answer["status"] == 200
    calls = (tmp_path / "calls").read_text("utf-8", "replace")
    assert logins(tmp_path / "calls") <= 2
    assert "CKR_PIN_INCORRECT" not in calls


@each_route
def test_a_key_that_is_gone_is_named(ec_scanner: TokenScanner, hsm: SoftHsm, route: RouteName, tmp_path: Path) -> None:
    needs_route(route)
    scanner = in_softhsm(tmp_path, KeyAlgorithm.P_256, hsm)
    scanner.enroll_with_password()
    set_key_uri(scanner.directory / "state/identities/device/current", "pkcs11:token=direct;object=gone")
    (answer,) = scanner.run(ROUTES[route], "get@https://127.0.0.1:1/")

    assert answer["error"] == "KeyNotFound"


@each_route
def test_the_key_of_another_certificate_is_refused(
    ec_scanner: TokenScanner, hsm: SoftHsm, route: RouteName, tmp_path: Path
) -> None:
    needs_route(route)
    scanner = in_softhsm(tmp_path, KeyAlgorithm.P_256, hsm)
    scanner.enroll_with_password()
    set_key_uri(scanner.directory / "state/identities/device/current", ec_scanner.device().key_uri)
    (answer,) = scanner.run(ROUTES[route], "get@https://127.0.0.1:1/")

    assert answer["error"] == "KeyMismatch"
