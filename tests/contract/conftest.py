"""The key stores that the contract is checked on."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from enroll.algorithms import HmacAlgorithm, KeyAlgorithm
from tests.support.key_stores import TRAITS, Backend, Traits, memory, software, token, tpm, tpm_as_token
from tests.support.softhsm import SoftHsm, softhsm_of_this_process
from tests.support.swtpm import ResourceManager, resource_manager, running_swtpm
from tests.support.tpm2_pkcs11 import token_in_tpm


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The contract is checked on every store, with every kind of key and secret that the store makes."""
    store = next((name for name in ("backend", "lasting") if name in metafunc.fixturenames), None)
    if store is None:
        return
    of_a_store: dict[str, Callable[[Traits], Sequence[KeyAlgorithm | HmacAlgorithm]]] = {
        "algorithm": lambda traits: traits.algorithms,
        "rsa_algorithm": lambda traits: [one for one in traits.algorithms if one.startswith("rsa")],
        "hmac_algorithm": lambda traits: traits.hmacs,
    }
    kinds = [name for name in of_a_store if name in metafunc.fixturenames]
    cases = [
        (name, *case)
        for name, traits in TRAITS.items()
        if traits.survives or store == "backend"
        for case in itertools.product(*(of_a_store[kind](traits) for kind in kinds))
    ]
    metafunc.parametrize([store, *kinds], cases, indirect=[store], scope="session")


@pytest.fixture(scope="session")
def softhsm(tmp_path_factory: pytest.TempPathFactory) -> SoftHsm:
    return softhsm_of_this_process(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def in_files(tmp_path_factory: pytest.TempPathFactory) -> Backend:
    return software(tmp_path_factory.mktemp("software"))


@pytest.fixture(scope="session")
def in_memory(tmp_path_factory: pytest.TempPathFactory) -> Backend:
    return memory(tmp_path_factory.mktemp("memory"))


@pytest.fixture(scope="session")
def through_proxy(softhsm: SoftHsm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    directory = tmp_path_factory.mktemp("proxy")
    backend = token(softhsm, "through_proxy", softhsm.proxy, "through-proxy", directory)
    yield backend
    backend.store.close()


@pytest.fixture(scope="session")
def direct(softhsm: SoftHsm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    directory = tmp_path_factory.mktemp("direct")
    backend = token(softhsm, "direct", softhsm.copy("direct"), "direct", directory)
    yield backend
    backend.store.close()


@pytest.fixture(scope="session")
def one_tpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ResourceManager]:
    """A TPM as it is on a device: behind a resource manager, so that several connections share it."""
    with (
        running_swtpm(tmp_path_factory.mktemp("swtpm")) as swtpm,
        resource_manager(swtpm, tmp_path_factory.mktemp("bus")) as manager,
    ):
        yield manager


@pytest.fixture(scope="session")
def tpm2_pkcs11(one_tpm: ResourceManager, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    directory = tmp_path_factory.mktemp("tpm2-pkcs11")
    with token_in_tpm(directory / "token", one_tpm.tcti, one_tpm.environment) as in_tpm:
        backend = tpm_as_token(in_tpm, directory)
        yield backend
        backend.store.close()


@pytest.fixture(autouse=True)
def room_in_the_tpm(request: pytest.FixtureRequest) -> Iterator[None]:
    """tpm2-pkcs11 keeps every key that it makes or uses in the TPM until the logout, and there is room for a dozen."""
    case = getattr(request.node, "callspec", None)
    if case is None or "tpm2_pkcs11" not in case.params.values():
        yield
        return
    backend: Backend = request.getfixturevalue("tpm2_pkcs11")
    yield
    backend.store.close()
    backend.store = backend.make(backend.right)


@pytest.fixture(scope="session")
def in_tpm(one_tpm: ResourceManager, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in one_tpm.environment.items():
            patch.setenv(name, value)
        backend = tpm(tmp_path_factory.mktemp("tpm"), one_tpm.tcti)
        yield backend
        backend.store.close()


@pytest.fixture(scope="session", params=["through_proxy", "direct", "tpm2_pkcs11"])
def in_token(request: pytest.FixtureRequest) -> Backend:
    """The PKCS#11 tokens."""
    backend: Backend = request.getfixturevalue(request.param)
    return backend


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every store; see `pytest_generate_tests`."""
    chosen: Backend = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture(scope="session")
def lasting(request: pytest.FixtureRequest) -> Backend:
    """The stores whose keys outlive the process that made them, and are guarded by a PIN or a passphrase."""
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
