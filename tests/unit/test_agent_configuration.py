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


def test_without_a_word_everything_but_what_may_change_is_signed(tmp_path: Path) -> None:
    signing = read(tmp_path, DEVICE).agent.signing

    assert (signing.profile, signing.hash, signing.missing_device_identity) == ("creator-plus", "sha256", "warn")
    assert signing.private_elements is False


@pytest.mark.parametrize("name", ["md5", "MD5", "sha1", "SHA-1", "ripemd160", "RIPEMD-160", "ripemd_160"])
def test_an_antique_hash_is_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    """PS3.15 C.1, note: a verifier may still check them, a signer may not be allowed to make them."""
    with pytest.raises(ConfigurationError, match=r"\[signing\] hash .* could be forged") as refused:
        read(tmp_path, f'{DEVICE}[signing]\nhash = "{name}"\n')
    assert "sha256, sha384, sha512" in refused.value.remedy
    assert "still verified (PS3.15 C.1, note)" in refused.value.remedy


def test_the_minimum_profile_with_private_elements_is_a_contradiction(tmp_path: Path) -> None:
    """PS3.15 C.2 names no private elements but those of Raw Data, so the switch would be ignored."""
    with pytest.raises(ConfigurationError, match=r"\[signing\] private_elements is true, .* creator-rsa") as refused:
        read(tmp_path, f'{DEVICE}[signing]\nprofile = "creator-rsa"\nprivate_elements = true\n')
    assert refused.value.remedy == 'Write profile = "creator-plus", or private_elements = false.'
    for signing in ('profile = "creator-rsa"', "private_elements = true"):
        read(tmp_path, f"{DEVICE}[signing]\n{signing}\n")


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
        ('[signing]\nhash = "sha224"\n', "[signing] hash is 'sha224'. Use one of: sha256, sha384, sha512."),
        ('[signing]\nprofile = "base-rsa"\n', "[signing] profile is 'base-rsa'"),
        ('[signing]\nmissing_device_identity = "no"\n', "Use one of: refuse, warn, allow."),
        ('[signing]\nprivate_elements = "no"\n', "Give true or false."),
        ("signing = 5\n", "signing must be a table"),
        ('[workers]\nspool_directory = "spool"\n', "[workers] spool_directory is 'spool'"),
    ],
)
def test_what_is_misspelt_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        read(tmp_path, text + ("" if "[divice]" in text else DEVICE))
