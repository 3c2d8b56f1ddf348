"""docs/openapi.json and docs/socket-protocol.md promise what agent/daemon/api.py does."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from agent.config import LimitsSettings, SigningSettings
from agent.daemon import api
from agent.daemon.problems import PROBLEMS
from agent.daemon.wire import HashName, Identity, Role
from agent.dicom.profile import ProfileName
from agent.dicom.purposes import PURPOSES
from agent.errors import DicomError
from tests.support.agent_process import ROOT

OPENAPI: dict[str, Any] = json.loads((ROOT / "docs" / "openapi.json").read_text("utf-8"))
PAGE = (ROOT / "docs" / "socket-protocol.md").read_text("utf-8")
OPERATIONS = {
    (path, method.upper()): operation for path, item in OPENAPI["paths"].items() for method, operation in item.items()
}
LISTED_PROBLEMS = {code: problem for code, problem in PROBLEMS.items() if code != DicomError.code}


def parameter(path: str, method: str, name: str) -> dict[str, Any]:
    """The schema of a parameter, references followed."""
    schema: dict[str, Any] = next(
        entry["schema"] for entry in OPERATIONS[path, method]["parameters"] if entry.get("name") == name
    )
    if reference := schema.get("$ref"):
        schema = {**OPENAPI["components"]["schemas"][reference.rpartition("/")[2]], **schema}
    return schema


def answered_types(path: str, method: str) -> set[str]:
    return set(OPERATIONS[path, method]["responses"]["200"]["content"])


def test_the_calls_are_the_same() -> None:
    assert set(OPERATIONS) == {(path, method) for path, calls in api.CALLS.items() for method in calls}


def test_every_call_is_described_on_the_page() -> None:
    described = set(re.findall(r"^## `(GET|POST) ([^`]+)`", PAGE, re.MULTILINE))

    assert {(path, method) for method, path in described} == set(OPERATIONS)


def test_every_call_needs_the_version_header() -> None:
    version = OPENAPI["components"]["parameters"]["Version"]

    assert version["schema"]["const"] == api.PROTOCOL_VERSION
    for operation in OPERATIONS.values():
        assert {"$ref": "#/components/parameters/Version"} in operation["parameters"]


@pytest.mark.parametrize(
    ("path", "method", "name", "values"),
    [
        ("/v1/certificates", "GET", "identity", Identity),
        ("/v1/sign/instance", "POST", "role", Role),
        ("/v1/sign/instance", "POST", "profile", ProfileName),
        ("/v1/sign/instance", "POST", "algorithm", HashName),
        ("/v1/sign/instance", "POST", "purpose", PURPOSES),
    ],
)
def test_parameters_take_the_same_values(path: str, method: str, name: str, values: Any) -> None:
    assert parameter(path, method, name)["enum"] == list(values)


def test_answers_are_of_the_same_types() -> None:
    assert answered_types("/v1/status", "GET") == {api.JSON}
    assert answered_types("/v1/certificates", "GET") == {api.PEM}
    assert answered_types("/v1/sign/digest", "POST") == {api.JSON}
    assert answered_types("/v1/sign/instance", "POST") == {api.DICOM, api.SPLICE}


def test_the_codes_of_problems_are_the_same() -> None:
    listed = OPENAPI["components"]["schemas"]["Problem"]["x-codes"]

    assert listed == {code: problem.status for code, problem in LISTED_PROBLEMS.items()}


def test_the_codes_of_problems_are_explained_on_the_page() -> None:
    explained = {code: int(status) for status, code in re.findall(r"^\| (\d{3}) \| `([a-z0-9-]+)`", PAGE, re.MULTILINE)}

    assert explained == {code: problem.status for code, problem in LISTED_PROBLEMS.items()}


def test_every_status_of_a_problem_is_promised_by_some_call() -> None:
    promised = {int(status) for operation in OPERATIONS.values() for status in operation["responses"]} - {200}
    everywhere = {PROBLEMS["path-unknown"].status, PROBLEMS["method-not-allowed"].status}  # belong to no call

    assert promised == {problem.status for problem in PROBLEMS.values()} - everywhere


def test_the_identities_of_the_status_are_those_whose_certificates_can_be_asked_for() -> None:
    status = OPENAPI["components"]["schemas"]["Status"]["properties"]

    assert set(status["identities"]["properties"]) == set(status["identities"]["required"]) == set(Identity)
    assert set(status["roles"]["properties"]) == set(status["roles"]["required"]) == set(Role)


def test_what_a_request_may_leave_out_is_optional() -> None:
    parameters = OPERATIONS["/v1/sign/instance", "POST"]["parameters"]

    assert [entry["name"] for entry in parameters if entry.get("in") == "query" and entry["required"]] == ["role"]


def test_the_defaults_on_the_page_are_those_of_the_configuration() -> None:
    signing = SigningSettings()

    assert f"default: `[signing] profile`, `{signing.profile}` unless" in PAGE
    assert f"default: `[signing] hash`, `{signing.hash}` unless" in PAGE


def test_the_limits_on_the_page_are_the_defaults() -> None:

    limits = LimitsSettings()
    for text in (
        f"| {limits.head_seconds} s | `limits.head_seconds`",
        f"| {limits.body_seconds} s + size ÷ {limits.bytes_per_second // 10**6} MB/s | `limits.body_seconds`",
        f"| {limits.idle_seconds} s | `limits.idle_seconds`",
        f"| {limits.instance_bytes >> 30} GiB | `limits.instance_bytes`",
        f"| {limits.connections} | `limits.connections`",
        f"| {limits.connections_per_user} | `limits.connections_per_user`",
        f"| {api.JSON_BODY_LIMIT >> 10} KiB |",
    ):
        assert text in PAGE
