"""R16: what a release has written is read by this version, and what a later one has written is left alone."""

from __future__ import annotations

import json
import os
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest

from enroll.config import KeyStoreSettings, SoftwareStoreSettings
from enroll.errors import StateError, StateTooNew
from enroll.identity import IdentityName, IdentityStore
from enroll.keystore import KeyStores
from enroll.record import FORMAT
from enroll.statefile import StateFiles
from tests.support.key_stores import secret_file
from tests.support.records import rewrite
from tests.support.reliability.measured import measured
from tests.support.whole_state import Answers, answers_of, files_of

GOLDEN = Path(__file__).parents[1] / "golden" / "state"
RELEASES = sorted(path.name for path in GOLDEN.iterdir())


def unpacked(release: str, folder: Path) -> Path:
    """A copy with the modes that the product gives: git keeps none, and makes files as its umask wants."""
    root = folder / "state"
    shutil.copytree(GOLDEN / release / "state", root, symlinks=True)
    for directory, _, names in os.walk(root):
        Path(directory).chmod(0o750)
        for path in (Path(directory) / name for name in names):
            if not path.is_symlink():
                path.chmod(0o640)
    return root


def stores_of(root: Path) -> KeyStores:
    passphrase = secret_file(root.with_name("passphrase"), "a passphrase")
    return KeyStores(KeyStoreSettings(software=SoftwareStoreSettings(passphrase_file=passphrase)), root, StateFiles())


def test_there_is_one_of_this_version() -> None:
    assert version("scanseal") in RELEASES, "run: python -m scripts.make_golden_state"


@pytest.mark.parametrize("release", RELEASES)
def test_what_a_release_has_written_says_the_same_now(release: str, tmp_path: Path) -> None:
    root = unpacked(release, tmp_path)
    said = answers_of(Answers(root, stores_of(root), StateFiles()))

    assert said == json.loads((GOLDEN / release / "answers.json").read_text("utf-8"))
    assert len(said) > 40
    assert not any(answer.startswith("error ") for answers in said.values() for answer in answers.values())
    measured("R16", f"state of {release} read by this version", files=len(said), changed_answers=0)


@pytest.mark.parametrize("release", RELEASES)
def test_the_keys_of_a_release_are_loaded(release: str, tmp_path: Path) -> None:
    root = unpacked(release, tmp_path)
    stores, identities = stores_of(root), IdentityStore(root, StateFiles())

    for name in (IdentityName.DEVICE, IdentityName.SIGNING):
        current = identities.current(name)
        assert current is not None
        assert stores.load(current.key_uri).public_key() == current.certificate.public_key()


def test_each_record_of_a_newer_version_is_refused_and_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is enrolled over it, which would forget what it says."""
    root = unpacked(RELEASES[-1], tmp_path)
    answers = Answers(root, stores_of(root), StateFiles())
    records = [path for path in files_of(root) if path.suffix == ".json" and path.name != "offline-ended.json"]
    refused = 0
    for path in records:
        before = path.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr("enroll.record.FORMAT", FORMAT + 1)
            rewrite(path, **{"what nobody knows yet": "x"})
        newer = path.read_bytes()
        for load in answers.loaders(path).values():
            try:
                load()
            except StateTooNew:
                refused += 1
        assert path.read_bytes() == newer
        path.write_bytes(before)
    assert refused > 20
    measured("R16", "records of the next format", records=len(records), refused=refused, changed=0)


@pytest.mark.parametrize("name", [IdentityName.DEVICE, IdentityName.SIGNING])
def test_an_identity_of_a_newer_version_is_not_begun_anew(
    name: IdentityName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = unpacked(RELEASES[-1], tmp_path)
    identities = IdentityStore(root, StateFiles())
    current = identities.current(name)
    assert current is not None
    with monkeypatch.context() as patch:
        patch.setattr("enroll.record.FORMAT", FORMAT + 1)
        rewrite(identities.chain_file(current).with_name("meta.json"))

    for read in (identities.current, identities.readable):
        with pytest.raises(StateError) as refused:
            read(name)
        assert refused.value.code == "state-too-new"
