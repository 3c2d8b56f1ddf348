"""R9: state files that were changed, cut, exchanged or replaced: what was there before is the answer, or a typed error.

A whole state directory is made by the product. Each of its files is then damaged in every way, and all that the product
reads from it is asked for again. Three answers are right: the one before; a `ScansealError`; and of an identity the
generation before, which says that the newest is damaged. What nothing depends on may be forgotten (`FORGOTTEN`). A
changed answer, or one as if there had been nothing, is a fault.
"""

from __future__ import annotations

import fnmatch
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import pytest

from enroll.config import KeyStoreSettings
from enroll.flows.acme.account import AccountRecord
from enroll.identity import IdentityName, IdentityStore
from enroll.keystore import KeyStores
from enroll.statefile import STATE_FILE_LIMIT, StateFiles
from tests.support.pki import HospitalCa
from tests.support.reliability.measured import measured
from tests.support.state_of_flows import HAS_PKCS11, make_released
from tests.support.state_writers import ELSEWHERE, WRITTEN, writers
from tests.support.whole_state import Answers, answer_of, files_of, make_state, told, unread

# Conveniences (docs/adr/0034-state-records.md): what is said where they are lost, and why that is no harm.
FORGOTTEN = {
    "ended": "()",  # an answer to an old request is refused anyway, only with another reason
    "plan": "None",  # then it is renewed at two thirds of the lifetime, and the CA is asked again
    "nonce": "None",  # another one is as good
    "account": told(AccountRecord()),  # a new account is made, with a new key
    "attempt": "None",  # the search for the owner begins with the first place again
    "silence": "None",  # the server is asked once more, and kept again
    "alarm": "None",  # people are told once more
    "ticket": "None",  # the vendor makes another one
    "pin": "None",  # the token gets it once more, and refuses it
}
# Between two places where a large key file is damaged: each byte of it goes the same way through the decryption, and
# the small ones are damaged at each.
STRIDE, LARGE_KEY = 17, 2000  # bytes

Made: TypeAlias = tuple[Path, KeyStoreSettings]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="giving files to a user needs root: run the tests as root")


class Damaged(StateFiles):
    """A disk on which some files hold something else."""

    def __init__(self) -> None:
        self.changed: Mapping[Path, bytes] = {}
        self._found: dict[Path, bytes] = {}

    def read(self, path: Path, limit: int = STATE_FILE_LIMIT, *, follow: bool = False) -> bytes:
        """What was put in the place of a file; else the file, which is read once."""
        if path in self.changed:
            return self.changed[path]
        if path not in self._found:
            self._found[path] = super().read(path, limit, follow=follow)
        return self._found[path]


