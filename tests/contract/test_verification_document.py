"""What `scanseal verify --json` prints is what docs/verification.schema.json promises."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from agent.cli.main import run
from agent.policy.verdicts import Verdict
from tests.support.certificates import Authority, rsa_key
from tests.support.dicom_samples import ct_slice, small_instance
from tests.support.product_signing import sign

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/verification.schema.json").read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file of each kind: valid, changed, unsigned, no DICOM; and the anchor."""
    folder = tmp_path_factory.mktemp("verification")
    authority = Authority(folder, datetime.now(UTC))
    signed = sign(ct_slice(16, 16), authority.issue("signer", rsa_key(2048)))
    files = folder / "files"
    files.mkdir()
    (files / "signed.dcm").write_bytes(signed)
    (files / "changed.dcm").write_bytes(signed.replace(b"SN0001", b"SN0002"))
    (files / "unsigned.dcm").write_bytes(small_instance())
    (files / "text.dcm").write_text("no image")
    return folder


def printed(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    run(["verify", "--json", *map(str, arguments)])
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema
        for value in schema.values():
            yield from objects(value)
    if isinstance(schema, list):
        for value in schema:
            yield from objects(value)


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)


def test_the_schema_says_all_of_every_object() -> None:
    """Otherwise a member that is misspelt on one side would pass."""
    for schema in objects(SCHEMA):
        assert schema.get("additionalProperties") is not None
        assert list(schema.get("properties", {})) == schema.get("required", [])


def test_every_kind_of_result_fits_the_schema(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = printed(capsys, "--anchor", folder / "ca.pem", "--profile", "creator-rsa", folder / "files")
    Draft202012Validator(SCHEMA, format_checker=FormatChecker()).validate(document)
    verdicts = {Path(result["file"]).name: result["verdict"] for result in document["files"]}
    assert verdicts == {
        "signed.dcm": Verdict.VALID,
        "changed.dcm": Verdict.BROKEN,
        "unsigned.dcm": Verdict.UNSIGNED,
        "text.dcm": Verdict.INDETERMINATE,
    }
    assert document["summary"] == dict.fromkeys(verdicts.values(), 1)


def test_every_verdict_is_in_the_schema() -> None:
    assert SCHEMA["$defs"]["verdict"]["enum"] == [verdict.value for verdict in Verdict]
