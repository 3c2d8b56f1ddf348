"""EST with a device key that is in a token (RFC 7030 3.3.2), at a server that takes nobody without a certificate."""

from __future__ import annotations

import hashlib
import os
import re
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import product

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from enroll.algorithms import KeyAlgorithm
from enroll.tls import RouteName
from tests.support.device_keys import (
    ALGORITHMS,
    TLS_VERSIONS,
    TokenScanner,
    demanding_server,
    in_softhsm,
    in_token_of_tpm,
    in_tpm,
    needs_route,
)
from tests.support.softhsm import softhsm_of_this_process
from tests.support.swtpm import resource_manager, running_swtpm
from tests.support.tls_client import NO_PROVIDER, NO_SIGNER
from tests.support.tpm2_pkcs11 import token_in_tpm

ROWS = [  # where the key is, and the only route there is; both where the machine has both
    ("softhsm", None),
    ("softhsm", RouteName.PROVIDER),
    ("softhsm", RouteName.SIGNER),
    ("tpm2-pkcs11", None),
    ("tpm2-pkcs11", RouteName.SIGNER),
    ("tpm", None),
]
WITHOUT_THE_OTHER = {None: (), RouteName.PROVIDER: (NO_SIGNER,), RouteName.SIGNER: (NO_PROVIDER,)}


@pytest.fixture(
    scope="module", params=product(ROWS, ALGORITHMS), ids=lambda row: f"{row[0][0]}-{row[0][1] or 'both'}-{row[1]}"
)
def scanner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenScanner]:
    """A scanner that has its first device certificate, by the password."""
    (place, only), algorithm = request.param
    for route in [only] if only else [RouteName.PROVIDER, RouteName.SIGNER]:
        needs_route(route)
    directory = tmp_path_factory.mktemp(place)
    with ExitStack() as ends:
        if place == "softhsm":
            scanner = in_softhsm(directory, algorithm, softhsm_of_this_process(tmp_path_factory.getbasetemp()))
        else:
            # The processes of a scanner come one after the other and leave objects behind, as on a device.
            tpm = ends.enter_context(running_swtpm(directory / "swtpm"))
            manager = ends.enter_context(resource_manager(tpm, directory))
            if place == "tpm":
                pytest.importorskip("tpm2_pytss", reason="tpm2-pytss is missing: pip install '.[tpm]'")
                scanner = in_tpm(directory, algorithm, manager)
            else:
                token = ends.enter_context(token_in_tpm(directory / "token", manager.tcti, manager.environment))
                scanner = in_token_of_tpm(directory, algorithm, token)
        scanner.options = WITHOUT_THE_OTHER[only]
        scanner.enroll_with_password()
        yield scanner


def fingerprint(certificate: x509.Certificate) -> str:
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


@pytest.mark.parametrize("version", TLS_VERSIONS)
def test_the_device_renews_itself_and_enrolls_the_signing_identity(
    scanner: TokenScanner, version: ssl.TLSVersion
) -> None:
    """RFC 7030 4.2.2 and 4.2.1; every connection proves itself with the device certificate in use."""
    before = scanner.device()
    with demanding_server(scanner.hospital, version) as (server, seen):
        renewed, signing = scanner.run(f"enroll:device@{server.url}", f"enroll:signing@{server.url}")

    after = scanner.device()
    assert "error" not in renewed | signing, (renewed, signing)
    assert renewed["number"] == after.number == before.number + 1
    assert signing["key_uri"].startswith("software:")
    assert after.key_uri != before.key_uri
    first, second = fingerprint(before.certificate), fingerprint(after.certificate)
    assert [line.partition(" HTTP")[0].rpartition("/")[2] + line[-65:-1] for line in seen] == [
        f"cacerts{first}",
        f"csrattrs{first}",
        f"simplereenroll{first}",
        f"cacerts{second}",
        f"csrattrs{second}",
        f"simpleenroll{second}",
    ]


def test_the_provider_comes_first_where_it_can_sign(request: pytest.FixtureRequest, scanner: TokenScanner) -> None:
    """pkcs11-provider 1.0 loads an RSA key of tpm2-pkcs11 1.9 and fails to sign; a trial shows that (ADR 21)."""
    fails = "tpm2-pkcs11-both-rsa" in request.node.name or "tpm-both" in request.node.name
    with demanding_server(scanner.hospital) as (server, _):
        (answer,) = scanner.run(f"get@{server.url}/.well-known/est/cacerts")

    assert answer["status"] == 200
    expected = RouteName.SIGNER if fails or NO_PROVIDER in scanner.options else RouteName.PROVIDER
    assert answer["route"] == expected


@pytest.mark.parametrize("scanner", [(("tpm2-pkcs11", None), KeyAlgorithm.RSA_2048)], indirect=True)
def test_where_the_provider_cannot_sign_the_package_that_can_is_named(scanner: TokenScanner) -> None:
    with demanding_server(scanner.hospital) as (server, seen):
        (answer,) = scanner.run(NO_SIGNER, f"get@{server.url}/")

    assert seen == []
    assert answer["code"] == "tls-route-missing"
    assert "and cannot use it" in answer["what"]
    assert "sslcontext is not installed." in answer["what"]
    assert "pip install 'scanseal[tls]'" in answer["remedy"]


def test_the_key_cannot_be_taken_out(scanner: TokenScanner) -> None:
    """PKCS#11 4.9: CKA_SENSITIVE and not CKA_EXTRACTABLE, and never otherwise since it was made in the token."""
    (answer,) = scanner.run("extract")
    assert answer["what"] == "This key does not leave its store."
    token = scanner.tables.get("keystore.pkcs11")
    if token is None:
        return  # the attributes of a key in a TPM are the subject of the tests of its store

    label = scanner.device().key_uri.partition("object=")[2].partition(";")[0]
    command = ["pkcs11-tool", "--module", str(token["module"]), "--token-label", str(token["token"]), "--login"]
    command += ["--pin", token["pin_file"].read_text("utf-8").strip(), "--list-objects", "--type", "privkey"]
    environment = {**os.environ, **scanner.environment}
    done = subprocess.run([*command, "--label", label], env=environment, capture_output=True, text=True, check=True)
    assert re.search(r"Access: +sensitive, always sensitive, never extract?able, local", done.stdout), done.stdout


def test_without_any_route_the_error_says_how_to_get_one(scanner: TokenScanner) -> None:
    """The password of the first enrollment is configured, and it is no remedy for a package that is missing."""
    with demanding_server(scanner.hospital) as (server, seen):
        answers = scanner.run(
            NO_PROVIDER, NO_SIGNER, f"enroll:device@{server.url}", f"enroll:signing@{server.url}", "route"
        )

    assert seen == []
    *refused, route = answers
    for answer in refused:
        assert answer["code"] == "tls-route-missing"
        if "keystore.pkcs11" in scanner.tables:
            assert "OpenSSL has no pkcs11-provider" in answer["what"]
            assert "apt-get install pkcs11-provider" in answer["remedy"]
        assert "pip install 'scanseal[tls]'" in answer["remedy"]
    assert route["name"] == RouteName.NONE
    assert route["reason"] in refused[0]["what"]
