"""What of an instance is beyond a bound of the verifier is told, and never makes a better verdict."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent import verification_document
from agent.cli import source_files
from agent.cli.main import run
from agent.dicom import data_set
from agent.dicom.headers import DEFAULT_LIMITS
from agent.dicom.provenance import sources
from agent.dicom.stored_instance import StoredInstance
from agent.policy.verdicts import EXIT_CODES, Verdict
from tests.support.certificates import Authority, Signer, rsa_key
from tests.support.dicom_samples import ct_slice
from tests.support.product_signing import sign
from tests.support.provenance import SOURCE_IMAGE_SEQUENCE, image, reference
from tests.support.raw_dicom import Node, part10

CONTRIBUTING_EQUIPMENT_SEQUENCE = 0x0018A001


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), datetime.now(UTC))


@pytest.fixture(scope="module")
def scanner(authority: Authority) -> Signer:
    return authority.issue("scanner", rsa_key(2048))


def verified(capsys: pytest.CaptureFixture[str], authority: Authority, *files: object) -> Iterator[dict[str, Any]]:
    capsys.readouterr()
    code = run(
        ["verify", "--json", "--profile", "creator-rsa", "--anchor", str(authority.certificate_file), *map(str, files)]
    )
    results = json.loads(capsys.readouterr().out)["files"]
    assert code == max(result["exit_code"] for result in results)
    yield from results


@pytest.mark.parametrize("sequence", [CONTRIBUTING_EQUIPMENT_SEQUENCE, SOURCE_IMAGE_SEQUENCE])
def test_what_is_too_much_only_when_it_is_reported_on_is_a_file_that_cannot_be_judged(
    sequence: int,
    authority: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """PS3.5 bounds neither items nor depth. The whole has been read by then, and no other file suffers."""
    costly, other = tmp_path / "1.dcm", tmp_path / "2.dcm"
    costly.write_bytes(part10(image(1, "CT-1", "ORIGINAL", Node(sequence, "SQ", items=((),) * 500))))
    other.write_bytes(ct_slice(16, 16))
    monkeypatch.setattr(data_set, "MOST_VISITS", 1_000)
    assert len(StoredInstance.read(costly.read_bytes(), DEFAULT_LIMITS).data_set)
    first, second = verified(capsys, authority, costly, other)
    assert (first["verdict"], first["exit_code"]) == (Verdict.INDETERMINATE, EXIT_CODES[Verdict.INDETERMINATE])
    assert first["error"]["code"] == "too-many-elements"
    assert second["verdict"] == Verdict.UNSIGNED


def test_an_instance_whose_sources_are_beyond_a_bound_is_not_valid(
    authority: Authority,
    scanner: Signer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    named = Node(SOURCE_IMAGE_SEQUENCE, "SQ", items=(reference(7), reference(8)))
    file = tmp_path / "1.dcm"
    file.write_bytes(sign(part10(image(1, "SN0001", "ORIGINAL", named)), scanner))
    (untouched,) = verified(capsys, authority, file)
    monkeypatch.setattr(sources, "MOST_ITEMS", 1)
    (bounded,) = verified(capsys, authority, file)
    assert Verdict.INDETERMINATE not in (untouched["verdict"], *untouched["beside"])
    assert (bounded["verdict"], bounded["exit_code"]) == (Verdict.INDETERMINATE, EXIT_CODES[Verdict.INDETERMINATE])
    assert [finding["code"] for finding in bounded["findings"]] == ["sources-too-many"]


def test_of_a_list_of_tags_that_is_cut_it_is_said_how_many_are_not_listed(
    authority: Authority,
    scanner: Signer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "1.dcm"
    file.write_bytes(sign(ct_slice(16, 16), scanner))
    (whole,) = verified(capsys, authority, file)
    monkeypatch.setattr(verification_document, "MOST_TAGS", 3)
    (cut,) = verified(capsys, authority, file)
    kinds = ("covered", "missing", "excluded", "unsignable")
    listed, shortened = whole["signatures"][0]["coverage"], cut["signatures"][0]["coverage"]
    assert listed["unlisted"] == dict.fromkeys(kinds, 0)
    assert {kind: shortened[kind] for kind in kinds} == {kind: listed[kind][:3] for kind in kinds}
    assert shortened["unlisted"] == {kind: max(0, len(listed[kind]) - 3) for kind in kinds}
    assert shortened["unlisted"]["excluded"] > 0
    assert (cut["verdict"], shortened["findings"]) == (whole["verdict"], listed["findings"])


@pytest.mark.parametrize("bound", [("NODES_KEPT", 1), ("MOST_SOURCES_KEPT", 0), ("MOST_STATED_KEPT", -1)])
def test_how_much_is_remembered_of_sources_changes_no_answer(
    bound: tuple[str, int],
    authority: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of images that were all made from the same ones, which in turn were made from others."""
    names = {1: (3, 4), 2: (3, 4), 3: (5,), 4: (5,), 5: ()}
    for own, named in names.items():
        made_from = Node(SOURCE_IMAGE_SEQUENCE, "SQ", items=tuple(map(reference, named)))
        (tmp_path / f"{own}.dcm").write_bytes(part10(image(own, "CT-1", "DERIVED", made_from)))
    files = (tmp_path / "1.dcm", tmp_path / "2.dcm", "--sources", tmp_path)
    expected = list(verified(capsys, authority, *files))
    assert [len(result["provenance"]["nodes"]) for result in expected] == [4, 4]
    monkeypatch.setattr(source_files, *bound)
    assert list(verified(capsys, authority, *files)) == expected
