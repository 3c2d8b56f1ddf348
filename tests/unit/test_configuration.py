"""scanseal.toml is read strictly: nothing that was written there is ignored."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from enroll.algorithms import KeyAlgorithm
from enroll.config import EnrollSettings, StoreName
from enroll.errors import ConfigurationError
from enroll.options import CONFIGURATION_LIMIT, read_settings, read_toml
from enroll.statefile import StateFiles
from tests.support.other_user import error_of

LEAST = '[device]\nserial_number = "CT-000123"\n'


def read(tmp_path: Path, text: str) -> EnrollSettings:
    path = tmp_path / "scanseal.toml"
    path.write_text(text, encoding="utf-8")
    return read_settings(EnrollSettings, read_toml(path, StateFiles()), "")


def refusal(tmp_path: Path, text: str) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as error:
        read(tmp_path, text)
    assert error.value.remedy
    return error.value


def test_the_serial_number_is_all_that_must_be_set(tmp_path: Path) -> None:
    settings = read(tmp_path, LEAST)

    assert settings.device.serial_number == "CT-000123"
    assert settings.state_directory == Path("/var/lib/scanseal")
    assert settings.identity.device.key_algorithm is KeyAlgorithm.P_256
    assert settings.identity.signing.key_algorithm is KeyAlgorithm.RSA_3072
    assert settings.est.url == ""


@pytest.mark.parametrize("text", ["", "[device]\n", '[device]\nmodel = "Example CT"\n'])
def test_without_a_serial_number_it_is_asked_for(tmp_path: Path, text: str) -> None:
    assert "serial_number is missing" in refusal(tmp_path, text).what


def test_every_kind_of_value_is_read(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        LEAST
        + """
        [identity.signing]
        key_store = "pkcs11"
        key_algorithm = "rsa-4096"
        [keystore.pkcs11]
        sessions = 4
        pin_file = "/run/credentials/pin"
        [est]
        url = "https://est.hospital.example:8443"
        label = "imaging"
        """,
    )

    assert settings.identity.signing.key_store is StoreName.PKCS11
    assert settings.identity.signing.key_algorithm is KeyAlgorithm.RSA_4096
    assert settings.keystore.pkcs11.sessions == 4
    assert settings.keystore.pkcs11.pin_file == Path("/run/credentials/pin")
    assert (settings.est.url, settings.est.label) == ("https://est.hospital.example:8443", "imaging")


@pytest.mark.parametrize(
    ("text", "wrong", "near"),
    [
        ('[est]\nurll = ""\n', "[est] has no option 'urll'", "url"),
        ("[keystore.pkcs11]\nsession = 1\n", "[keystore.pkcs11] has no option 'session'", "sessions"),
        ("[identiti]\n", "has no option 'identiti'", "identity"),
        ("[identity.sining]\n", "[identity] has no option 'sining'", "signing"),
        ("zzz = 1\n", "has no option 'zzz'", "Known are"),
    ],
)
def test_an_unknown_option_is_an_error_that_names_the_nearest(tmp_path: Path, text: str, wrong: str, near: str) -> None:
    error = refusal(tmp_path, text + LEAST)

    assert error.what == f"{wrong}."
    assert near in error.remedy


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[est]\nurl = 1\n", "[est] url is 1"),
        ("[est]\ntimeout = true\n", "[est] timeout is True"),
        ('[est]\ntimeout = "30"\n', "[est] timeout is '30'"),
        ("[est]\ntimeout = 1.5\n", "[est] timeout is 1.5"),
        ("[est]\ntimeout = 0\n", "[est] timeout is 0"),
        ("[est]\ntimeout = 601\n", "[est] timeout is 601"),
        ('[est]\nurl = "http://est.example"\n', "[est] url is 'http://est.example'"),
        ('[est]\nurl = "https://user:password@est.example"\n', "[est] url is"),
        ('[est]\nurl = "https://est.example/.well-known/est"\n', "[est] url is"),
        ('[est]\nlabel = "a/b"\n', "[est] label is 'a/b'"),
        ('[est]\nusername = "a:b"\n', "[est] username is 'a:b'"),
        ("[est]\nanchor_file = 1\n", "[est] anchor_file is 1"),
        ('est = "https://est.example"\n', "est must be a table"),
        ('[identity.device]\nkey_store = "cloud"\n', "[identity.device] key_store is 'cloud'"),
        ('[identity.device]\nkey_algorithm = "rsa-1024"\n', "[identity.device] key_algorithm is 'rsa-1024'"),
        ('[identity.signing]\nkey_algorithm = "p-256"\n', "[identity.signing] key_algorithm is 'p-256'"),
        ('[identity.signing]\nkey_algorithm = "p-384"\n', "[identity.signing] key_algorithm is 'p-384'"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_the_option(tmp_path: Path, text: str, complaint: str) -> None:
    assert refusal(tmp_path, text + LEAST).what.startswith(complaint)


def test_a_signing_key_is_an_rsa_key(tmp_path: Path) -> None:
    """PS3.15 C.2."""
    error = refusal(tmp_path, f'{LEAST}[identity.signing]\nkey_algorithm = "p-256"\n')

    assert error.remedy == "Use one of: rsa-2048, rsa-3072, rsa-4096."


@pytest.mark.parametrize(
    "option",
    [
        " state_directory",
        "[keystore.software] directory",
        "[keystore.software] passphrase_file",
        "[keystore.pkcs11] module",
        "[keystore.pkcs11] pin_file",
        "[est] anchor_file",
        "[est] password_file",
    ],
)
@pytest.mark.parametrize("path", ["", "file", "./file", "~/file"])
def test_a_path_is_absolute(tmp_path: Path, option: str, path: str) -> None:
    table, _, name = option.partition(" ")
    error = refusal(tmp_path, f"{table}\n{name} = '{path}'\n{LEAST}")

    assert error.what == f"{option} is {path!r}.".strip()
    assert "absolute path" in error.remedy


@pytest.mark.parametrize("serial_number", ["", " ", " CT-1", "CT-1 ", "CT_1", "CT\\n1", "Gerät", "x" * 65])
def test_a_serial_number_is_one_that_a_certificate_can_hold(tmp_path: Path, serial_number: str) -> None:
    assert "serial_number" in refusal(tmp_path, f'[device]\nserial_number = "{serial_number}"\n').what


@pytest.mark.parametrize("oid", ["1", "1.2.x", "1.40.1", "3.1.1", "1.2.03", "1.3.6.1.4.1.32473.", "1..2.3"])
def test_a_hardware_type_is_an_object_identifier(tmp_path: Path, oid: str) -> None:
    assert "hardware_type" in refusal(tmp_path, f'{LEAST}hardware_type = "{oid}"\n').what


@pytest.mark.parametrize("oid", ["", "1.3.6.1.4.1.32473.1", "2.999.1", "0.39.1"])
def test_an_object_identifier_is_a_hardware_type(tmp_path: Path, oid: str) -> None:
    assert read(tmp_path, f'{LEAST}hardware_type = "{oid}"\n').device.hardware_type == oid


@pytest.mark.parametrize(
    "content",
    [b"[device", b"\xff\xfe", b"a = " + b"[" * 5000, b"#" * (CONFIGURATION_LIMIT + 1), b"a = 1\na = 2\n"],
    ids=["no TOML", "no text", "deeply nested", "huge", "twice"],
)
def test_what_is_no_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "scanseal.toml"
    path.write_bytes(content)

    with pytest.raises(ConfigurationError) as error:
        read_toml(path, StateFiles())
    assert str(path) in error.value.what


def test_a_link_to_a_configuration_is_one(tmp_path: Path) -> None:
    (tmp_path / "real.toml").write_text(LEAST, encoding="utf-8")
    (tmp_path / "scanseal.toml").symlink_to("real.toml")

    assert "device" in read_toml(tmp_path / "scanseal.toml", StateFiles())


@pytest.mark.parametrize("kind", ["missing", "directory", "fifo", "link to nowhere"])
def test_without_a_configuration_the_option_and_the_example_are_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "scanseal.toml"
    match kind:
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "link to nowhere":
            path.symlink_to("nowhere")

    with pytest.raises(ConfigurationError) as error:
        read_toml(path, StateFiles())
    assert str(path) in error.value.what
    assert "--config" in error.value.remedy
    assert "systemd/scanseal.toml" in error.value.remedy
    assert "enroll again" not in str(error.value)


def test_a_configuration_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    path = tmp_path / "scanseal.toml"
    path.write_text(LEAST, encoding="utf-8")
    said = error_of("load(folder / 'scanseal.toml', StateFiles())", path, tmp_path)

    assert said.startswith("ConfigurationError"), said
    assert "Permission denied" in said
    assert "as the user scanseal" in said


def test_a_value_is_converted_for_the_type_that_is_declared(tmp_path: Path) -> None:
    table: dict[str, Any] = {"device": {"serial_number": "CT-000123"}, "state_directory": "/srv/scanseal"}

    assert read_settings(EnrollSettings, table, "").state_directory == Path("/srv/scanseal")