class Site:
    """A state directory, and what it should say."""

    def __init__(self, root: Path, settings: KeyStoreSettings, files: StateFiles | None = None) -> None:
        self.root = root
        self.files = Damaged()
        files = files or self.files
        self.answers = Answers(root, KeyStores(settings, root, files), files)
        self.paths = files_of(root, keys=True)
        self.regular = [path for path in self.paths if not path.is_symlink()]
        self.loaders = {path: self.answers.loaders(path) for path in self.paths}
        self.right = {path: {name: answer_of(load) for name, load in self.loaders[path].items()} for path in self.paths}
        self.before = dict(self._generations_before())
        self.said: Counter[str] = Counter()

    @property
    def is_given_up(self) -> bool:
        """Whether it is that of a scanner whose owner gives it up, which is small."""
        return (self.root / "release.json").exists()

    def places(self, path: Path, size: int) -> range:
        """Where a file is damaged: everywhere, but for `STRIDE`."""
        return range(0, size, STRIDE if path.parent.name == "keys" and size > LARGE_KEY else 1)

    def _generations_before(self) -> Iterator[tuple[str, str]]:
        """What an identity says, and what it may say where the newest generation is damaged."""
        identities = self.answers.identities
        for directory in (self.root / "identities").iterdir():
            if (directory / "generations").exists():
                name = IdentityName(directory.name)
                current = identities.current(name)
                assert current is not None
                older = identities.number_before(name, current.number)
                if older:
                    path = directory / "current"
                    path.unlink()
                    path.symlink_to(f"generations/{older:04d}")
                    newest = directory / "newest.json"
                    hidden = newest.rename(self.root.parent / "hidden")
                    generation = IdentityStore(self.root, StateFiles()).current(name)
                    hidden.rename(newest)
                    path.unlink()
                    path.symlink_to(f"generations/{current.number:04d}")
                    text = told(generation).replace("damaged_newer=None", f"damaged_newer={current.number}")
                    yield told(current), text

    def check(self, path: Path, how: str) -> None:
        """Ask everything that reads a file which was damaged."""
        for name, load in self.loaders[path].items():
            right, answer = self.right[path][name], answer_of(load)
            if answer == right:
                self.said["the same"] += 1
            elif answer.startswith("error "):
                self.said["refused"] += 1
            elif name == "current" and answer == self.before.get(right):
                self.said["the generation before"] += 1
            else:
                assert answer == FORGOTTEN.get(name), f"{path.relative_to(self.root)}, {how}: {name} says {answer}"
                self.said["forgotten"] += 1

    def check_with(self, changed: Mapping[Path, bytes], how: str) -> None:
        """The same where the files hold something else."""
        self.files.changed = changed
        for path in changed:
            self.check(path, how)
        self.files.changed = {}

    def figures(self, what: str) -> None:
        """Keep how often each answer came; only damage that is noticed shows that the test sees it."""
        assert self.said["refused"] > 0
        trials = sum(self.said.values())
        measured(
            "R9",
            what + ", of a scanner given up" * self.is_given_up,
            files=len(self.paths),
            loads=trials,
            wrong_answers=0,
            **_named(self.said),
        )


def _named(said: Counter[str]) -> dict[str, float | str]:
    return {key.replace(" ", "_"): count for key, count in sorted(said.items())}


