"""ACME against pebble, which makes life hard on purpose: nonces refused at random, slow looks, chains of any length."""

from __future__ import annotations

import contextlib
import itertools
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from enroll.algorithms import KeyAlgorithm
from enroll.config import KeyStoreSettings, Pkcs11StoreSettings
from enroll.enroller import Enroller
from enroll.errors import ConfigurationError, EnrollmentRefused, ServerUnreachable
from enroll.flows.acme.account import Account
from enroll.flows.acme.client import AcmeClient
from enroll.flows.acme.jws import thumbprint
from enroll.flows.acme.revoke import revoke
from enroll.flows.base import Pending, Revoked
from enroll.flows.settings import AcmeChallenge, FlowName
from enroll.http import Answer, HttpsSession
from enroll.identity import Generation, IdentityName
from enroll.keystore.base import Protection
from enroll.statefile import StateFiles
from tests.support.acme.pebble import DEVICE_NAME, Pebble, running_pebble
from tests.support.enrolling import Scanner
from tests.support.softhsm import softhsm_of_this_process

DEVICE = IdentityName.DEVICE
MAC_KEY = secrets.token_urlsafe(48)


class Killed(BaseException):
    """Not an Exception: nothing in the program gets to handle it."""


@pytest.fixture(scope="module")
def pebble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    with running_pebble(tmp_path_factory.mktemp("pebble")) as running:
        yield running


@pytest.fixture
def scanner(pebble: Pebble, tmp_path: Path) -> Scanner:
    return pebble.scanner(tmp_path / "scanner")


def ask(scanner: Scanner) -> Generation | Pending:
    """One run of the enroller, as after a restart."""
    with Enroller(scanner.restarted().context) as enroller:
        answer = enroller.enroll(DEVICE, FlowName.ACME)
    assert isinstance(answer, Generation | Pending)
    return answer


def enroll(scanner: Scanner) -> Generation:
    generation = ask(scanner)
    assert isinstance(generation, Generation)
    return generation


def configured(scanner: Scanner, **acme: object) -> Scanner:
    return scanner.restarted(acme=replace(scanner.settings.acme, **acme))  # type: ignore[arg-type]


def orders(pebble: Pebble) -> int:
    """How many orders pebble has had."""
    return last_count(pebble, "orders")


def last_count(pebble: Pebble, things: str) -> int:
    """What pebble said last of how many there are."""
    log = (pebble.directory / "pebble.log").read_text("utf-8")
    return int(["0", *re.findall(f"There are now ([0-9]+) {things}", log)][-1])


# --- what is issued


@pytest.mark.parametrize("challenge", [AcmeChallenge.HTTP, AcmeChallenge.DNS])
def test_the_hook_shows_the_ca_that_the_name_is_ours(
    scanner: Scanner, challenge: AcmeChallenge, pebble: Pebble
) -> None:
    """RFC 8555 8.3 and 8.4. What the hook has put somewhere it takes away again."""
    before = len(pebble.hook_calls())

    generation = enroll(configured(scanner, challenge=challenge))

    names = generation.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.DNSName(DEVICE_NAME)]
    assert scanner.matching_pair(DEVICE) == generation
    present, clean_up = pebble.hook_calls()[before:]
    assert present[:3] == ["present", challenge, DEVICE_NAME]
    assert clean_up == ["cleanup", *present[1:]]


@pytest.mark.parametrize("length", range(1, 6))
def test_chains_of_any_length_lead_to_the_anchor(tmp_path: Path, length: int) -> None:
    """RFC 8555 9.1: the certificate first, then what certifies it. A chain of 0 is in test_acme2certifier.py."""
    with running_pebble(tmp_path / "pebble", PEBBLE_CHAIN_LENGTH=str(length)) as pebble:
        generation = enroll(pebble.scanner(tmp_path / "scanner"))

    assert len(generation.chain) == length


def test_an_authorization_that_is_still_good_is_not_proved_again(tmp_path: Path) -> None:
    """RFC 8555 7.1.3: a new order may have nothing left to do."""
    with running_pebble(tmp_path / "pebble", PEBBLE_AUTHZREUSE="100") as pebble:
        scanner = pebble.scanner(tmp_path / "scanner")
        first, second = enroll(scanner), enroll(scanner)

        assert second.certificate.serial_number != first.certificate.serial_number
        assert [call[0] for call in pebble.hook_calls()] == ["present", "cleanup"]


