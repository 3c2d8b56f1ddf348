"""Which route TLS takes to a key, and what it is told to (`enroll.tls`)."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from enroll.config import Pkcs11StoreSettings, StoreName
from enroll.errors import KeyStoreUnavailable, PinRefused
from enroll.tls import RouteName, tls_route, token_provider, trial
from enroll.tls.connection import ClientContext
from tests.support.device_keys import needs_route

ROOT = Path(__file__).parents[2]


def test_the_name_of_a_key_in_pem() -> None:
    """As pkcs11-provider's own tool writes it."""
    assert "".join(token_provider.uri_pem("pkcs11:token=ttok;object=tec;type=private").splitlines()) == (
        "-----BEGIN PKCS#11 PROVIDER URI-----"
        "MEYaGVBLQ1MjMTEgUHJvdmlkZXIgVVJJIHYxLjAMKXBrY3MxMTp0b2tlbj10dG9rO29iamVjdD10ZWM7dHlwZT1wcml2YXRl"
        "-----END PKCS#11 PROVIDER URI-----"
    )


def test_who_asks_for_a_pin_gets_an_error() -> None:
    with pytest.raises(PinRefused):
        token_provider.no_pin()


def test_a_key_file_needs_nothing() -> None:
    assert tls_route(StoreName.SOFTWARE).name is RouteName.KEY_FILE


def test_a_key_without_a_token_goes_through_sslcontext() -> None:
    needs_route(RouteName.SIGNER)
    route = tls_route(StoreName.TPM)

    assert route.name is RouteName.SIGNER
    assert "sslcontext 2." in route.reason


def in_a_new_process(program: str, tmp_path: Path, *arguments: str) -> str:
    """OpenSSL keeps what it is told until its process ends."""
    lines = ["import sys", "from pathlib import Path", "from enroll.config import Pkcs11StoreSettings, StoreName"]
    lines += ["from enroll.tls import tls_route, token_provider", program]
    command = [sys.executable, "-c", "\n".join(lines), *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_a_provider_is_for_one_token(tmp_path: Path) -> None:
    """Two would both be asked for a key, each with the PIN of its token. Paths may hold what means something there."""
    needs_route(RouteName.PROVIDER)
    program = """
def route(pin_file):
    return tls_route(StoreName.PKCS11, Pkcs11StoreSettings(Path("/none.so"), "t", Path(pin_file)))
for pin_file in sys.argv[1:]:
    found = route(pin_file)
    print(found.name, found.reason)
"""
    first, second = tmp_path / "a # PIN; $x = 'y\"", tmp_path / "other"
    for path in (first, second):
        path.write_text("1234")
    lines = in_a_new_process(program, tmp_path, str(first), str(first), str(second)).splitlines()

    assert [line.startswith("openssl-provider ") for line in lines] == [True, True, False]
    assert "with other settings already" in lines[2]


def test_the_route_is_not_said_to_work_before_its_trial(tmp_path: Path) -> None:
    needs_route(RouteName.PROVIDER)
    (tmp_path / "pin").write_text("1234")
    without = "sys.modules['sslcontext'] = None"
    program = """
pin_file = Path(sys.argv[1]) / "pin"
print(tls_route(StoreName.PKCS11, Pkcs11StoreSettings(Path("/none.so"), "t", pin_file)).reason)
"""
    with_both = in_a_new_process(program, tmp_path, str(tmp_path))
    alone = in_a_new_process(without + program, tmp_path, str(tmp_path))

    assert "if that stands a trial before the first connection" in with_both
    assert "Otherwise there is no other way: sslcontext is not installed." in alone


def test_a_key_that_signs_stands_the_trial() -> None:
    key_signer = pytest.importorskip("enroll.tls.key_signer", reason="sslcontext is missing: pip install '.[tls]'")
    key = ec.generate_private_key(ec.SECP384R1())

    trial.prove(key.public_key(), lambda context, path: key_signer.load(context, certificates(path), key))


def test_a_key_that_signs_wrongly_does_not_stand_the_trial() -> None:
    key_signer = pytest.importorskip("enroll.tls.key_signer", reason="sslcontext is missing: pip install '.[tls]'")
    key, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))

    with pytest.raises(KeyStoreUnavailable, match="cannot use it"):
        trial.prove(key.public_key(), lambda context, path: key_signer.load(context, certificates(path), other))


def certificates(path: Path) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(path.read_bytes())


def test_a_handshake_does_not_wait_for_ever_for_another() -> None:
    """They come one after the other, and a server may be slow."""
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor() as threads:
        first = threads.submit(timeout, silent.getsockname(), 2)
        with silent.accept()[0] as connection:
            connection.recv(1)  # it has begun
            second = timeout(silent.getsockname(), 0.1)

            assert "other connections take too long" in str(second)
            assert "handshake operation timed out" in str(first.result())


def timeout(address: tuple[str, int], seconds: float) -> TimeoutError:
    with socket.create_connection(address) as connection:
        connection.settimeout(seconds)
        with pytest.raises(TimeoutError) as caught:
            ClientContext(ssl.PROTOCOL_TLS_CLIENT).wrap_socket(connection, server_hostname="nobody.example")
    return caught.value


def test_a_module_that_is_no_provider_is_named(tmp_path: Path) -> None:
    needs_route(RouteName.PROVIDER)
    (tmp_path / "pkcs11.so").write_bytes(b"no library")
    (tmp_path / "pin").write_text("1234")
    program = """
token_provider.modules_directory = lambda _: Path(sys.argv[1])
print(tls_route(StoreName.PKCS11, Pkcs11StoreSettings(Path("/none.so"), "t", Path(sys.argv[1]) / "pin")).reason)
"""
    assert f"OpenSSL does not load {tmp_path}/pkcs11.so." in in_a_new_process(program, tmp_path, str(tmp_path))


def test_a_token_without_a_pin_file_has_no_provider() -> None:
    needs_route(RouteName.PROVIDER)
    assert "pin_file is not set" in tls_route(StoreName.PKCS11, Pkcs11StoreSettings(Path("/none.so"))).reason
