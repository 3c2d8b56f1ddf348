"""scanseal.toml as a whole: one file for both packages, and nothing in it is ignored."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.config import Configuration, load
from enroll.errors import ConfigurationError
from enroll.statefile import StateFiles

DEVICE = '[device]\nserial_number = "4711"\n'


def read(tmp_path: Path, text: str) -> Configuration:
    path = tmp_path / "scanseal.toml"
    path.write_text(text, "utf-8")
    return load(path, StateFiles())


def test_both_packages_find_their_options_in_one_file(tmp_path: Path) -> None:
    configuration = read(tmp_path, f'{DEVICE}[roles]\nacquisition = ["user:ct", "group:imaging"]\n')

    assert configuration.enroll.device.serial_number == "4711"
    assert configuration.agent.roles.acquisition == ("user:ct", "group:imaging")


def test_nobody_may_sign_until_the_operator_says_so(tmp_path: Path) -> None:
    roles = read(tmp_path, DEVICE).agent.roles

    assert roles.acquisition == roles.derivation == roles.synthesis == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[role]\n", "Did you mean roles?"),
        ("[sockets]\n", "Did you mean socket?"),
        ("[divice]\n", "Did you mean device?"),
        ('state_directroy = "/x"\n', "Did you mean state_directory?"),
        ("[limits]\nconections = 5\n", "Did you mean connections?"),
        ("[zzz]\n", "Known are: "),
        ("[limits]\nconnections = 0\n", "[limits] connections"),
        ("[limits]\nhead_seconds = true\n", "[limits] head_seconds"),
        ('[roles]\nacquisition = "user:ct"\n', "list of strings"),
        ("[roles]\ntls = []\n", "[roles] has no option 'tls'"),
        ('[socket]\npath = "sign.sock"\n', "[socket] path is 'sign.sock'. Give an absolute path"),
        ('[workers]\nspool_directory = "spool"\n', "[workers] spool_directory is 'spool'"),
    ],
)
def test_what_is_misspelt_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        read(tmp_path, text + ("" if "[divice]" in text else DEVICE))