@pytest.fixture(scope="module", params=[make_state, make_released], ids=["in use", "given up"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    scanner = request.param(tmp_path_factory.mktemp("scanner"), HospitalCa())
    return scanner.identities.root, scanner.settings.keystore


@pytest.fixture
def site(made: Made) -> Site:
    return Site(*made)


def test_every_kind_of_file_has_a_loader_that_says_something(site: Site) -> None:
    assert unread(site.paths, site.answers) == []
    for path, answers in site.right.items():
        for answer in answers.values():
            assert not answer.startswith("error "), path
            assert answer not in {"None", "()"}, path
    if not site.is_given_up:
        assert len(site.paths) > 70
        assert len(site.before) == 2


def test_every_file_that_the_product_writes_is_among_them(tmp_path: Path) -> None:
    """Whoever writes a new state file makes one in `tests/support/whole_state.py`, and names it in `WRITTEN`."""
    assert writers() == {module: calls for module, (calls, *_) in WRITTEN.items()}

    there = [
        path.relative_to(root).as_posix()
        for make in (make_state, make_released)
        for root in (make(tmp_path / make.__name__, HospitalCa()).identities.root,)
        for path in files_of(root, keys=True)
    ]
    patterns = [
        pattern for _, *patterns in WRITTEN.values() for pattern in patterns if not pattern.startswith(ELSEWHERE)
    ]
    missing = {pattern for pattern in patterns if not fnmatch.filter(there, pattern)}
    assert missing == (set() if HAS_PKCS11 else {"tokens/*.json"})
    assert [path for path in there if not any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)] == []


def test_no_changed_byte_changes_an_answer(site: Site) -> None:
    for path in site.regular:
        data = path.read_bytes()
        for place in site.places(path, len(data)):
            changed = data[:place] + bytes([data[place] ^ (1 << place % 8)]) + data[place + 1 :]
            site.check_with({path: changed}, f"byte {place}")
    site.figures("state files: one bit of each byte")


def test_no_cut_changes_an_answer(site: Site) -> None:
    for path in site.regular:
        data = path.read_bytes()
        for length in site.places(path, len(data)):
            site.check_with({path: data[:length]}, f"cut at {length}")
    site.figures("state files: cut at every length")


def test_no_exchange_of_two_files_changes_an_answer(site: Site) -> None:
    """Of those with the same name, and of those of the same directory."""
    pairs = [
        (one, other)
        for number, one in enumerate(site.regular)
        for other in site.regular[number + 1 :]
        if one.name == other.name or one.parent == other.parent
    ]
    assert len(pairs) > (100 if not site.is_given_up else 5)
    for one, other in pairs:
        first, second = one.read_bytes(), other.read_bytes()
        site.check_with({one: second, other: first}, f"exchanged with {other.relative_to(site.root)}")
        site.check_with({one: second}, f"a copy of {other.relative_to(site.root)}")
        site.check_with({other: first}, f"a copy of {one.relative_to(site.root)}")
    site.figures("state files: exchanged with each other, or copied over")


# --- something else in the place of a file


def a_directory(path: Path) -> None:
    path.mkdir()


def a_fifo(path: Path) -> None:
    os.mkfifo(path)


def nothing_in_it(path: Path) -> None:
    path.write_bytes(b"")


def a_link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def a_link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def too_much(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(STATE_FILE_LIMIT * 4)


REPLACED: tuple[Callable[[Path], None], ...] = (
    a_directory,
    a_fifo,
    nothing_in_it,
    a_link_to_itself,
    a_link_to_a_device,
    too_much,
)


def on_a_copy(made: Made, folder: Path) -> Site:
    shutil.copytree(made[0], folder / "state", symlinks=True)
    return Site(folder / "state", made[1], StateFiles())


def test_nothing_in_the_place_of_a_file_changes_an_answer_or_hangs(made: Made, tmp_path: Path) -> None:
    site, aside = on_a_copy(made, tmp_path), tmp_path / "aside"
    for path in site.paths:
        path.rename(aside)
        for replace in REPLACED:
            replace(path)
            site.check(path, replace.__name__)
            (shutil.rmtree if path.is_dir() and not path.is_symlink() else os.unlink)(path)
        if not path.is_symlink() and not aside.is_symlink():
            path.symlink_to(aside)
            site.check(path, "a link to the same content")
            path.unlink()
            path.hardlink_to(aside)
            site.check(path, "a second hard link")
            path.unlink()
        aside.rename(path)
    site.figures("state files: replaced by links, FIFOs, directories, nothing, too much")


def test_no_owner_and_no_mode_changes_an_answer(made: Made, tmp_path: Path) -> None:
    site = on_a_copy(made, tmp_path)
    for path in site.regular:
        mode = path.stat().st_mode
        for wrong in (0o666, 0o660, 0o602, 0o777):
            path.chmod(wrong)
            site.check(path, f"mode {wrong:o}")
        path.chmod(mode)
    site.figures("state files: others may write them")


@needs_root
def test_no_file_of_somebody_else_is_used(made: Made, tmp_path: Path) -> None:
    site = on_a_copy(made, tmp_path)
    for path in site.paths:
        owner = path.lstat()
        os.chown(path, 12345, 12345, follow_symlinks=False)
        site.check(path, "of another user")
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
    site.figures("state files: of another user")


def test_a_pointer_leads_to_the_newest_or_nowhere(made: Made, tmp_path: Path) -> None:
    site = on_a_copy(made, tmp_path)
    if site.is_given_up:
        pytest.skip("a release takes the pointers away, so nothing is kept from taking them back")
    targets = [f"generations/{number:04d}" for number in range(10)]
    targets += [
        "generations/00001",
        "generations/1",
        "generations",
        "../device/generations/0001",
        "generations/..",
        "/",
    ]
    for path in (path for path in site.paths if path.name == "current"):
        genuine = str(path.readlink())
        for target in targets:
            path.unlink()
            path.symlink_to(target)
            answer = answer_of(site.loaders[path]["current"])
            number = target.rpartition("/")[2]
            fallen_back = "damaged_newer=" in answer and "damaged_newer=None" not in answer
            right = site.right[path]["current"] if target == genuine else ""
            refused, is_newer = answer.startswith("error "), number > genuine[-4:]
            assert refused or answer == right or (fallen_back and is_newer), target
            site.said["refused" if refused else "the generation before" if fallen_back else "the same"] += 1
        path.unlink()
        site.check(path, "lost")
        path.symlink_to(genuine)
    site.figures("state files: pointers to elsewhere")