def test_a_refusal_names_what_the_ca_missed(scanner: Scanner, pebble: Pebble) -> None:
    pebble.silent.touch()
    try:
        with pytest.raises(EnrollmentRefused, match=r"unauthorized: .* did not match this challenge"):
            enroll(scanner)
    finally:
        pebble.silent.unlink()

    assert scanner.matching_pair(DEVICE) is None
    enroll(scanner)


def test_a_hook_that_fails_is_named_and_the_order_goes_on_once_it_works(scanner: Scanner, pebble: Pebble) -> None:
    broken = scanner.settings.state_directory.with_name("broken-hook")
    broken.write_text("#!/bin/sh\necho no such zone >&2\nexit 3\n", "utf-8")
    broken.chmod(0o755)
    with pytest.raises(ConfigurationError, match="exit code 3 on 'present': no such zone"):
        enroll(configured(scanner, hook=broken))
    before = orders(pebble)

    enroll(scanner)

    assert orders(pebble) == before


# --- nonces (RFC 8555 6.5)


def test_twenty_of_twenty_enrollments_pass_where_every_fifth_nonce_is_refused(tmp_path: Path) -> None:
    with running_pebble(tmp_path / "pebble", PEBBLE_WFE_NONCEREJECT="20") as pebble:
        scanner = pebble.scanner(tmp_path / "scanner")
        serial_numbers = {enroll(scanner).certificate.serial_number for _ in range(20)}

    assert len(serial_numbers) == 20


def test_with_nine_of_ten_nonces_refused_it_ends_and_the_next_run_goes_on(tmp_path: Path) -> None:
    """A request is repeated at most 50 times: about one in 200 fails, and its order goes on with the next run."""
    with running_pebble(tmp_path / "pebble", PEBBLE_WFE_NONCEREJECT="90") as pebble:
        scanner = pebble.scanner(tmp_path / "scanner")
        runs = [runs_until_issued(scanner) for _ in range(5)]
        assert orders(pebble) == len(runs)

    assert sum(runs) < 2 * len(runs)


def runs_until_issued(scanner: Scanner) -> int:
    for run in itertools.count(1):
        with contextlib.suppress(ServerUnreachable):
            enroll(scanner)
            return run
    raise AssertionError


# --- the account (RFC 8555 7.3)


def test_there_is_one_account_whatever_is_enrolled(scanner: Scanner) -> None:
    enroll(scanner)
    account = (scanner.settings.state_directory / "acme/account.json").read_bytes()

    enroll(scanner)

    assert (scanner.settings.state_directory / "acme/account.json").read_bytes() == account


def test_an_account_whose_address_was_lost_is_found_by_its_key(scanner: Scanner) -> None:
    """RFC 8555 7.3.1."""
    with AcmeClient.configured(scanner.context) as client:
        made = Account(client, scanner.context).signer().account_url
        Account(client, scanner.context).forget()

        assert Account(client, scanner.context).signer().account_url == made


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    """It wants to know whose account it is."""
    with running_pebble(tmp_path_factory.mktemp("strict"), external_account={"kid-1": MAC_KEY}) as running:
        yield running


def mac_key(folder: Path, key: str) -> Path:
    path = folder / "mac-key"
    path.write_text(f"{key}\n", "utf-8")
    path.chmod(0o600)
    return path


def test_an_account_is_bound_to_an_external_one(strict: Pebble, tmp_path: Path) -> None:
    """RFC 8555 7.3.4."""
    key_file = mac_key(tmp_path, MAC_KEY)

    enroll(strict.scanner(tmp_path / "scanner", eab_key_id="kid-1", eab_key_file=key_file))


def test_without_a_binding_it_is_said_what_to_get(strict: Pebble, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="eab_key_id and eab_key_file"):
        enroll(strict.scanner(tmp_path / "scanner"))


@pytest.mark.parametrize(
    ("name", "key"),
    [("kid-1", secrets.token_urlsafe(48)), ("kid-2", MAC_KEY)],
    ids=["another-key", "another-identifier"],
)
def test_a_wrong_binding_is_refused_without_showing_the_key(
    strict: Pebble, tmp_path: Path, name: str, key: str
) -> None:
    with pytest.raises(EnrollmentRefused) as raised:
        enroll(strict.scanner(tmp_path / "scanner", eab_key_id=name, eab_key_file=mac_key(tmp_path, key)))

    assert key not in str(raised.value)
    assert raised.value.who_must_act == "CA operator"


def test_the_terms_of_service_are_agreed_to_by_a_person(pebble: Pebble, tmp_path: Path) -> None:
    """RFC 8555 7.3.3. Nothing is agreed to by default."""
    with pytest.raises(ConfigurationError, match="terms_of_service_agreed"):
        enroll(pebble.scanner(tmp_path / "scanner", terms_of_service_agreed=False))


