"""What `scanseal verify --json` prints is what docs/verification.schema.json promises."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from agent.cli.main import run
from agent.policy.verdicts import Verdict
from tests.support.certificates import Authority, rsa_key
from tests.support.dicom_samples import ct_slice, small_instance
from tests.support.key_usage_period import period_value, with_period
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


def test_when_the_key_might_sign_is_there_as_far_as_the_certificate_says_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """RFC 3280 4.2.1.4: either limit may be missing, and mostly both are."""
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    authority = Authority(tmp_path, datetime.now(UTC))
    plain = authority.issue("signer", rsa_key(2048))
    limited = with_period(plain.certificate, authority.key, period_value(not_after=end))
    files = [tmp_path / "plain.dcm", tmp_path / "limited.dcm"]
    for file, signer in zip(files, (plain, replace(plain, certificate=limited)), strict=True):
        file.write_bytes(sign(ct_slice(16, 16), signer))

    document = printed(capsys, "--anchor", authority.certificate_file, "--profile", "creator-rsa", *files)

    Draft202012Validator(SCHEMA, format_checker=FormatChecker()).validate(document)
    times = [file["signatures"][0]["time"] for file in document["files"]]
    assert [time["outcome"] for time in times] == ["passed", "passed"]
    limits = {"not_before": None, "not_after": end.isoformat()}
    assert [time["key_usage_period"] for time in times] == [None, limits]


def test_every_verdict_is_in_the_schema() -> None:
    assert SCHEMA["$defs"]["verdict"]["enum"] == [verdict.value for verdict in Verdict]
