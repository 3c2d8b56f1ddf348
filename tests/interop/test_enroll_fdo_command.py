"""`scanseal enroll fdo`, `fdo approve`, `renew`, `owner release`: from the factory to a scanner that renews itself.

The owner and its EST server are those for evaluation, over HTTP and TLS; only the commands are used.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.cli import exits
from agent.cli.main import run
from agent.daemon.signer import not_enrolled
from enroll.evaluation.est_server import EstServer
from enroll.evaluation.fdo.certificate_sources import CaBehind
from enroll.evaluation.fdo.fdo_csr import Enrollments
from enroll.evaluation.fdo.issued_certificates import IssuedCertificates
from enroll.evaluation.fdo.owner_modules import OwnerModules
from enroll.fdo.hand_over import Renewal
from enroll.flows.settings import FlowName
from enroll.identity import Generation, IdentityName
from enroll.record import write_record
from enroll.statefile import StateFiles
from tests.support.fdo.parties import Parties, party_keys, sold
from tests.support.fdo.scanner import FdoScanner

DEVICE, SIGNING = IdentityName.DEVICE, IdentityName.SIGNING
CONFIGURATION = """
state_directory = "{folder}/state"
[device]
serial_number = "CT-000123"
model = "Example CT"
[keystore.software]
passphrase_file = "{folder}/passphrase"
{more}
"""


class Site:
    """A hospital that owns a scanner, which knows nothing of the hospital yet."""

    def __init__(self, folder: Path, parties: Parties, est: EstServer) -> None:
        self.folder = folder / "scanner"
        self.parties = parties
        self.est = est
        self.scanner = FdoScanner(self.folder)
        self.scanner.initialize(parties.http_channel())
        self.configure()

    def configure(self, more: str = "") -> None:
        text = CONFIGURATION.format(folder=self.folder, more=more)
        (self.folder / "scanseal.toml").write_text(text)

    def renews_by_est(self) -> None:
        """The owner says from now on how certificates are renewed."""
        issued = IssuedCertificates(self.folder / "issued", StateFiles())
        enrollments = Enrollments(CaBehind(self.parties.ca), issued, logging.getLogger(__name__).info)
        made = OwnerModules(enrollments, Renewal(FlowName.EST, self.est.url))
        self.parties.owner = replace(self.parties.owner, make_modules=made)

    def run(self, *command: str) -> int:
        return run([*command, "--config", str(self.folder / "scanseal.toml")])

    def current(self, name: IdentityName) -> Generation | None:
        return self.scanner.scanner.identities.current(name)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Parties(tmp_path / "parties") as parties, EstServer(parties.ca) as est:
        yield Site(tmp_path, parties, est)


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def flows(site: Site) -> list[str]:
    found = (site.current(DEVICE), site.current(SIGNING))
    return [generation.flow if generation else "" for generation in found]


def test_one_command_ends_with_both_identities_and_renewals_go_by_est(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.renews_by_est()
    assert site.run("enroll", "fdo") == exits.OK

    out, told = capsys.readouterr()
    assert f"A rendezvous server is asked: {site.parties.url}" in told
    assert "The owner has proved itself" in told
    assert "A certificate has come." in told
    assert out.startswith("device: serialNumber=CT-000123")
    assert "signing: " in out
    assert flows(site) == ["fdo", "est"]
    assert site.run("renew", "--force") == exits.OK
    assert flows(site) == ["est", "est"]
    capsys.readouterr()

    assert site.run("status", "--json") == exits.UNAVAILABLE  # there is no agent
    status = said(capsys)["fdo"]
    assert (status["guid"], status["renewal"]) == (site.scanner.credential.guid.hex(), "est")
    assert (status["unfinished"], status["approval"], status["released"]) == (False, [], False)
    assert site.run("status") == exits.UNAVAILABLE
    assert f"owned by the holder of the key {status['owner']}, renewed by est" in capsys.readouterr().out
    site.run("check")
    assert f"onboarded by the owner with the fingerprint {status['owner']}" in capsys.readouterr().out


def test_the_dry_run_says_who_would_be_asked(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert site.run("enroll", "fdo", "--dry-run") == exits.OK

    out = capsys.readouterr().out
    assert f"device: to {site.parties.url}\n    TO1" in out
    assert "signing: to the server that the owner names" in out
    assert out.endswith("Nothing was sent.\n")
    assert site.current(DEVICE) is None


def test_where_nobody_is_there_yet_the_timer_goes_on(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """FDO 1.1, 3.7: the device comes back until its owner has registered it."""
    site.renews_by_est()
    guid = site.scanner.credential.guid
    registered = site.parties.rendezvous._registered.pop(guid)
    assert site.run("enroll", "fdo", "--json") == exits.TRY_LATER
    record = said(capsys)["identities"][0]
    assert (record["identity"], record["state"]) == ("device", "pending")

    assert site.run("renew") == exits.TRY_LATER
    out = capsys.readouterr().out
    assert "no owner yet" not in out
    assert ".." not in out
    assert "To act: hospital IT." in out
    assert "at once: scanseal enroll fdo" in out
    site.run("status")
    assert "the owner is looked for again after" in capsys.readouterr().out
    site.scanner.wait()
    site.parties.rendezvous._registered[guid] = registered
    assert site.run("renew") == exits.OK
    assert flows(site) == ["fdo", "est"]


def test_a_person_does_not_wait_for_the_moment_that_a_voucher_names(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    """FDO 1.1, 3.7: the delay is for devices that come back by themselves. The owner is registered meanwhile."""
    site.renews_by_est()
    guid = site.scanner.credential.guid
    registered = site.parties.rendezvous._registered.pop(guid)
    assert site.run("enroll", "fdo") == exits.TRY_LATER
    site.parties.rendezvous._registered[guid] = registered

    assert site.run("renew") == exits.TRY_LATER
    assert flows(site) == ["", ""]
    assert site.run("enroll", "fdo") == exits.OK
    assert flows(site) == ["fdo", "est"]
    capsys.readouterr()


def test_what_can_be_done_next_is_said(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Before the owner is known that is FDO, and afterwards the way that the owner has named."""
    site.renews_by_est()
    site.configure('[roles]\nderivation = ["user:somebody"]\n')
    site.run("status")
    assert "device     not enrolled. Run: scanseal enroll fdo\n" in capsys.readouterr().out
    site.run("check")
    before = capsys.readouterr().out
    assert "Run: scanseal enroll fdo" in before
    assert "Configure the way to your CA" not in before

    assert site.run("enroll", "fdo") == exits.OK
    capsys.readouterr()
    site.run("check")

    after = capsys.readouterr().out
    assert "scanseal enroll est --identity derivation" in after
    assert "Configure the way to your CA" not in after


