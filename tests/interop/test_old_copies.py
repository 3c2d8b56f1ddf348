"""R9: an old copy of the whole state directory is put back: what tells, and what no state directory can tell.

Every file of such a copy is right in itself. What has happened outside of it since tells: keys in a token that were
destroyed. Where nothing has, or where the keys are in the copy, it is not noticed; these cases are written down here so
that nobody takes the opposite for granted (docs/adr/0034-state-records.md).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from enroll.certificates import check_pair
from enroll.config import KeyStoreSettings, Pkcs11StoreSettings, StoreName
from enroll.device_state import DeviceFacts, DeviceState, state_of
from enroll.errors import KeyNotFound, StateDamaged
from enroll.identity import Generation, IdentityName
from enroll.owner_release import OwnerRelease
from tests.support.enrolling import CaFlow, Scanner, settings
from tests.support.pki import HospitalCa
from tests.support.reliability.measured import measured
from tests.support.softhsm import SoftHsm, softhsm_of_this_process

CA = HospitalCa()
NAMES = (IdentityName.DEVICE, IdentityName.SIGNING)


@pytest.fixture(scope="module")
def softhsm(tmp_path_factory: pytest.TempPathFactory) -> SoftHsm:
    return softhsm_of_this_process(tmp_path_factory.getbasetemp())


def renew(scanner: Scanner) -> None:
    for name in NAMES:
        assert isinstance(scanner.issue(CaFlow(CA, scanner.clock), name), Generation)


def renew_twice(scanner: Scanner) -> None:
    renew(scanner)
    renew(scanner)


def disable(scanner: Scanner) -> None:
    scanner.identities.owner_file.disable(0, "it is lent", scanner.clock.now())


def release(scanner: Scanner) -> None:
    OwnerRelease(scanner.context).run()


@dataclass(frozen=True)
class Case:
    """What happens after the copy was made, and what the scanner is when that is put back."""

    act: Callable[[Scanner], None]
    state: DeviceState
    told_by: str = ""


IN_TOKEN = (
    Case(renew_twice, DeviceState.KEY_LOST, "the token: the key of the generation in the copy is destroyed"),
    Case(release, DeviceState.KEY_LOST, "the token: all keys of the owner are destroyed"),
    Case(renew, DeviceState.OWNED),  # the key of the generation before is kept
    Case(disable, DeviceState.OWNED),  # nothing outside of the directory knows of it
)
IN_FILES = tuple(Case(act, DeviceState.OWNED) for act in (renew_twice, release, renew, disable))


def in_token(folder: Path, hsm: SoftHsm) -> Scanner:
    """A scanner whose keys are not in its state directory."""
    configured = settings(folder)
    token = Pkcs11StoreSettings(module=hsm.proxy, token="through-proxy", pin_file=hsm.pin_file)
    identity = configured.identity
    made = replace(
        identity,
        device=replace(identity.device, key_store=StoreName.PKCS11),
        signing=replace(identity.signing, key_store=StoreName.PKCS11),
    )
    changed = replace(configured, keystore=KeyStoreSettings(pkcs11=token), identity=made)
    return Scanner(changed, (CA.certificate,))


def in_files(folder: Path, _: SoftHsm) -> Scanner:
    return Scanner(settings(folder), (CA.certificate,))


def state(scanner: Scanner) -> DeviceState:
    """What the scanner is; what is in use belongs together, or its key is lost."""
    lost = []
    for name in NAMES:
        current = scanner.identities.current(name)
        assert current is not None
        try:
            check_pair(scanner.stores.load(current.key_uri), current.certificate)
        except KeyNotFound:
            lost.append(name)
    record = scanner.identities.owner_file.read()
    return state_of(DeviceFacts(record, owners=NAMES, lost=tuple(lost)))


@pytest.mark.parametrize(
    ("new_scanner", "cases"), [(in_token, IN_TOKEN), (in_files, IN_FILES)], ids=["keys in a token", "keys in files"]
)
def test_an_old_copy_is_told_by_what_has_happened_outside_of_it(
    tmp_path: Path,
    softhsm: SoftHsm,
    new_scanner: Callable[[Path, SoftHsm], Scanner],
    cases: tuple[Case, ...],
    request: pytest.FixtureRequest,
) -> None:
    told = 0
    for number, case in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        scanner = new_scanner(folder, softhsm)
        renew(scanner)
        root, copy = scanner.identities.root, folder / "copy"
        shutil.copytree(root, copy, symlinks=True)
        assert state(scanner) is DeviceState.OWNED
        case.act(scanner)
        shutil.rmtree(root)
        copy.rename(root)

        found = state(scanner.restarted())

        assert found is case.state, case.act.__name__
        assert (found is not DeviceState.OWNED) == bool(case.told_by)
        told += bool(case.told_by)
        renew(scanner.restarted())  # a person enrolls again, which is the way out
        assert state(scanner.restarted()) is DeviceState.OWNED
    where = request.node.callspec.id
    measured("R9", f"an old copy of the whole directory, {where}", copies=len(cases), noticed=told)


def test_an_older_copy_of_one_identity_is_told_by_its_pointer(tmp_path: Path) -> None:
    """Not a whole copy, but what somebody may restore who knows too much: `current` alone."""
    scanner = Scanner(settings(tmp_path), (CA.certificate,))
    renew(scanner)
    pointer = scanner.identities.directory(IdentityName.SIGNING) / "current"
    old = pointer.readlink()
    renew(scanner)
    pointer.unlink()
    pointer.symlink_to(old)

    with pytest.raises(StateDamaged, match="leads back to an older generation"):
        scanner.identities.current(IdentityName.SIGNING)
