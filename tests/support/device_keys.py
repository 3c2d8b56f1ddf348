"""Scanners whose device key is in a token, at a hospital with an evaluation CA."""

from __future__ import annotations

import _ssl
import contextlib
import ctypes
import json
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from enroll.algorithms import KeyAlgorithm
from enroll.evaluation.est_server import EstOptions, EstServer
from enroll.identity import Generation, IdentityName, IdentityStore
from enroll.statefile import StateFiles
from enroll.tls import RouteName, token_provider
from tests.support import tls_client
from tests.support.hospital import Hospital
from tests.support.key_stores import secret_file
from tests.support.pki import DEVICE
from tests.support.softhsm import SoftHsm
from tests.support.swtpm import ResourceManager
from tests.support.tpm2_pkcs11 import LABEL, TokenInTpm

TLS_VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
ALGORITHMS = (KeyAlgorithm.RSA_2048, KeyAlgorithm.P_256)


def needs_route(route: RouteName) -> None:
    """Skip where this machine does not have it, and say how to get it."""
    if route is RouteName.PROVIDER and not _has_provider():
        pytest.skip("no pkcs11-provider: apt-get install pkcs11-provider (Debian 12: from bookworm-backports)")
    if route is RouteName.SIGNER:
        pytest.importorskip("sslcontext", reason="sslcontext is missing: pip install '.[tls]'")


def _has_provider() -> bool:
    library = ctypes.CDLL(getattr(_ssl, "__file__", None))
    return (
        hasattr(library, "OPENSSL_info")
        and (token_provider.modules_directory(library) / token_provider.MODULE).is_file()
    )


@dataclass
class TokenScanner:
    """A scanner; each call of `run` is a process of its own.

    Args:
        hospital: Where it belongs.
        directory: Everything of it lies below.
        tables: Its configuration, beyond what every scanner has.
        environment: What its processes need in their environment.
        options: Of `tests.support.tls_client`.
    """

    hospital: Hospital
    directory: Path
    tables: dict[str, dict[str, Any]]
    environment: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()

    def configure(self, **tables: dict[str, Any]) -> Path:
        """Write scanseal.toml."""
        everything: dict[str, dict[str, Any]] = {
            "device": {"serial_number": DEVICE.serial_number, "model": DEVICE.model},
            **self.hospital.tables(),
        }
        for name, table in [*self.tables.items(), *tables.items()]:
            everything[name] = {**everything.get(name, {}), **table}
        lines = [f"state_directory = {json.dumps(str(self.directory / 'state'))}"]
        for name, table in everything.items():
            lines += [
                f"[{name}]",
                *(f"{option} = {json.dumps(str(value))}" for option, value in table.items() if value),
            ]
        path = self.directory / "scanseal.toml"
        path.write_text("\n".join(lines), "utf-8")
        return path

    def run(self, *actions: str, **environment: str) -> list[tls_client.Answer]:
        """What its next process answers."""
        everything = {"TMPDIR": str(self.temporary), **self.environment, **environment}
        return tls_client.run(self.configure(), *self.options, *actions, environment=everything)

    @property
    def temporary(self) -> Path:
        """Where its processes make temporary files."""
        path = self.directory / "temporary"
        path.mkdir(exist_ok=True)
        return path

    def device(self) -> Generation:
        """The device identity."""
        device = IdentityStore(self.directory / "state", StateFiles()).current(IdentityName.DEVICE)
        assert device
        return device

    def enroll_with_password(self) -> None:
        """The first device identity."""
        with self.hospital.answers() as server:
            (answer,) = self.run(f"enroll:device@{server.url}")
        assert answer.get("number") == 1, answer


def in_software(directory: Path, algorithm: KeyAlgorithm) -> TokenScanner:
    """A scanner whose device key will be in a file."""
    return _scanner(directory, _device("software", algorithm))


def in_softhsm(directory: Path, algorithm: KeyAlgorithm, hsm: SoftHsm, module: Path | None = None) -> TokenScanner:
    """A scanner whose device key will be in SoftHSM, called directly unless another module is given."""
    token = {"module": module or hsm.library, "token": "direct", "pin_file": hsm.pin_file}
    return _scanner(directory, {"keystore.pkcs11": token, **_device("pkcs11", algorithm)})


def in_token_of_tpm(directory: Path, algorithm: KeyAlgorithm, token: TokenInTpm) -> TokenScanner:
    """A scanner whose device key will be in a TPM, seen as a PKCS#11 token."""
    settings = {"module": token.library, "token": LABEL, "pin_file": token.pin_file}
    scanner = _scanner(directory, {"keystore.pkcs11": settings, **_device("pkcs11", algorithm)})
    return replace(scanner, environment=token.environment)


def in_tpm(directory: Path, algorithm: KeyAlgorithm, tpm: ResourceManager) -> TokenScanner:
    """A scanner whose device key will be in a TPM."""
    authorization_file = secret_file(directory / "authorization", "a long authorization value")
    settings = {"tcti": tpm.tcti, "authorization_file": authorization_file}
    scanner = _scanner(directory, {"keystore.tpm": settings, **_device("tpm", algorithm)})
    return replace(scanner, environment=tpm.environment)


def _device(store: str, algorithm: KeyAlgorithm) -> dict[str, dict[str, Any]]:
    return {"identity.device": {"key_store": store, "key_algorithm": algorithm}}


def _scanner(directory: Path, tables: dict[str, dict[str, Any]]) -> TokenScanner:
    passphrase_file = secret_file(directory / "passphrase", "a passphrase")
    signing = {"identity.signing": {"key_algorithm": KeyAlgorithm.RSA_2048}}
    software = {"keystore.software": {"passphrase_file": passphrase_file}}
    return TokenScanner(Hospital(directory / "ca"), directory, {**signing, **software, **tables})


@contextlib.contextmanager
def demanding_server(
    hospital: Hospital, version: ssl.TLSVersion | None = None
) -> Iterator[tuple[EstServer, list[str]]]:
    """An EST server that takes nobody without a certificate, and what it logs."""
    lines: list[str] = []
    options = EstOptions(demands_certificate=True, tls_version=version)
    with EstServer(hospital.ca, log=lines.append, options=options) as server:
        yield server, lines
