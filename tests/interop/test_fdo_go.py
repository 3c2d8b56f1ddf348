"""FIDO Device Onboard: our device at the servers of go-fdo."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from enroll.algorithms import KeyAlgorithm
from enroll.clock import SystemClock
from enroll.config import KeyStoreSettings, Pkcs11StoreSettings, StoreName, TpmStoreSettings
from enroll.errors import ConfigurationError, EnrollmentError, EnrollmentRefused, ServerUnreachable
from enroll.evaluation.ca import EvaluationCa
from enroll.evaluation.est_server import EstOptions, EstServer
from enroll.fdo.fault import ErrorCode
from enroll.fdo.owner_policy import OwnerRefused
from enroll.fdo.public_key import KeyEncoding
from enroll.fdo.transport import ErrorReceived
from enroll.fdo.voucher import Voucher
from enroll.flows.settings import FdoCipher
from enroll.identity import Generation
from enroll.owner_release import OwnerRelease
from tests.support.dcmsign import needs_dcmsign
from tests.support.fdo.go_matrix import (
    ENCRYPT_THEN_MAC,
    KEY_EXCHANGES,
    KINDS,
    MATRIX,
    P_256,
    Kind,
    Row,
    assert_certified_by,
    initialized,
    onboarded,
)
from tests.support.fdo.go_peer import GoServer, run_go_device, running_go_server
from tests.support.fdo.parties import http_channel
from tests.support.fdo.scanner import FdoScanner
from tests.support.fdo.signed_images import assert_signs_images
from tests.support.key_stores import secret_file
from tests.support.softhsm import new_softhsm
from tests.support.swtpm import resource_manager, running_swtpm

Devices = Callable[[Kind], FdoScanner]


@pytest.fixture(scope="module")
def go_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoServer]:
    with running_go_server(tmp_path_factory.mktemp("go")) as server:
        yield server


@pytest.fixture(scope="module")
def devices(go_server: GoServer, tmp_path_factory: pytest.TempPathFactory) -> Devices:
    """One device of each kind: each onboarding gives it another credential, by the suites of its row."""
    made: dict[Kind, FdoScanner] = {}

    def device(kind: Kind) -> FdoScanner:
        if kind not in made:
            made[kind] = initialized(tmp_path_factory.mktemp(str(kind)), go_server, kind)
        return made[kind]

    return device


@pytest.fixture(scope="module")
def est_server(go_server: GoServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EstServer]:
    """The hospital's CA, which knows the devices by the certificates of the owner's CA in Go."""
    ca = EvaluationCa.create_or_open(tmp_path_factory.mktemp("est"), SystemClock())
    owners_ca = tuple(x509.load_pem_x509_certificates(go_server.ca_file.read_bytes()))
    with EstServer(ca, options=EstOptions(vendors=owners_ca)) as server:
        yield server


class TestOurDevice:
    @needs_dcmsign
    @pytest.mark.parametrize("row", MATRIX, ids=str)
    def test_gets_its_certificate_by_each_suite_and_signs_images(
        self, row: Row, go_server: GoServer, devices: Devices, est_server: EstServer, tmp_path: Path
    ) -> None:
        scanner = devices(row.kind)
        before = scanner.credentials.current()

        generation = onboarded(scanner, row)

        after = scanner.credentials.current()
        assert_certified_by(go_server, scanner, generation)
        assert before is not None
        assert after is not None
        assert after.guid != before.guid
        assert_signs_images(scanner, est_server, tmp_path)

    @pytest.mark.parametrize("cipher", ENCRYPT_THEN_MAC)
    def test_speaks_cbc_and_ctr_as_go_fdo_does(self, cipher: FdoCipher, go_server: GoServer, devices: Devices) -> None:
        scanner = devices(P_256)

        generation = onboarded(scanner, Row(P_256, "ECDH256", cipher, 1300))

        assert_certified_by(go_server, scanner, generation)

    @pytest.mark.parametrize("kind", KINDS, ids=str)
    def test_leaves_a_voucher_that_our_tools_verify(self, kind: Kind, go_server: GoServer, devices: Devices) -> None:
        credential = devices(kind).credentials.current()
        assert credential is not None

        voucher = Voucher.read(go_server.voucher(credential.guid))

        assert voucher.header.guid == credential.guid
        assert len(voucher.entries) == 1
        owner = voucher.verify().owner
        assert owner.encoding is kind.encoding
        assert bool(owner.chain) == (kind.encoding is KeyEncoding.X5CHAIN)

    @pytest.mark.parametrize("algorithm", [KeyAlgorithm.P_256, KeyAlgorithm.P_384])
    def test_takes_cose_keys_whose_leading_zeros_go_fdo_leaves_out(
        self, algorithm: KeyAlgorithm, tmp_path: Path
    ) -> None:
        """RFC 9053 7.1.1 keeps them; without this one of 64 factories could make no scanner of ours."""
        kind = Kind(algorithm, KeyEncoding.COSEKEY)
        with running_go_server(tmp_path / "go", "-short-keys") as server:
            scanner = initialized(tmp_path / "scanner", server, kind)
            generation = onboarded(scanner, Row(kind, KEY_EXCHANGES[algorithm][0], FdoCipher.A256GCM, 1300))

            assert_certified_by(server, scanner, generation)
            credential = scanner.credentials.current()
            assert credential is not None
            assert Voucher.read(server.voucher(credential.guid)).verify().owner.encoding is KeyEncoding.COSEKEY

    def test_takes_each_of_three_owners_after_the_one_before_has_released_it(self, tmp_path: Path) -> None:
        with running_go_server(tmp_path / "go", "-owners", "3") as server:
            scanner = initialized(tmp_path / "scanner", server)
            owners = []
            for _ in range(3):
                generation = scanner.onboard()
                assert isinstance(generation, Generation)
                assert_certified_by(server, scanner, generation)
                owners.append(scanner.credentials.current())
                with pytest.raises(OwnerRefused):
                    scanner.onboard()
                assert not OwnerRelease(scanner.scanner.restarted().context).run()

            assert len({each.owner.fingerprint for each in owners if each and each.owner}) == 3
            assert len({each.guid for each in owners if each}) == 3
            assert [each["after"] for each in server.reported] == [63, 63, 63]

    def test_leaves_its_credential_as_it_is_only_where_it_may_be_reused(self, tmp_path: Path) -> None:
        with running_go_server(tmp_path / "go", "-reuse") as server:
            scanner = initialized(tmp_path / "refusing", server)
            before = scanner.credentials.candidates()
            with pytest.raises(EnrollmentError):
                scanner.onboard()
            assert scanner.credentials.candidates() == before
            assert [each["error"] for each in server.reported] == [ErrorCode.REUSE_REFUSED]

            scanner = initialized(tmp_path / "allowing", server)
            scanner.configure(credential_reuse=True)
            before = scanner.credentials.candidates()
            for _ in range(2):
                generation = scanner.onboard()
                assert isinstance(generation, Generation)
                assert_certified_by(server, scanner, generation)
                assert [each.guid for each in scanner.credentials.candidates()] == [each.guid for each in before]

    def test_finds_an_owner_without_rendezvous_server(self, tmp_path: Path) -> None:
        with running_go_server(tmp_path / "go", "-bypass") as server:  # nobody is registered there
            scanner = initialized(tmp_path / "scanner", server)
            for _ in range(2):
                generation = scanner.onboard()
                assert isinstance(generation, Generation)
                assert_certified_by(server, scanner, generation)

    def test_has_no_module_that_gives_control_of_it(self, tmp_path: Path) -> None:
        with running_go_server(tmp_path / "go", "-other-module", "fdo.command") as server:
            scanner = initialized(tmp_path / "scanner", server)

            generation = scanner.onboard()

            assert isinstance(generation, Generation)  # the server goes on only after `active` = false

    def test_keeps_its_credential_where_the_ca_refuses(self, tmp_path: Path) -> None:
        with running_go_server(tmp_path / "go", "-refusal", "2") as server:
            scanner = initialized(tmp_path / "scanner", server)
            before = scanner.credentials.candidates()

            with pytest.raises(EnrollmentRefused, match="may not have"):
                scanner.onboard()

            assert scanner.credentials.candidates() == before
            assert [each["after"] for each in server.reported] == [69]

    @pytest.mark.parametrize("message", ["30", "32", "60", "62", "64", "66", "68", "70"])
    def test_is_onboarded_by_the_next_run_where_an_answer_is_lost(self, message: str, tmp_path: Path) -> None:
        with running_go_server(tmp_path / "go", "-lose-answer-to", message) as server:
            scanner = initialized(tmp_path / "scanner", server)
            assert not isinstance(scanner.onboard(), Generation)

            scanner.wait()
            generation = scanner.onboard()

            assert isinstance(generation, Generation)
            assert_certified_by(server, scanner, generation)
            assert len(scanner.credentials.candidates()) == 1

    @pytest.mark.parametrize("message", ["10", "12"])
    def test_is_initialized_by_the_next_run_where_an_answer_is_lost(self, message: str, tmp_path: Path) -> None:
        with running_go_server(tmp_path / "go", "-lose-answer-to", message) as server:
            scanner = FdoScanner(tmp_path / "scanner")
            with pytest.raises(ServerUnreachable):
                scanner.initialize(http_channel(server.url))

            scanner.initialize(http_channel(server.url))

            assert isinstance(scanner.onboard(), Generation)

    def test_takes_an_owner_whose_certificates_lead_to_its_list(self, tmp_path: Path) -> None:
        with running_go_server(tmp_path / "go") as server:
            kind = Kind(KeyAlgorithm.P_256, KeyEncoding.X5CHAIN)
            scanner = initialized(tmp_path / "scanner", server, kind)
            scanner.configure(owner_anchor_file=server.ca_file)
            with pytest.raises(OwnerRefused):
                scanner.onboard()

            scanner.wait()
            scanner.configure(owner_anchor_file=server.owners_file)
            assert isinstance(scanner.onboard(), Generation)


class TestOurDeviceIsRefused:
    def test_aes_ccm_which_go_fdo_does_not_know(self, go_server: GoServer, tmp_path: Path) -> None:
        scanner = initialized(tmp_path, go_server)
        with pytest.raises(ErrorReceived, match="unsupported key exchange/cipher suite"):
            onboarded(scanner, Row(P_256, "ECDH256", FdoCipher.AES_CCM_64_128_128, 1300))

    @pytest.mark.parametrize(("algorithm", "key_exchange"), [("p-256", "ECDH384"), ("p-384", "DHKEXid15")])
    def test_a_key_exchange_for_keys_of_another_kind(
        self, algorithm: str, key_exchange: str, go_server: GoServer, tmp_path: Path
    ) -> None:
        kind = Kind(KeyAlgorithm(algorithm), KeyEncoding.X509)
        scanner = initialized(tmp_path, go_server, kind)
        with pytest.raises(ErrorReceived, match="is invalid for the device and owner attestation types"):
            onboarded(scanner, Row(kind, key_exchange, FdoCipher.A128GCM, 1300))

    def test_by_itself_a_key_exchange_for_longer_keys_which_go_fdo_takes(
        self, go_server: GoServer, tmp_path: Path
    ) -> None:
        kind = Kind(KeyAlgorithm.RSA_2048, KeyEncoding.X509)
        scanner = initialized(tmp_path, go_server, kind)
        with pytest.raises(EnrollmentError) as refused:
            onboarded(scanner, Row(kind, "DHKEXid15", FdoCipher.A128GCM, 1300))
        assert not isinstance(refused.value, ErrorReceived)

    def test_rsa_keys_written_as_cosekey(self, go_server: GoServer, tmp_path: Path) -> None:
        kind = Kind(KeyAlgorithm.RSA_2048, KeyEncoding.COSEKEY)
        with pytest.raises(ConfigurationError, match="no COSEKEY of an RSA key"):
            initialized(tmp_path, go_server, kind)
        assert "COSE encoding" in run_go_device(go_server.url, *kind.go_options).failure


Place = tuple[StoreName, KeyStoreSettings]


@pytest.fixture(scope="module")
def in_softhsm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    hsm = new_softhsm(tmp_path_factory.mktemp("hsm") / "softhsm", ["scanner"])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in hsm.environment.items():
            patch.setenv(name, value)
        settings = Pkcs11StoreSettings(hsm.copy("own"), "scanner", hsm.pin_file)
        yield StoreName.PKCS11, KeyStoreSettings(pkcs11=settings)


@pytest.fixture(scope="module")
def in_swtpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    pytest.importorskip("tpm2_pytss", reason="tpm2-pytss is missing: pip install '.[tpm]'")
    directory = tmp_path_factory.mktemp("tpm")
    authorization = secret_file(directory / "authorization", "a long authorization value")
    with (
        pytest.MonkeyPatch.context() as patch,
        running_swtpm(directory) as simulated,
        resource_manager(simulated, directory) as manager,
    ):
        for name, value in manager.environment.items():
            patch.setenv(name, value)
        settings = TpmStoreSettings(manager.tcti, directory / "keys", authorization)
        yield StoreName.TPM, KeyStoreSettings(tpm=settings)


@pytest.fixture(scope="module", params=["in_softhsm", "in_swtpm"])
def in_hardware(
    request: pytest.FixtureRequest, go_server: GoServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Devices]:
    """Devices all of whose keys are in a token or a TPM, with the HMAC secret."""
    store, settings = request.getfixturevalue(request.param)
    made: dict[Kind, FdoScanner] = {}

    def device(kind: Kind) -> FdoScanner:
        if kind not in made:
            scanner = made[kind] = FdoScanner(tmp_path_factory.mktemp(str(kind)))
            identity = scanner.scanner.settings.identity
            identity = replace(
                identity,
                device=replace(identity.device, key_store=store),
                signing=replace(identity.signing, key_store=store),
            )
            scanner.change(keystore=settings, identity=identity)
            scanner.initialize(http_channel(go_server.url), kind.algorithm, kind.encoding, store)
        return made[kind]

    yield device
    for scanner in made.values():
        scanner.scanner.stores.close()


class TestOurDeviceWithItsKeysInHardware:
    @needs_dcmsign
    @pytest.mark.parametrize("row", [row for row in MATRIX if row.kind.algorithm is KeyAlgorithm.P_256], ids=str)
    def test_gets_its_certificate_by_each_suite_and_signs_images(
        self, row: Row, go_server: GoServer, in_hardware: Devices, est_server: EstServer, tmp_path: Path
    ) -> None:
        scanner = in_hardware(row.kind)

        generation = onboarded(scanner, row)

        assert_certified_by(go_server, scanner, generation)
        scanner.scanner.stores.close()
        assert_signs_images(scanner, est_server, tmp_path)
        assert not list((scanner.directory.parent / "keys").glob("*"))
