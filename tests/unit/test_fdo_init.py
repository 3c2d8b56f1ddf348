"""`scanseal fdo init`: the command of a factory line, and of nobody else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.cli import exits
from agent.cli.fdo import COMMANDS
from agent.cli.main import run
from enroll.fdo.messages import ErrorMessage
from tests.support.fdo.factory import GOOD_HEADER
from tests.support.fdo.parties import Parties
from tests.support.key_stores import secret_file
from tests.support.pki import HospitalCa
from tests.support.scripted_server import Request, ScriptedServer, answer

CONFIGURATION = """
state_directory = "{folder}/state"
[device]
serial_number = "CT-000123"
model = "Example CT"
[keystore.software]
passphrase_file = "{folder}/passphrase"
[fdo]
"""
FACTORY = """factory_mode = true
key_encoding = "X509"
"""
CA = HospitalCa()

Configure = Callable[[str], Path]
Output = pytest.CaptureFixture[str]


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    """Writes the configuration of a scanner with these lines in [fdo]."""
    secret_file(tmp_path / "passphrase", "correct horse battery staple")

    def write(lines: str) -> Path:
        path = tmp_path / "scanseal.toml"
        path.write_text(CONFIGURATION.format(folder=tmp_path) + lines, "utf-8")
        return path

    return write


@pytest.fixture
def parties(tmp_path: Path) -> Iterator[Parties]:
    with Parties(tmp_path) as running:
        yield running


@pytest.fixture
def factory(configure: Configure, parties: Parties) -> Path:
    """The configuration of a scanner on the factory line."""
    return configure(f'{FACTORY}manufacturer_url = "{parties.url}"\n')


def init(config: Path, *arguments: str) -> int:
    return run(["fdo", "init", "--config", str(config), *arguments])


def assert_nothing_is_kept(folder: Path) -> None:
    assert not any(path.is_file() for path in (folder / "state" / "keys").glob("*"))
    assert not any((folder / "state" / "fdo").glob("*"))


# --- help


def test_the_help_names_every_command_without_loading_one(capsys: Output) -> None:
    assert run(["fdo", "--help"]) == exits.OK

    said = capsys.readouterr().out
    assert [name for name in COMMANDS if f"\n  {name} " not in said] == []
    assert "Examples: scanseal fdo init" in said


def test_the_nearest_command_is_named(capsys: Output) -> None:
    assert run(["fdo", "aprove"]) == exits.USAGE
    assert "Did you mean 'approve'?" in capsys.readouterr().err


def test_the_help_has_exit_codes_and_an_example(capsys: Output) -> None:
    assert run(["fdo", "init", "--help"]) == exits.OK

    said = capsys.readouterr().out
    assert "Exit code: 0 the credential is made, 69" in said
    assert "Examples: scanseal fdo init" in said
    assert "factory_mode" in said


# --- in the factory


def test_it_says_the_guid_and_how_to_go_on(factory: Path, parties: Parties, capsys: Output) -> None:
    assert init(factory) == exits.OK

    said = capsys.readouterr()
    (voucher,) = parties.owner.vouchers.all()
    assert f"Example CT CT-000123 has its FDO credential, with the GUID {voucher.header.guid.hex()}." in said.out
    assert "factory_mode = false" in said.out
    assert "scanseal enroll fdo" in said.out
    assert said.err.startswith(f"Making the keys in software, then asking {parties.url} ...\n")
    assert "who copies it is this scanner" in said.err


def test_programs_get_json(factory: Path, parties: Parties, capsys: Output) -> None:
    assert init(factory, "--json", "--serial-number", "CT-4711", "--device-info", "Another CT") == exits.OK

    found = json.loads(capsys.readouterr().out)
    (voucher,) = parties.owner.vouchers.all()
    assert found.pop("key").startswith("software:fdo-")
    assert found == {
        "guid": voucher.header.guid.hex(),
        "serial_number": "CT-4711",
        "device_info": "Another CT",
        "protection": "software",
    }
    assert voucher.header.device_info == "Another CT"


def test_a_second_time_it_says_that_there_is_a_credential(factory: Path, parties: Parties, capsys: Output) -> None:
    assert init(factory) == exits.OK
    capsys.readouterr()
    assert init(factory) == exits.CONFIGURATION

    said = capsys.readouterr().err
    assert "[fdo-initialized]: This scanner has its FDO credential already." in said
    assert "Making the keys" not in said
    assert len(parties.owner.vouchers.all()) == 1


# --- anywhere else


def test_outside_the_factory_nothing_is_asked(configure: Configure, parties: Parties, capsys: Output) -> None:
    for lines in ("", "factory_mode = false\n"):
        assert init(configure(f'{lines}manufacturer_url = "{parties.url}"\n')) == exits.CONFIGURATION

        said = capsys.readouterr().err
        assert "[fdo-not-in-factory]" in said
        assert "scanseal enroll --help" in said
    assert len(parties.owner.vouchers.all()) == 0


@pytest.mark.parametrize(
    ("lines", "arguments", "remedy"),
    [
        ("", (), "manufacturer_url"),
        ('manufacturer_url = "ftp://factory.example"\n', (), "manufacturer_url"),
        ('manufacturer_url = "http://127.0.0.1:1"\n', ("--device-info", ""), "--device-info"),
        ('manufacturer_url = "http://127.0.0.1:1"\n', ("--device-info", "x" * 65), "model"),
        ('manufacturer_url = "http://127.0.0.1:1"\n', ("--serial-number", "CT_4711"), "serial_number"),
        ('manufacturer_url = "http://127.0.0.1:1"\n', ("--serial-number", "C" * 65), "serial_number"),
        ('manufacturer_url = "http://127.0.0.1:1"\nkey_store = "memory"\n', (), "key_store"),
        ('manufacturer_url = "http://127.0.0.1:1"\nkey_algorithm = "rsa-4096"\n', (), "key_algorithm"),
    ],
)
def test_what_has_to_be_corrected_is_named(
    configure: Configure, tmp_path: Path, capsys: Output, *, lines: str, arguments: tuple[str, ...], remedy: str
) -> None:
    assert init(configure(FACTORY + lines), *arguments) == exits.CONFIGURATION

    assert remedy in capsys.readouterr().err
    assert_nothing_is_kept(tmp_path)


def test_an_rsa_key_has_no_cosekey(configure: Configure, tmp_path: Path, capsys: Output) -> None:
    lines = 'factory_mode = true\nkey_encoding = "COSEKEY"\nkey_algorithm = "rsa-2048"\n'
    assert init(configure(f'{lines}manufacturer_url = "http://127.0.0.1:1"\n')) == exits.CONFIGURATION

    assert 'key_encoding to "X5CHAIN" or "X509"' in capsys.readouterr().err
    assert_nothing_is_kept(tmp_path)


# --- manufacturers that do not answer properly


def test_a_manufacturer_that_does_not_answer_leaves_nothing(
    configure: Configure, tmp_path: Path, capsys: Output
) -> None:
    assert init(configure(f'{FACTORY}manufacturer_url = "http://127.0.0.1:1"\n')) == exits.UNAVAILABLE

    said = capsys.readouterr().err
    assert "To act: vendor." in said
    assert "no timer does" in said
    assert_nothing_is_kept(tmp_path)


@pytest.mark.parametrize(
    ("reply", "code", "said"),
    [
        (
            answer(ErrorMessage(500, 10, "no").encode(), "200 OK", "application/cbor", "Message-Type: 255"),
            exits.NOT_PERMITTED,
            "the error 500: no",
        ),
        (
            answer(b"\x81\x40", "200 OK", "application/cbor", "Message-Type: 11", "Authorization: Bearer a"),
            exits.UNAVAILABLE,
            "breaks the protocol in message 11",
        ),
        (
            answer(GOOD_HEADER, "200 OK", "application/cbor", "Message-Type: 11"),
            exits.UNAVAILABLE,
            "gives no token",
        ),
        (answer(b"<html>", "404 Not Found", "text/html"), exits.UNAVAILABLE, "no message"),
    ],
    ids=["refuses", "malformed", "no-token", "web-server"],
)
def test_a_manufacturer_that_says_something_else_leaves_nothing(
    configure: Configure, tmp_path: Path, capsys: Output, *, reply: bytes, code: int, said: str
) -> None:
    asked: list[Request] = []

    def script(request: Request) -> bytes:
        asked.append(request)
        return reply

    with ScriptedServer(CA, tmp_path, script) as server:
        assert init(configure(f'{FACTORY}manufacturer_url = "{server.url}"\n')) == code

    assert said in capsys.readouterr().err
    assert_nothing_is_kept(tmp_path)
    paths = ["/fdo/101/msg/10"] if code == exits.NOT_PERMITTED else ["/fdo/101/msg/10", "/fdo/101/msg/255"]
    assert [request.path for request in asked] == paths
