"""The key stores that the contract is checked on."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.support.key_stores import Backend, software, token
from tests.support.softhsm import SoftHsm, softhsm_of_this_process


@pytest.fixture(scope="session")
def softhsm(tmp_path_factory: pytest.TempPathFactory) -> SoftHsm:
    return softhsm_of_this_process(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def through_proxy(softhsm: SoftHsm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    backend = token(softhsm, softhsm.proxy, "through-proxy", tmp_path_factory.mktemp("proxy"))
    yield backend
    backend.store.close()


@pytest.fixture(scope="session")
def direct(softhsm: SoftHsm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    backend = token(softhsm, softhsm.copy("direct"), "direct", tmp_path_factory.mktemp("direct"))
    yield backend
    backend.store.close()


@pytest.fixture(scope="session", params=["through_proxy", "direct"])
def in_token(request: pytest.FixtureRequest) -> Backend:
    """The stores whose keys never leave them."""
    backend: Backend = request.getfixturevalue(request.param)
    return backend


@pytest.fixture(scope="session")
def in_files(tmp_path_factory: pytest.TempPathFactory) -> Backend:
    return software(tmp_path_factory.mktemp("software"))


@pytest.fixture(scope="session", params=["in_files", "through_proxy", "direct"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every store."""
    chosen: Backend = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture
def openssl_cms(tmp_path: Path) -> Callable[[bytes, x509.Certificate], bytes]:
    """What openssl reads in a signed message, if it accepts the signature and nothing else of the certificate."""

    def content(message: bytes, certificate: x509.Certificate) -> bytes:
        (tmp_path / "message").write_bytes(message)
        (tmp_path / "certificate").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        command = ["openssl", "cms", "-verify", "-noverify", "-binary", "-inform", "DER", "-in", "message"]
        command += ["-certfile", "certificate", "-out", "content"]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
        return (tmp_path / "content").read_bytes()

    return content