@pytest.mark.parametrize("algorithm", [KeyAlgorithm.P_384, KeyAlgorithm.RSA_2048])
def test_the_account_key_may_be_of_another_kind(pebble: Pebble, tmp_path: Path, algorithm: KeyAlgorithm) -> None:
    enroll(pebble.scanner(tmp_path / "scanner", account_key_algorithm=algorithm))


def test_the_account_key_may_live_in_a_token(
    pebble: Pebble, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    hsm = softhsm_of_this_process(tmp_path_factory.getbasetemp())
    scanner = pebble.scanner(tmp_path / "scanner", account_key_store="pkcs11")
    token = Pkcs11StoreSettings(hsm.proxy, "through-proxy", hsm.pin_file)
    both = KeyStoreSettings(software=scanner.settings.keystore.software, pkcs11=token)
    scanner = scanner.restarted(keystore=both)

    with Enroller(scanner.context) as enroller:
        before = account_keys(scanner)
        enroller.enroll(DEVICE, FlowName.ACME)
        with AcmeClient.configured(scanner.context) as client:
            Account(client, scanner.context).roll_over()
        assert isinstance(enroller.enroll(DEVICE, FlowName.ACME), Generation)
        made = set(account_keys(scanner)) - set(before)

    assert [uri.partition(":")[0] for uri in made] == ["pkcs11"]


class FailingFiles(StateFiles):
    """The process ends at the operation with this number, counted from 1: just before it, or just after."""

    def __init__(self, number: int, *, after: bool) -> None:
        self.left = number
        self.after = after

    def write(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        self._end(after=False)
        super().write(path, data, mode)
        self._end(after=True)

    def _end(self, *, after: bool) -> None:
        self.left -= after
        if self.left == (0 if after else 1) and after is self.after:
            raise Killed


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_kill_at_any_write_leaves_one_account_with_one_key(pebble: Pebble, tmp_path: Path, *, after: bool) -> None:
    for number in itertools.count(1):
        folder = tmp_path / f"scanner-{number}"
        before = accounts(pebble)
        dying = pebble.scanner(folder, files=FailingFiles(number, after=after))
        scanner = pebble.scanner(folder)
        with AcmeClient.configured(scanner.context) as client:
            try:
                Account(client, dying.context).signer()
            except Killed:
                pass
            else:
                break
            signer = Account(client, scanner.context).signer()
            assert client.post(signer.account_url, signer, None).status == 200
        assert len(account_keys(scanner)) == 1
        assert accounts(pebble) == before + 1
    assert number > 4


def accounts(pebble: Pebble) -> int:
    """How many accounts pebble has."""
    return last_count(pebble, "accounts")


# --- a new key for the account (RFC 8555 7.3.5)


def roll_over(scanner: Scanner) -> str:
    with AcmeClient.configured(scanner.context) as client:
        account = Account(client, scanner.context)
        account.roll_over()
        return account.key_uri()


def account_keys(scanner: Scanner) -> list[str]:
    return [uri for uri in scanner.stores.list() if "acme-account" in uri]


def test_the_account_goes_on_with_its_new_key_and_the_old_one_is_gone(scanner: Scanner) -> None:
    enroll(scanner)
    old = account_keys(scanner)

    new = roll_over(scanner)

    assert account_keys(scanner) == [new] != old
    enroll(scanner)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_kill_at_any_exchange_of_the_change_leaves_one_key_that_works(
    pebble: Pebble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, after: bool
) -> None:
    for exchange in itertools.count(1):
        scanner = pebble.scanner(tmp_path / f"scanner-{exchange}")
        with AcmeClient.configured(scanner.context) as client:
            url = Account(client, scanner.context).signer().account_url
        with monkeypatch.context() as patch:
            killed_at(patch, exchange, after=after)
            try:
                roll_over(scanner.restarted())
            except Killed:
                pass
            else:
                break
        with AcmeClient.configured(scanner.context) as client:
            signer = Account(client, scanner.restarted().context).signer()
            assert signer.account_url == url
            assert client.post(url, signer, None).status == 200
        assert len(account_keys(scanner)) == 1
    assert exchange >= 3  # directory, nonce, keyChange


# --- an order survives (enroll.flows.base.Handle)


def killed_at(patch: pytest.MonkeyPatch, number: int, *, after: bool) -> None:
    """The process ends at the exchange with this number, counted from 1: before it, or before its answer is seen."""
    exchange, left = HttpsSession._exchange, itertools.count(1)

    def cut(session: HttpsSession, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        is_last = next(left) == number
        if is_last and not after:
            raise Killed
        answer = exchange(session, method, url, headers, body)
        if is_last:
            raise Killed
        return answer

    patch.setattr(HttpsSession, "_exchange", cut)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_kill_at_any_exchange_leaves_an_order_that_the_next_run_finishes(
    pebble: Pebble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, after: bool
) -> None:
    """A second order is placed only where the answer to the first one was never seen."""
    second_orders = 0
    for exchange in itertools.count(1):
        scanner = pebble.scanner(tmp_path / f"scanner-{exchange}")
        before = orders(pebble)
        with monkeypatch.context() as patch:
            killed_at(patch, exchange, after=after)
            try:
                enroll(scanner)
            except Killed:
                pass
            else:
                break
        assert scanner.matching_pair(DEVICE) is None

        generation = enroll(scanner)

        assert scanner.matching_pair(DEVICE) == generation
        assert len(scanner.stores.list()) == 2  # of the account, and of the device
        second_orders += orders(pebble) - before - 1
    assert exchange > 8
    assert second_orders == (1 if after else 0)


def test_what_the_ca_takes_long_for_goes_on_with_the_next_run(tmp_path: Path) -> None:
    with running_pebble(tmp_path / "pebble", PEBBLE_VA_NOSLEEP="0", PEBBLE_VA_SLEEPTIME="3") as pebble:
        scanner = pebble.scanner(tmp_path / "scanner", patience=1)
        answers = [ask(scanner)]
        while isinstance(answers[-1], Pending) and len(answers) < 20:
            scanner.forget_until(DEVICE)
            answers.append(ask(scanner))

        assert isinstance(answers[-1], Generation)
        assert orders(pebble) == 1


def test_a_ca_that_has_forgotten_everything_gets_a_new_account_and_a_new_order(tmp_path: Path) -> None:
    with running_pebble(tmp_path / "pebble") as pebble:
        scanner = pebble.scanner(tmp_path / "scanner")
        pebble.silent.touch()
        with pytest.raises(EnrollmentRefused):
            enroll(scanner)
        key = account_keys(scanner)
        pebble.silent.unlink()
        pebble.restart()

        generation = enroll(pebble.scanner(tmp_path / "scanner"))

    assert account_keys(scanner) == key
    assert generation.protection is Protection.SOFTWARE


# --- revocation (RFC 8555 7.6)


def test_the_account_revokes_what_it_ordered(scanner: Scanner, pebble: Pebble) -> None:
    generation = enroll(scanner)

    assert revoke(DEVICE, x509.ReasonFlags.superseded, scanner.context) == Revoked(generation)

    assert pebble.is_revoked(generation.certificate)
    assert scanner.matching_pair(DEVICE) == generation


def test_what_is_revoked_already_is_revoked(scanner: Scanner, pebble: Pebble) -> None:
    """RFC 8555 7.6, alreadyRevoked: the run that asked was cut off before it had heard the answer."""
    generation = enroll(scanner)
    revoke(DEVICE, x509.ReasonFlags.superseded, scanner.context)

    assert revoke(DEVICE, x509.ReasonFlags.superseded, scanner.context) == Revoked(generation, was_already=True)

    assert pebble.is_revoked(generation.certificate)


def test_without_the_account_the_certificates_own_key_revokes_it(scanner: Scanner, pebble: Pebble) -> None:
    generation = enroll(scanner)
    (scanner.settings.state_directory / "acme/account.json").unlink()

    revoke(DEVICE, x509.ReasonFlags.key_compromise, scanner.context)

    assert pebble.is_revoked(generation.certificate)


def test_to_revoke_no_account_is_made_where_the_key_of_the_one_there_was_is_lost(
    scanner: Scanner, pebble: Pebble
) -> None:
    """It could not revoke anything, and a binding that works once would be used up for it."""
    generation = enroll(scanner)
    for uri in account_keys(scanner):
        scanner.restarted().stores.destroy(uri)
    before = accounts(pebble)

    revoke(DEVICE, x509.ReasonFlags.key_compromise, scanner.restarted().context)

    assert pebble.is_revoked(generation.certificate)
    assert accounts(pebble) == before
    assert account_keys(scanner) == []


def test_the_thumbprint_is_the_one_that_pebble_computes(scanner: Scanner, pebble: Pebble) -> None:
    """RFC 7638: pebble has compared it with its own for every challenge."""
    enroll(scanner)
    with AcmeClient.configured(scanner.context) as client:
        key = Account(client, scanner.context).signer().key.public_key()

    assert pebble.hook_calls()[-1][-1].endswith(f".{thumbprint(key)}")