def test_what_the_agent_says_of_a_certificate_that_is_missing_leads_to_the_right_command(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    """The agent knows no way. Before FDO that is FDO, and afterwards the one by which certificates are renewed."""
    assert "on the way that `scanseal check` names" in not_enrolled(SIGNING).remedy
    site.run("check")
    assert "Run: scanseal enroll fdo" in capsys.readouterr().out

    assert site.run("enroll", "fdo") == exits.CONFIGURATION  # nobody says how it is renewed
    capsys.readouterr()
    site.run("check")
    assert 'Set [fdo] renewal to "est"' in capsys.readouterr().out

    site.configure(f'[fdo]\nrenewal = "est"\n[est]\nurl = "{site.est.url}"')
    site.run("check")
    after = capsys.readouterr().out
    assert "Run: scanseal enroll est" in after
    assert "Run: scanseal enroll fdo" not in after
    assert site.run("enroll", "est") == exits.OK
    assert site.current(SIGNING) is not None


def test_check_says_what_came_of_the_last_attempt(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.configure("[fdo]\nfactory_mode = true")
    site.parties.rendezvous._registered.clear()
    site.run("check")
    before = capsys.readouterr().out
    assert "scanseal enroll fdo" in before
    assert "factory_mode = false" in before
    assert site.run("enroll", "fdo") == exits.TRY_LATER
    capsys.readouterr()

    site.run("check", "--json")
    found = [each for each in said(capsys)["findings"] if each["subject"] == "fdo"]
    assert {each["state"] for each in found} == {"warning"}  # it is not well as long as there is no owner
    (finding,) = (each for each in found if "again after" in each["what"])
    assert "scanseal enroll fdo" in finding["remedy"]


@pytest.mark.parametrize("way", ["est", "acme", "cmp"])
def test_a_way_that_is_not_configured_names_the_one_that_there_is(
    site: Site, capsys: pytest.CaptureFixture[str], way: str
) -> None:
    site.configure()
    assert site.run("enroll", way) == exits.CONFIGURATION
    assert "scanseal enroll fdo" in capsys.readouterr().err
    assert site.run("enroll", way, "--dry-run") == exits.CONFIGURATION
    assert "scanseal enroll fdo" in capsys.readouterr().err


def test_without_a_credential_nothing_is_kept_for_the_timer(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    (site.scanner.directory / "credential.current").unlink()
    assert site.run("enroll", "fdo") == exits.CONFIGURATION
    assert "fdo-not-initialized" in capsys.readouterr().err
    assert not list(site.scanner.directory.parent.rglob("wanted.json"))


def test_the_dry_run_names_the_server_that_the_owner_has_named(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.renews_by_est()
    assert site.run("enroll", "fdo") == exits.OK
    capsys.readouterr()
    assert site.run("enroll", "fdo", "--dry-run") == exits.OK
    out = capsys.readouterr().out
    assert "[est]" not in out
    assert f"signing: to {site.est.url}" in out


def test_a_release_that_is_half_way_is_told_of(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    record = site.scanner.scanner.identities.release_record
    write_record(record, {"begun_at": ""}, StateFiles())

    site.run("status")
    assert "scanseal owner release" in capsys.readouterr().out
    site.run("check")
    assert "scanseal owner release" in capsys.readouterr().out


def test_an_owner_waits_for_approval(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.renews_by_est()
    site.configure('[fdo]\napproval = "always"')
    assert site.run("enroll", "fdo") == exits.TRY_LATER
    assert "scanseal fdo approve" in capsys.readouterr().out
    site.run("status", "--json")
    (waiting,) = said(capsys)["fdo"]["approval"]
    assert waiting["is_approved"] is False
    site.run("status")
    assert f"an owner waits for approval: fingerprint {waiting['owner']}" in capsys.readouterr().out
    site.run("check")
    shown = capsys.readouterr().out
    assert "waits for approval" in shown
    assert f"approve {waiting['owner']}" not in shown  # to be typed from paper

    assert site.run("fdo", "approve", "0" * 64) == exits.CONFIGURATION
    assert waiting["voucher"] in capsys.readouterr().err
    assert site.run("fdo", "approve", waiting["voucher"].upper()) == exits.OK
    capsys.readouterr()
    site.run("status")
    shown = capsys.readouterr().out
    assert "goes on with the next run: an owner is approved" in shown
    assert "Somebody has to approve" not in shown
    assert site.run("fdo", "approve", "--none") == exits.OK
    assert site.run("renew") == exits.TRY_LATER
    assert site.run("fdo", "approve", waiting["owner"]) == exits.OK
    assert site.run("renew") == exits.OK
    assert flows(site) == ["fdo", "est"]


def test_an_owner_that_may_not_is_exit_code_77(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.configure(f'[fdo]\nowner_fingerprints = ["{"0" * 64}"]')

    assert site.run("enroll", "fdo") == exits.NOT_PERMITTED
    assert "owner-refused" in capsys.readouterr().err

    assert site.run("renew") == exits.TRY_LATER  # the timer waits until the moment that the voucher names
    assert site.run("enroll", "fdo") == exits.NOT_PERMITTED  # a person does not
    site.configure()
    site.run("enroll", "fdo")
    assert flows(site) == ["fdo", ""]


def test_where_nobody_says_how_it_is_renewed_the_scanner_is_onboarded_all_the_same(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the timer gets the other certificate once that is configured."""
    assert site.run("enroll", "fdo") == exits.CONFIGURATION
    assert "renewal-not-configured" in capsys.readouterr().err
    assert flows(site) == ["fdo", ""]
    site.run("check")
    assert "nobody says how it is renewed" in capsys.readouterr().out

    site.configure(f'[fdo]\nrenewal = "est"\n[est]\nurl = "{site.est.url}"')
    assert site.run("renew") == exits.OK
    assert flows(site) == ["fdo", "est"]


def test_a_scanner_that_is_sold_goes_to_its_next_owner(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not before the one up to now has released it; and nothing of that one is left."""
    site.renews_by_est()
    assert site.run("enroll", "fdo") == exits.OK
    old = site.scanner.credential
    with site.parties.next_owner(tmp_path / "buyer", "buyer") as (buyer, ca):
        buyer.take(sold(site.parties.owner, old.guid, party_keys("buyer")))
        assert site.run("enroll", "fdo") == exits.NOT_PERMITTED
        assert site.run("owner", "release", "--yes") == exits.OK
        assert flows(site) == ["", ""]
        assert site.run("renew") == exits.OK  # nobody has asked for anything
        assert flows(site) == ["", ""]
        site.run("status")
        assert "released by its last owner" in capsys.readouterr().out

        site.configure(f'[fdo]\nrenewal = "est"\n[est]\nurl = "{site.est.url}"')
        assert site.run("enroll", "fdo") == exits.TRY_LATER
        capsys.readouterr()
        site.run("status", "--json")
        assert site.run("fdo", "approve", said(capsys)["fdo"]["approval"][0]["owner"]) == exits.OK
        site.run("enroll", "fdo")

        generation = site.current(DEVICE)
        assert generation is not None
        generation.certificate.verify_directly_issued_by(ca.certificate)
        assert site.scanner.credential.key_uri == old.key_uri
