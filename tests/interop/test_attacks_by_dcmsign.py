"""What dcmsign says to the files of the catalogue of attacks: the last column of docs/attacks.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from enroll.certificates import pem
from tests.support import dcmsign
from tests.support.attacks.catalogue import ATTACKS, honest_files
from tests.support.attacks.registry import Attack, Dcmsign
from tests.support.attacks.signers import trust
from tests.support.dcmsign import Exit, needs_dcmsign

pytestmark = needs_dcmsign

SIGNATURE_NOT_GOOD = frozenset((Exit.NO_SIGNATURE, Exit.VERIFICATION_FAILED, Exit.POLICY_NOT_MET))


@dataclass(frozen=True)
class SecondReader:
    """dcmsign with the certificates and the revocation lists of the catalogue."""

    folder: Path

    @property
    def anchors(self) -> Path:
        return self.folder / "anchors.pem"

    @property
    def intermediates(self) -> Path:
        return self.folder / "intermediates.pem"

    @property
    def revocation_lists(self) -> list[Path]:
        """One in each file: dcmsign reads no more."""
        return [self.folder / f"revoked-{number}.pem" for number, _ in enumerate(trust().revocation_lists)]

    def write_trust(self) -> None:
        self.anchors.write_bytes(pem((*trust().anchors, *trust().time_stamp_anchors)))
        self.intermediates.write_bytes(pem(trust().intermediates))
        for path, revocations in zip(self.revocation_lists, trust().revocation_lists, strict=True):
            path.write_bytes(revocations.public_bytes(Encoding.PEM))

    def says(self, data: bytes) -> Dcmsign:
        file = self.folder / "file.dcm"
        file.write_bytes(data)
        lists = [argument for path in self.revocation_lists for argument in ("+cr", path)]
        run = dcmsign.run("--verify", "+cf", self.anchors, "+uf", self.intermediates, *lists, "+rc", file)
        if run.accepted:
            return Dcmsign.ACCEPTS
        return Dcmsign.REFUSES if run.exit_code in SIGNATURE_NOT_GOOD else Dcmsign.CANNOT_READ


@pytest.fixture(scope="module")
def second_reader(tmp_path_factory: pytest.TempPathFactory) -> SecondReader:
    reader = SecondReader(tmp_path_factory.mktemp("dcmsign"))
    reader.write_trust()
    return reader


@pytest.mark.parametrize("honest", honest_files(), ids=lambda honest: honest.__name__)
def test_dcmsign_accepts_every_honest_file(honest: Callable[[], bytes], second_reader: SecondReader) -> None:
    assert second_reader.says(honest()) is Dcmsign.ACCEPTS


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_dcmsign_says_what_the_catalogue_tells_of_it(attack: Attack, second_reader: SecondReader) -> None:
    assert second_reader.says(attack.file()) is attack.dcmsign
